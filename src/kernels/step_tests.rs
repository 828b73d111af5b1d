use super::super::elementwise::Activation;
use super::super::{Kernel, Stored};
use super::*;
use crate::test_kernels::available;
use half::bf16;
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn random(rng: &mut ChaCha8Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| rng.next_u32() as f32 / u32::MAX as f32 - 0.5).collect()
}

/// A convolution's weights and some rows of inputs, one after the other the taps of each.
struct StepCase {
    dtype: StepDtype,
    shape: (usize, usize, usize),
    rows: usize,
    relu: bool,
    weight: Vec<f32>,
    bias: Vec<f32>,
    inputs: Vec<f32>,
}

impl StepCase {
    fn new(dtype: StepDtype, shape: (usize, usize, usize), rows: usize, seed: u64) -> Self {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let (out_channels, in_channels, kernel_size) = shape;
        let mut inputs = random(rng, rows * in_channels * kernel_size);
        if dtype == StepDtype::Bf16 {
            round(Kernel::best(), &mut inputs);
        }
        Self {
            dtype,
            shape,
            rows,
            relu: seed.is_multiple_of(2),
            weight: random(rng, out_channels * in_channels * kernel_size),
            bias: random(rng, out_channels),
            inputs,
        }
    }

    fn weights(&self, kernel: Kernel) -> StepWeights {
        StepWeights::new(kernel, self.dtype, self.shape, &self.weight, Some(&self.bias))
            .expect("not too deep")
    }

    fn packed(&self, weights: &StepWeights) -> Vec<u32> {
        let depth = self.shape.1 * self.shape.2;
        let mut a = vec![0xffff_ffff; self.rows * weights.row_words()];
        for (row, x) in a.chunks_exact_mut(weights.row_words()).zip(self.inputs.chunks_exact(depth))
        {
            weights.pack_row(x.chunks_exact(self.shape.1), row);
        }
        a
    }

    /// In double precision, with the weights as they are kept.
    fn reference(&self) -> Vec<f32> {
        let (out_channels, in_channels, kernel_size) = self.shape;
        let mut weight = self.weight.clone();
        round_weight(self.dtype, &mut weight, out_channels);
        let depth = in_channels * kernel_size;
        let mut y = Vec::new();
        for x in self.inputs.chunks_exact(depth) {
            for (o, w) in weight.chunks_exact(depth).enumerate() {
                let mut sum = f64::from(self.bias[o]);
                for k in 0..depth {
                    let w = w[k % in_channels * kernel_size + k / in_channels];
                    sum += f64::from(x[k]) * f64::from(w);
                }
                let y_ = sum as f32;
                y.push(if self.relu { Activation::Relu.apply(y_) } else { y_ });
            }
        }
        y
    }

    fn tolerance(&self) -> f32 {
        let depth = (self.shape.1 * self.shape.2) as f32;
        match self.dtype {
            // half a whole number of 32767, or of fewer where the sum is deep, for each input
            StepDtype::Int8 => {
                3e-5 * depth.max(1.0).powf(1.0) / depth.sqrt().max(1.0) + 1e-5 * depth / 64.0
            }
            _ => 1e-5 * depth.sqrt().max(1.0),
        }
    }

    fn check(&self, what: &str, found: &[f32]) -> Result<(), TestCaseError> {
        let wanted = self.reference();
        prop_assert_eq!(found.len(), wanted.len());
        for (i, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
            prop_assert!(
                (found - wanted).abs() <= self.tolerance(),
                "{what} {:?} {:?} rows {}: [{i}] {found} {wanted}",
                self.dtype,
                self.shape,
                self.rows
            );
        }
        Ok(())
    }
}

const DTYPES: [StepDtype; 3] = [StepDtype::F32, StepDtype::Bf16, StepDtype::Int8];

fn every_kernel(case: &StepCase) -> Result<(), TestCaseError> {
    for kernel in available(Kernel::ALL, Kernel::name, Kernel::is_available) {
        let weights = case.weights(kernel);
        let a = case.packed(&weights);
        let mut y = vec![f32::NAN; case.rows * case.shape.0];
        product(&weights, &a, case.relu, &mut y);
        case.check(kernel.name(), &y)?;
        if kernel == Kernel::Amx {
            continue;
        }
        // a row alone gets the same bits
        let mut alone = vec![f32::NAN; case.shape.0];
        let words = weights.row_words();
        for (a, y) in a.chunks_exact(words).zip(y.chunks_exact(case.shape.0)) {
            product(&weights, a, case.relu, &mut alone);
            prop_assert_eq!(&alone, y);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn products_agree_with_plain_sums(
        dtype in 0usize..3,
        shape in (1usize..110, 1usize..20, 1usize..5),
        rows in 1usize..15,
        seed in 0u64..1000,
    ) {
        every_kernel(&StepCase::new(DTYPES[dtype], shape, rows, seed))?;
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn tiles_agree_with_plain_sums(
        shape in (1usize..110, 1usize..40, 1usize..4),
        rows in 1usize..70,
        seed in 0u64..1000,
    ) {
        use super::super::packed_gemm::amx_in_loops::Tiles;
        let case = StepCase::new(StepDtype::Bf16, shape, rows, seed);
        let weights = case.weights(Kernel::Amx);
        let mut y = vec![f32::NAN; case.rows * case.shape.0];
        amx::product(Tiles, &weights, &case.packed(&weights), case.relu, &mut y);
        case.check("tiles", &y)?;
    }
}

#[test]
fn large_products_are_shared_out() {
    for dtype in DTYPES {
        for (shape, rows) in [((450, 450, 3), 64), ((1400, 1000, 3), 1), ((450, 450, 3), 25)] {
            every_kernel(&StepCase::new(dtype, shape, rows, 2)).expect("agree");
        }
    }
}

#[test]
fn what_is_not_finite_shows() {
    for dtype in DTYPES {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut case = StepCase::new(dtype, (20, 7, 2), 1, 1);
            case.inputs[3] = bad;
            let weights = case.weights(Kernel::best());
            let mut y = vec![0.0; 20];
            product(&weights, &case.packed(&weights), case.relu, &mut y);
            assert!(y.iter().all(|y| !y.is_finite()), "{dtype:?} {bad}: {y:?}");
        }
    }
}

#[test]
fn int8_weights_are_whole_numbers_of_their_channel() {
    // the scales are 0.01, and none
    let mut weight = [0.5, -1.27, 0.004, 0.0, 0.0, 0.0, 0.0, 0.0];
    round_weight(StepDtype::Int8, &mut weight, 2);
    let wanted = [0.5, -1.27, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-6;
    assert!(weight.iter().zip(&wanted).all(close), "{weight:?}");
    let once = weight;
    round_weight(StepDtype::Int8, &mut weight, 2);
    assert_eq!(weight, once);
}

#[test]
fn a_sum_too_deep_for_int8_is_refused() {
    let deep = vec![0.0; 1 << 19];
    let error = StepWeights::new(Kernel::best(), StepDtype::Int8, (1, 1 << 19, 1), &deep, None)
        .expect_err("deep");
    let (what, limit) = ("int8 is too large: ", "at most 262144 are supported");
    let text = error.to_string();
    assert!(text.starts_with(what) && text.ends_with(limit), "{text}");
}

#[test]
fn rounding_is_that_of_bf16() {
    let mut x = [1.0, 1.0 + 1.0 / 256.0, -3.0e38, f32::INFINITY];
    round(Kernel::best(), &mut x);
    assert_eq!(x, [1.0, 1.0, bf16::store(-3.0e38).load(), f32::INFINITY]);
}
