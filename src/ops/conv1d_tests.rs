use candle_core::DType;

use super::super::check::{assert_close, conv1d_then, gradients, random};
use super::super::conv1d_primitives;
use super::super::convolution::finish_primitives;
use super::*;

/// Every combination worth having, small enough for finite differences.
fn cases() -> Vec<(usize, usize, usize, usize, Conv1dParams)> {
    let mut cases = Vec::new();
    for batch in [1, 3] {
        for (groups, channels) in [(1, (3, 2)), (2, (4, 6)), (4, (4, 4)), (4, (4, 8))] {
            for (kernel_size, dilation) in [(1, 1), (2, 3), (3, 1), (3, 2)] {
                for stride in [1, 2] {
                    let span = (kernel_size - 1) * dilation;
                    for (pad_left, pad_right) in
                        [(span, 0), (span / 2, span - span / 2), (0, 0), (1, 4)]
                    {
                        let params = Conv1dParams { dilation, stride, groups, pad_left, pad_right };
                        cases.push((batch, channels.0, channels.1, kernel_size, params));
                    }
                }
            }
        }
    }
    cases
}

#[test]
fn gradients_agree_with_differences() {
    for (batch, ci, co, k, params) in cases() {
        let inputs =
            [random(1, &[batch, 6, ci]), random(2, &[co, ci / params.groups, k]), random(3, &[co])];
        gradients(&inputs, |t| Ok(conv1d(&t[0], &t[1], Some(&t[2]), None, params)?));
    }
}

#[test]
fn gradients_with_history_and_without_bias() {
    let params = Conv1dParams { dilation: 2, pad_left: 4, ..Default::default() };
    for history in [1, 4, 9] {
        let history = random(4, &[2, history, 3]);
        let inputs = [random(1, &[2, 5, 3]), random(2, &[2, 3, 3])];
        gradients(&inputs, |t| Ok(conv1d(&t[0], &t[1], None, Some(&history), params)?));
    }
}

#[test]
fn primitives_agree_forward_and_backward() {
    for (batch, ci, co, k, params) in cases() {
        for history in [None, Some(random(4, &[batch, 3, ci]))] {
            let vars = [
                random(1, &[batch, 7, ci]),
                random(2, &[co, ci / params.groups, k]),
                random(3, &[co]),
            ]
            .map(|t| candle_core::Var::from_tensor(&t).unwrap());
            let [xs, w, b] = &vars;
            let ours = conv1d(xs, w, Some(b), history.as_ref(), params).unwrap();
            let plain = conv1d_primitives(xs, w, Some(b), history.as_ref(), params).unwrap();
            assert_close(&ours, &plain, 1e-12);
            let ours = ours.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            let plain = plain.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            for var in &vars {
                assert_close(ours.get(var).unwrap(), plain.get(var).unwrap(), 1e-11);
            }
        }
    }
}

#[test]
fn an_input_shorter_than_the_kernel_is_an_error() {
    let (xs, w) = (random(1, &[1, 4, 1]), random(2, &[1, 1, 3]));
    let error = conv1d(&xs, &w, None, None, Conv1dParams { dilation: 2, ..Default::default() })
        .unwrap_err();
    assert!(error.to_string().contains('5'), "{error}");
}

#[test]
fn a_dropout_probability_of_one_is_an_error() {
    let (xs, w) = (random(1, &[1, 4, 1]), random(2, &[1, 1, 1]));
    for p in [1.0, -0.1, f64::NAN] {
        let epilogue = Epilogue { dropout: Some((p, MaskKey::new(0, 0))), ..Epilogue::default() };
        let error = conv1d_then(&xs, &w, None, Conv1dParams::default(), epilogue).unwrap_err();
        assert!(error.to_string().starts_with("dropout"), "{error}");
    }
}

#[test]
fn primitives_take_parameters_and_history_of_another_type() {
    let params = Conv1dParams { pad_left: 2, ..Default::default() };
    let exact =
        [random(1, &[2, 5, 3]), random(2, &[4, 3, 3]), random(3, &[4]), random(4, &[2, 2, 3])];
    let [xs, w, b, history] = exact.map(|t| t.to_dtype(DType::F16).unwrap());
    let [w32, b32, h32] = [&w, &b, &history].map(|t| t.to_dtype(DType::F32).unwrap());
    let mixed = conv1d_primitives(&xs, &w32, Some(&b32), Some(&h32), params).unwrap();
    let same = conv1d_primitives(&xs, &w, Some(&b), Some(&history), params).unwrap();
    assert_eq!(mixed.dtype(), DType::F16);
    assert_close(&mixed, &same, 0.0);
}

#[test]
fn an_epilogue_has_the_same_gradients_with_and_without_a_bias() {
    let inputs = [random(1, &[2, 5, 3]), random(2, &[4, 3, 2])];
    let zero = random(3, &[4]).zeros_like().unwrap();
    let key = MaskKey::new(1, 2);
    for relu in [false, true] {
        for dropout in [None, Some((0.3, key))] {
            let epilogue = Epilogue { relu, dropout, f32_output: false };
            let run = |t: &[Tensor], bias| {
                Ok(conv1d_then(&t[0], &t[1], bias, Conv1dParams::default(), epilogue)?)
            };
            gradients(&inputs, |t| run(t, None));
            gradients(&inputs, |t| run(t, Some(&zero)));
        }
    }
}

/// Bias, ReLU and dropout within the convolution are what the operations are one after another, and
/// their gradients are differences, in `f64`; in `f32` and `bf16` both agree to their precision.
#[test]
fn an_epilogue_is_the_operations_one_after_another() {
    let params = Conv1dParams { dilation: 2, pad_left: 4, ..Default::default() };
    let key = MaskKey::new(3, 9);
    for (batch, relu, dropout) in
        [(1, true, None), (3, true, Some((0.3, key))), (2, false, Some((0.3, key)))]
    {
        let epilogue = Epilogue { relu, dropout, f32_output: false };
        let inputs = [random(1, &[batch, 7, 5]), random(2, &[9, 5, 3]), random(3, &[9])];
        let fused = |t: &[Tensor]| conv1d_then(&t[0], &t[1], Some(&t[2]), params, epilogue);
        gradients(&inputs, |t| Ok(fused(t)?));
        let apart = finish_primitives(
            conv1d(&inputs[0], &inputs[1], Some(&inputs[2]), None, params).unwrap(),
            epilogue,
        )
        .unwrap();
        assert_close(&fused(&inputs).unwrap(), &apart, 1e-14);
        for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::BF16, 3e-2)] {
            let cast = |t: &Tensor, dtype| t.to_dtype(dtype).unwrap();
            let inputs = [
                cast(&inputs[0], dtype),
                cast(&inputs[1], DType::F32),
                cast(&inputs[2], DType::F32),
            ];
            let ys = fused(&inputs).unwrap();
            assert_eq!(ys.dtype(), dtype);
            assert_close(&ys, &apart, tolerance);
        }
    }
}
