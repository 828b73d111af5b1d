use super::super::{Kernel, Stored};
#[cfg(target_arch = "x86_64")]
use super::block_set::BlockSet;
use super::rows::RowFormat;
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

    fn weights(&self, kernel: Kernel, short: bool) -> StepWeights {
        let (weight, bias) = (&self.weight, Some(&self.bias[..]));
        StepWeights::new(kernel, (self.dtype, short), self.shape, weight, bias)
            .expect("not too deep")
    }

    /// The weights as `kernel` keeps them, and as it would on a processor with fewer instructions.
    fn variants(&self, kernel: Kernel) -> Vec<StepWeights> {
        let mut all = vec![self.weights(kernel, false)];
        if self.dtype == StepDtype::Int8 {
            all.push(self.weights(kernel, true));
        }
        #[cfg(target_arch = "x86_64")]
        for (on, dtype, format, blocks) in [
            (Kernel::Avx512, StepDtype::Bf16, RowFormat::Pairs, BlockSet::avx512_split_pairs()),
            (Kernel::Avx512, StepDtype::Bf16, RowFormat::WidePairs, BlockSet::avx512_pairs()),
            (
                Kernel::Avx512,
                StepDtype::Int8,
                RowFormat::Words { max: 9999.0 },
                BlockSet::avx512_words(),
            ),
            (
                Kernel::Avx2,
                StepDtype::Int8,
                RowFormat::Bytes { max: 127.0 },
                BlockSet::avx2_bytes(),
            ),
        ] {
            if on == kernel && dtype == self.dtype {
                let (weight, bias) = (&self.weight, Some(&self.bias[..]));
                let kept = (format, Some(blocks));
                all.push(StepWeights::of_format(kernel, dtype, kept, self.shape, weight, bias));
            }
        }
        all
    }

    fn packed(&self, weights: &StepWeights) -> Vec<u32> {
        let (depth, channels) = (self.shape.1 * self.shape.2, self.shape.1);
        let mut a = vec![0xffff_ffff; self.rows * weights.row_words()];
        weights.pack_rows(&mut a, |row| self.inputs[row * depth..][..depth].chunks_exact(channels));
        a
    }

    /// A row of inputs as a format rounds them, and how far they may be from that.
    fn rounded(format: RowFormat, x: &[f32]) -> (Vec<f64>, f64) {
        let x = x.iter().map(|&x| f64::from(x));
        let (low, high) = x.clone().fold((0f64, 0f64), |(low, high), x| (low.min(x), high.max(x)));
        let (unit, zero, max) = match format {
            RowFormat::Singles | RowFormat::Pairs | RowFormat::WidePairs => {
                return (x.collect(), 0.0);
            }
            RowFormat::Words { max } => (high.max(-low) / f64::from(max), 0.0, f64::from(max)),
            RowFormat::Bytes { max } => {
                let unit = (high - low) / f64::from(max);
                (unit, (-low / unit).round_ties_even(), f64::from(max))
            }
        };
        let whole = |x: f64| ((x / unit).round_ties_even() + zero).min(max) - zero;
        // an input half way between two whole numbers may become the other one
        (x.map(|x| if unit > 0.0 { whole(x) * unit } else { 0.0 }).collect(), unit)
    }

    /// In double precision, with the weights as they are kept and the inputs as they are rounded.
    fn check(&self, format: RowFormat, what: &str, found: &[f32]) -> Result<(), TestCaseError> {
        let (out_channels, in_channels, kernel_size) = self.shape;
        let mut weight = self.weight.clone();
        round_weight(self.dtype, &mut weight, out_channels);
        let depth = in_channels * kernel_size;
        prop_assert_eq!(found.len(), self.rows * out_channels);
        let rows = self.inputs.chunks_exact(depth).zip(found.chunks_exact(out_channels));
        for (r, (x, found)) in rows.enumerate() {
            let (x, unit) = Self::rounded(format, x);
            let tolerance = 1e-5 * (depth as f64).sqrt() + 0.6 * unit;
            for (o, w) in weight.chunks_exact(depth).enumerate() {
                let mut sum = f64::from(self.bias[o]);
                for k in 0..depth {
                    let w = w[k % in_channels * kernel_size + k / in_channels];
                    sum += x[k] * f64::from(w);
                }
                let wanted = if self.relu { sum.max(0.0) } else { sum };
                prop_assert!(
                    (f64::from(found[o]) - wanted).abs() <= tolerance,
                    "{what} {format:?} {:?} rows {}: [{r}, {o}] {} {wanted}",
                    self.shape,
                    self.rows,
                    found[o]
                );
            }
        }
        Ok(())
    }
}

