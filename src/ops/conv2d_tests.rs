use candle_core::{DType, Var};
use proptest::prelude::*;

use super::super::check::{assert_close, conv1d_then, conv2d_then, gradients, random};
use super::super::conv2d_primitives;
use super::super::convolution::finish_primitives;
use super::super::{Conv1dParams, PaddingMode, conv1d, pad2d};
use super::*;
use crate::kernels::dropout::MaskKey;

/// Channels in and out, groups: plain, grouped, depthwise, depthwise with a multiplier.
const CHANNELS: [(usize, usize, usize); 4] = [(3, 2, 1), (4, 6, 2), (3, 3, 3), (2, 4, 2)];

/// Kernel, dilation, stride and padding of one axis: one tap, same, causal, none, more padding than the
/// kernel needs, and a kernel larger than the input.
const AXES: [(usize, usize, usize, (usize, usize)); 7] = [
    (1, 1, 1, (0, 0)),
    (3, 1, 1, (1, 1)),
    (2, 2, 1, (2, 0)),
    (3, 2, 2, (0, 1)),
    (2, 1, 2, (1, 0)),
    (2, 1, 1, (3, 1)),
    (3, 4, 1, (4, 4)),
];

fn cases() -> impl Iterator<Item = ((usize, usize, usize), (usize, usize), Conv2dParams)> {
    let pairs = (0..AXES.len()).flat_map(|h| (0..AXES.len()).map(move |w| (h, w)));
    pairs.map(|(h, w)| {
        let channels = CHANNELS[(h + w) % CHANNELS.len()];
        let (height, width) = (AXES[h], AXES[w]);
        let params = Conv2dParams {
            dilation: (height.1, width.1),
            stride: (height.2, width.2),
            groups: channels.2,
            pad_height: height.3,
            pad_width: width.3,
        };
        (channels, (height.0, width.0), params)
    })
}

fn tensors(
    (batch, height, width): (usize, usize, usize),
    (ci, co, groups): (usize, usize, usize),
    kernel: (usize, usize),
) -> [Tensor; 3] {
    [
        random(1, &[batch, height, width, ci]),
        random(2, &[co, ci / groups, kernel.0, kernel.1]),
        random(3, &[co]),
    ]
}

#[test]
fn gradients_agree_with_differences() {
    for (channels, kernel, params) in cases() {
        for batch in [1, 2] {
            let inputs = tensors((batch, 4, 5), channels, kernel);
            gradients(&inputs, |t| Ok(conv2d(&t[0], &t[1], Some(&t[2]), params)?));
        }
    }
}

/// One image, one line, one column, one pixel.
#[test]
fn gradients_of_the_smallest_inputs_agree_with_differences() {
    let params = Conv2dParams {
        dilation: (2, 1),
        pad_height: (2, 2),
        pad_width: (1, 1),
        ..Default::default()
    };
    for size in [(1, 1, 4), (2, 4, 1), (2, 1, 1)] {
        let inputs = tensors(size, (2, 3, 1), (3, 3));
        gradients(&inputs[..2], |t| Ok(conv2d(&t[0], &t[1], None, params)?));
    }
}

#[test]
fn gradients_through_padding_modes_agree_with_differences() {
    for mode in
        [PaddingMode::Zeros, PaddingMode::Reflect, PaddingMode::Replicate, PaddingMode::Circular]
    {
        let inputs = tensors((2, 3, 4), (2, 2, 1), (2, 3));
        gradients(&inputs, |t| {
            let padded = pad2d(&t[0], (2, 1), (1, 3), mode)?;
            Ok(conv2d(&padded, &t[1], Some(&t[2]), Conv2dParams::default())?)
        });
    }
}

#[test]
fn an_epilogue_is_the_operations_one_after_another() {
    let params = Conv2dParams { pad_height: (1, 1), pad_width: (2, 0), ..Default::default() };
    let epilogue =
        Epilogue { relu: true, dropout: Some((0.3, MaskKey::new(3, 9))), f32_output: false };
    let inputs = tensors((2, 4, 5), (3, 4, 1), (3, 3));
    let [xs, weight, bias] = &inputs;
    let fused = conv2d_then(xs, weight, Some(bias), params, epilogue).unwrap();
    let sums = conv2d(xs, weight, Some(bias), params).unwrap();
    assert_close(&fused, &finish_primitives(sums, epilogue).unwrap(), 1e-14);
    gradients(&inputs, |t| Ok(conv2d_then(&t[0], &t[1], Some(&t[2]), params, epilogue)?));
}

