//! Elementary functions without branches, so that loops over them vectorise.
//!
//! In single precision they are polynomials after an exact reduction of the argument; products are
//! not fused with sums, so every processor computes the same bits. In double precision, the type of
//! the checks, they are those of the standard library and of `libm`.

/// `eˣ`, `eˣ − 1`, `tanh`, `σ` and `erf`.
///
/// # Numerics
/// Errors of `f32`, in units of the last place over all arguments, as measured by the test:
/// `exp` 1.1, `exp_m1` 1.6, `tanh` 2.6, `sigmoid` 2.3, `erf` 2.0. Infinities give the limits, NaN gives NaN.
pub trait Functions: Copy {
    /// `eˣ`
    fn exponential(self) -> Self;
    /// `eˣ − 1`, without cancellation near 0.
    fn exponential_minus_1(self) -> Self;
    /// `tanh x`
    fn hyperbolic_tangent(self) -> Self;
    /// `σ(x) = 1 / (1 + e⁻ˣ)`
    fn sigmoid(self) -> Self;
    /// `erf x`, for the exact GELU.
    fn error_function(self) -> Self;
}

impl Functions for f64 {
    #[inline(always)]
    fn exponential(self) -> Self {
        self.exp()
    }
    #[inline(always)]
    fn exponential_minus_1(self) -> Self {
        self.exp_m1()
    }
    #[inline(always)]
    fn hyperbolic_tangent(self) -> Self {
        self.tanh()
    }
    #[inline(always)]
    fn sigmoid(self) -> Self {
        1.0 / (1.0 + (-self).exp())
    }
    #[inline(always)]
    fn error_function(self) -> Self {
        libm::erf(self)
    }
}

impl Functions for f32 {
    #[inline(always)]
    fn exponential(self) -> Self {
        // beyond these the result is 0 or infinite; NaN passes both comparisons
        let x = if self < -104.0 { -104.0 } else { self };
        let x = if x > 89.0 { 89.0 } else { x };
        let (n, r) = reduce(x);
        let value = 1.0 + (r + r * r * tail(r));
        // in two steps: 2ⁿ itself may be beyond the range of normal numbers
        let half = n >> 1;
        value * power_of_2(half) * power_of_2(n.wrapping_sub(half))
    }

    #[inline(always)]
    fn exponential_minus_1(self) -> Self {
        let x = if self < -18.0 { -18.0 } else { self };
        let x = if x > 89.0 { 89.0 } else { x };
        let (n, r) = reduce(x);
        // 2ⁿ·(eʳ − 1) + (2ⁿ − 1), each half as large: 2¹²⁸ is no number
        let scale = power_of_2(n.wrapping_sub(1));
        let value = scale * (r + r * r * tail(r)) + (scale - 0.5);
        value + value
    }

    #[inline(always)]
    fn hyperbolic_tangent(self) -> Self {
        let e = (-2.0 * self.abs()).exponential_minus_1();
        (-e / (e + 2.0)).copysign(self)
    }

    #[inline(always)]
    fn sigmoid(self) -> Self {
        // without overflow, so that very small results stay exact
        let e = (-self.abs()).exponential();
        let (above, below) = (1.0 / (1.0 + e), e / (1.0 + e));
        if self < 0.0 { below } else { above }
    }

    #[inline(always)]
    fn error_function(self) -> Self {
        let t = self.abs();
        // erf(t)/t − 1 as a polynomial of t² below 1
        let s = t * t;
        let p = 7.853_855e-5;
        let p = p * s - 8.010_192e-4;
        let p = p * s + 5.188_327_3e-3;
        let p = p * s - 2.685_381e-2;
        let p = p * s + 0.112_835_854;
        let p = p * s - 0.376_126_26;
        let p = p * s + 0.128_379_1;
        let near = t + t * p;
        // ln(1 − erf t) as a polynomial of t from 1 to 4, where erf rounds to 1
        let t = if t > 4.0 { 4.0 } else { t };
        let q = 1.863_800_9e-4;
        let q = q * t - 2.947_666_7e-3;
        let q = q * t + 2.183_809_7e-2;
        let q = q * t - 0.103_106_82;
        let q = q * t - 0.638_144_73;
        let q = q * t - 1.127_089_3;
        let q = q * t - 3.415_125_8e-4;
        let far = 1.0 - q.exponential();
        let value = if t < 1.0 { near } else { far };
        value.copysign(self)
    }
}