const DTYPES: [StepDtype; 3] = [StepDtype::F32, StepDtype::Bf16, StepDtype::Int8];

fn every_kernel(case: &StepCase) -> Result<(), TestCaseError> {
    for kernel in available(Kernel::ALL, Kernel::name, Kernel::is_available) {
        for weights in case.variants(kernel) {
            let (a, words) = (case.packed(&weights), weights.row_words());
            let mut y = vec![f32::NAN; case.rows * case.shape.0];
            product(&weights, &a, case.relu, &mut y);
            case.check(weights.format, kernel.name(), &y)?;
            if kernel == Kernel::Amx && weights.format == RowFormat::Pairs {
                continue;
            }
            // a row alone gets the same bits
            let mut alone = vec![f32::NAN; case.shape.0];
            for (a, y) in a.chunks_exact(words).zip(y.chunks_exact(case.shape.0)) {
                product(&weights, a, case.relu, &mut alone);
                prop_assert_eq!(&alone, y);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn products_agree_with_plain_sums(
        dtype in 0usize..3,
        shape in (1usize..230, 1usize..20, 1usize..5),
        rows in 1usize..30,
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
        let weights = case.weights(Kernel::Amx, false);
        let mut y = vec![f32::NAN; case.rows * case.shape.0];
        amx::product(Tiles, &weights, &case.packed(&weights), case.relu, &mut y);
        case.check(weights.format, "tiles", &y)?;
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
    for (dtype, short) in
        [(DTYPES[0], false), (DTYPES[1], false), (DTYPES[2], false), (DTYPES[2], true)]
    {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut case = StepCase::new(dtype, (20, 7, 2), 1, 1);
            case.inputs[3] = bad;
            let weights = case.weights(Kernel::best(), short);
            let mut y = vec![0.0; 20];
            product(&weights, &case.packed(&weights), false, &mut y);
            assert!(y.iter().all(|y| !y.is_finite()), "{dtype:?} {bad}: {y:?}");
        }
    }
}

#[test]
fn finite_inputs_far_apart_stay_finite() {
    for short in [false, true] {
        let mut case = StepCase::new(StepDtype::Int8, (20, 7, 2), 1, 1);
        case.inputs[..2].copy_from_slice(&[3e38, -3e38]);
        let weights = case.weights(Kernel::best(), short);
        let mut y = vec![f32::NAN; 20];
        product(&weights, &case.packed(&weights), false, &mut y);
        assert!(y.iter().all(|y| y.is_finite()), "{short} {y:?}");
    }
}

#[test]
fn whole_inputs_of_eight_bits_are_exact() {
    for kernel in available(Kernel::ALL, Kernel::name, Kernel::is_available) {
        let mut case = StepCase::new(StepDtype::Int8, (40, 9, 3), 7, 1);
        for row in case.inputs.chunks_exact_mut(27) {
            row.iter_mut().enumerate().for_each(|(i, x)| *x = (i * 37 % 101) as f32 - 30.0);
            row[..2].copy_from_slice(&[-40.0, 215.0]);
        }
        for weights in case.variants(kernel) {
            let RowFormat::Bytes { max: 255.0 } = weights.format else { continue };
            let mut y = vec![f32::NAN; 7 * 40];
            product(&weights, &case.packed(&weights), false, &mut y);
            let wanted = |o: usize| -> f64 {
                let (numbers, scales) = quantize(&case.weight[o * 27..][..27], 1);
                let sum =
                    |k: usize| f64::from(numbers[k % 9 * 3 + k / 9]) * f64::from(case.inputs[k]);
                (0..27).map(sum).sum::<f64>() * f64::from(scales[0]) + f64::from(case.bias[o])
            };
            for (i, &y) in y.iter().enumerate() {
                let wanted = wanted(i % 40);
                assert!(
                    (f64::from(y) - wanted).abs() <= 1e-5 * wanted.abs().max(1.0),
                    "{y} {wanted}"
                );
            }
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
    let error =
        StepWeights::new(Kernel::best(), (StepDtype::Int8, true), (1, 1 << 19, 1), &deep, None)
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
