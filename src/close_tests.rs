//! The comparator catches what it is there for.

use candle_core::{Device, Tensor};

use crate::close::{Tolerance, compare};
use crate::ops::{Conv1dParams, conv1d};

fn close(found: &[f64], expected: &[f64]) -> bool {
    compare(found, expected, Tolerance::relative(1e-5, expected)).is_ok()
}

#[test]
fn what_is_close_passes() {
    let expected = [1.0, -2.0, 0.0, 1e6, f64::INFINITY];
    assert!(close(&expected[..4], &expected[..4]));
    assert!(close(&[1.000_009, -2.000_01, 9e-6, 1e6 + 9.0], &expected[..4]));
    let exact = Tolerance { atol: 0.0, rtol: 0.0 };
    assert!(compare(&expected, &expected, exact).is_ok());
}

#[test]
fn a_nan_fails_wherever_it_is() {
    let good = [1.0, 2.0, 3.0];
    for at in 0..3 {
        let mut bad = good;
        bad[at] = f64::NAN;
        assert!(!close(&bad, &good), "found[{at}]");
        assert!(!close(&good, &bad), "expected[{at}]");
        assert!(!close(&bad, &bad), "both[{at}]");
    }
}

#[test]
fn an_infinity_a_sign_and_a_length_fail() {
    let good = [0.5, -0.25, 2.0];
    assert!(!close(&[0.5, f64::INFINITY, 2.0], &good));
    assert!(!close(&good, &[0.5, f64::INFINITY, 2.0]));
    assert!(!close(&[0.5, 0.25, 2.0], &good));
    assert!(!close(&good[..2], &good));
    assert!(!close(&[], &good));
}

#[test]
fn one_wrong_number_among_large_ones_fails() {
    let mut expected = vec![1e6; 1000];
    expected[700] = 0.5;
    let mut found = expected.clone();
    found[700] = 0.6;
    let message = compare(&found, &expected, Tolerance::relative(1e-5, &expected)).unwrap_err();
    assert!(
        message.contains("1 of 1000") && message.contains("[700]: 0.6 instead of 0.5"),
        "{message}"
    );
}

#[test]
fn small_numbers_are_compared_among_themselves() {
    // gradients are often as small as these
    assert!(!close(&[1e-7, 2e-7, 3.1e-7], &[1e-7, 2e-7, 3e-7]));
}

#[test]
fn a_shifted_tap_fails() {
    let numbers = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let xs: Vec<f64> = (0..20).map(|i| f64::from(i * i % 7)).collect();
    let xs = Tensor::from_vec(xs, (1, 20, 1), &Device::Cpu).unwrap();
    let convolve = |taps: [f64; 3]| {
        let weight = Tensor::new(&[[taps]], &Device::Cpu).unwrap();
        let params = Conv1dParams { pad_left: 2, ..Default::default() };
        numbers(&conv1d(&xs, &weight, None, None, params).unwrap())
    };
    let expected = convolve([0.0, 0.0, 1.0]);
    assert!(close(&convolve([0.0, 0.0, 1.0]), &expected));
    assert!(!close(&convolve([0.0, 1.0, 0.0]), &expected));
}