#[test]
fn primitives_agree_forward_and_backward() {
    for (channels, kernel, params) in cases() {
        let vars = tensors((2, 4, 7), channels, kernel).map(|t| Var::from_tensor(&t).unwrap());
        let [xs, w, b] = &vars;
        let ours = conv2d(xs, w, Some(b), params).unwrap();
        let plain = conv2d_primitives(xs, w, Some(b), params).unwrap();
        assert_close(&ours, &plain, 1e-12);
        let ours = ours.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let plain = plain.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        for var in &vars {
            assert_close(ours.get(var).unwrap(), plain.get(var).unwrap(), 1e-11);
        }
    }
}

fn bits(t: &Tensor) -> Vec<u64> {
    let values: Vec<f64> = t.to_dtype(DType::F64).and_then(|t| t.flatten_all()?.to_vec1()).unwrap();
    values.into_iter().map(f64::to_bits).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// The 1-D convolution is the 2-D one of height 1, in every bit of results and gradients.
    #[test]
    fn one_line_is_the_convolution_over_time(
        (batch, len, ci, co, groups) in (1usize..4, 1usize..90, 1usize..12, 1usize..12, 1usize..3),
        (kernel, dilation, stride, extra) in (1usize..4, 1usize..6, 1usize..3, 0usize..3),
        bf16 in any::<bool>(),
    ) {
        let pad_left = (kernel - 1) * dilation;
        let over_time = Conv1dParams { dilation, stride, groups, pad_left, pad_right: extra };
        let over_width = Conv2dParams {
            dilation: (1, dilation),
            stride: (1, stride),
            groups,
            pad_height: (0, 0),
            pad_width: (pad_left, extra),
        };
        let dtype = if bf16 { DType::BF16 } else { DType::F32 };
        let var = |t: Tensor, dtype| Var::from_tensor(&t.to_dtype(dtype).unwrap()).unwrap();
        let xs = var(random(1, &[batch, len, groups * ci]), dtype);
        let weight = var(random(2, &[groups * co, ci, kernel]), DType::F32);
        let bias = var(random(3, &[groups * co]), DType::F32);
        let epilogue = Epilogue { relu: true, ..Default::default() };
        let one = conv1d_then(&xs, &weight, Some(&bias), over_time, epilogue).unwrap();
        let two = conv2d_then(
            &xs.unsqueeze(1).unwrap(), &weight.unsqueeze(2).unwrap(), Some(&bias), over_width, epilogue,
        ).unwrap();
        prop_assert_eq!(bits(&one), bits(&two));
        let [one, two] = [one, two].map(|ys| {
            let loss = ys.to_dtype(DType::F32).unwrap().sqr().unwrap().sum_all().unwrap();
            loss.backward().unwrap()
        });
        for var in [&xs, &weight, &bias] {
            prop_assert_eq!(bits(one.get(var).unwrap()), bits(two.get(var).unwrap()));
        }
    }
}

#[test]
fn a_kernel_larger_than_the_input_is_an_error_that_says_so() {
    let (xs, w) = (random(1, &[1, 3, 3, 1]), random(2, &[1, 1, 3, 3]));
    let params = Conv2dParams { dilation: (2, 2), ..Default::default() };
    let error = conv2d(&xs, &w, None, params).unwrap_err();
    assert_eq!(
        error.to_string(),
        "height: input length with padding: expected at least 5 steps, the effective size of kernel_size 3 \
         at dilation 2, found 3 + 0 + 0 = 3"
    );
}

#[test]
fn what_does_not_fit_is_an_error() {
    let xs = random(1, &[1, 3, 3, 2]);
    let fits = random(2, &[4, 2, 1, 1]);
    for (weight, bias, params, field) in [
        (random(2, &[4, 3, 1, 1]), 4, Conv2dParams::default(), "weight"),
        (fits.clone(), 3, Conv2dParams::default(), "bias"),
        (fits.clone(), 4, Conv2dParams { groups: 0, ..Default::default() }, "groups"),
        (fits.clone(), 4, Conv2dParams { stride: (1, 0), ..Default::default() }, "width: stride"),
        (
            fits.clone(),
            4,
            Conv2dParams { dilation: (0, 1), ..Default::default() },
            "height: dilation",
        ),
        (
            fits,
            4,
            Conv2dParams { pad_width: (usize::MAX, 1), ..Default::default() },
            "width: the padded input",
        ),
    ] {
        let error = conv2d(&xs, &weight, Some(&random(3, &[bias])), params).unwrap_err();
        assert!(error.to_string().starts_with(field), "{error}");
    }
    assert!(conv1d(&xs, &random(2, &[4, 2, 1]), None, None, Conv1dParams::default()).is_err());
}