/// `x = n·ln 2 + r` with `|r| ≤ ½·ln 2`; `|x|` below 10⁴.
#[inline(always)]
fn reduce(x: f32) -> (i32, f32) {
    // adding 1.5·2²³ rounds to a whole number, which then stands in the lowest bits
    const ROUND: f32 = 12_582_912.0;
    // the upper part has 10 bits: its multiples by n are exact
    const LN_2_UPPER: f32 = 0.693_359_4;
    const LN_2_LOWER: f32 = -2.121_944_4e-4;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let whole = shifted - ROUND;
    (n, (x - whole * LN_2_UPPER) - whole * LN_2_LOWER)
}

/// `(eʳ − 1 − r)/r²` for `|r| ≤ ½·ln 2`.
#[inline(always)]
fn tail(r: f32) -> f32 {
    let p = 1.991_865_6e-4;
    let p = p * r + 1.394_629_2e-3;
    let p = p * r + 8.333_264e-3;
    let p = p * r + 4.166_626_6e-2;
    let p = p * r + 0.166_666_67;
    p * r + 0.5
}

/// `2ⁿ` for `n` from −126 to 127.
#[inline(always)]
fn power_of_2(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The distance of two neighbouring `f32` at `x`.
    fn spacing(x: f64) -> f64 {
        let exponent = x.abs().max(f64::from(f32::MIN_POSITIVE)).log2().floor();
        (exponent - 23.0).exp2()
    }

    /// The largest error over arguments that run through all exponents, in units of the last place.
    fn largest_error(f: fn(f32) -> f32, exact: fn(f64) -> f64) -> f64 {
        let mut largest = (0.0, 0.0);
        for bits in (0..=u32::MAX).step_by(997) {
            let x = f32::from_bits(bits);
            let (got, want) = (f(x), exact(f64::from(x)));
            if want.is_nan() || want as f32 == f32::INFINITY {
                assert!(
                    got.is_nan() == want.is_nan() && got.to_bits() << 1 >= 0xff00_0000,
                    "f({x}) = {got}"
                );
            } else {
                let error = (f64::from(got) - want).abs() / spacing(want);
                if error > largest.0 {
                    largest = (error, x);
                }
            }
        }
        println!("largest error {largest:?}");
        largest.0
    }

    #[test]
    fn errors_are_as_documented() {
        assert!(largest_error(f32::exponential, f64::exp) < 1.1);
        assert!(largest_error(f32::exponential_minus_1, f64::exp_m1) < 1.6);
        assert!(largest_error(f32::hyperbolic_tangent, f64::tanh) < 2.6);
        assert!(largest_error(f32::sigmoid, <f64 as Functions>::sigmoid) < 2.3);
        assert!(largest_error(f32::error_function, libm::erf) < 2.0);
    }

    #[test]
    fn limits() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        type Function = fn(f32) -> f32;
        let cases: [(Function, f32, f32); 5] = [
            (f32::exponential, 0.0, inf),
            (f32::exponential_minus_1, -1.0, inf),
            (f32::hyperbolic_tangent, -1.0, 1.0),
            (f32::sigmoid, 0.0, 1.0),
            (f32::error_function, -1.0, 1.0),
        ];
        for (f, below, above) in cases {
            assert_eq!((f(-inf), f(inf)), (below, above));
            assert!(f(nan).is_nan());
            let zero = f(0.0);
            assert!(zero == 0.0 || zero == 1.0 || zero == 0.5);
        }
        assert!(f32::hyperbolic_tangent(-0.0).is_sign_negative());
    }
}
