//! Activations and gates: values and gradients, element by element, over all threads.

use num_traits::{One, Zero};
use serde::{Deserialize, Serialize};

use super::pieces::{each_piece, map, map_in_place, map_pairs, whole_rows};
use super::{Kernel, Real, Stored, instructions::Instructions, math::Functions};

/// The slope of the leaky ReLU below zero, PyTorch's default.
const LEAK: f64 = 0.01;

/// Klambauer et al. 2017, arXiv:1706.02515, section 2: mean 0 and variance 1 are a fixed point.
pub(crate) const SELU_SCALE: f64 = 1.050_700_987_355_480_5;
pub(crate) const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;

/// An activation function, applied to each element.
///
/// # Example
///
/// ```
/// use candle_tcn::nn::Activation;
/// assert_eq!(Activation::LeakyRelu.apply(-2.0f64), -0.02);
/// ```
///
/// # References
/// The PyTorch layer of the same name with its default arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `max(x, 0)`
    #[default]
    Relu,
    /// `x·Φ(x)`, exact, with the error function.
    Gelu,
    /// `x·σ(x)`
    Silu,
    /// `x` above zero, `eˣ − 1` below.
    Elu,
    /// `x` above zero, `0.01·x` below.
    LeakyRelu,
    /// `1.0507·x` above zero, `1.7581·(eˣ − 1)` below (Klambauer et al. 2017, arXiv:1706.02515).
    Selu,
    /// `tanh x`
    Tanh,
    /// `σ(x) = 1 / (1 + e⁻ˣ)`
    Sigmoid,
    /// `x·tanh(ln(1 + eˣ))`
    Mish,
}

/// `tanh(ln(1 + eˣ))` without overflow: with `e = e⁻|ˣ|` the quotient needs no large powers.
#[inline(always)]
fn tanh_softplus<T: Real>(x: T) -> T {
    let two = T::of(2.0);
    let e = (-x.abs()).exponential();
    let (above, below) = (T::one() + two * e, e * e + two * e);
    let (value, more) = if x >= T::zero() { (above, two * e * e) } else { (below, two) };
    value / (value + more)
}

/// Φ(x), the normal distribution function.
#[inline(always)]
fn normal<T: Real>(x: T) -> T {
    T::of(0.5) * (T::one() + (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).error_function())
}

/// Runs `$run` with the constant `$f` for the activation `$self`: one loop for each function, since a
/// choice within a loop would keep it from being vectorised.
macro_rules! with_constant {
    ($kind:ident($self:expr) { $($name:ident)* }, $f:ident => $run:expr) => {
        match $self {
            $($kind::$name => {
                const $f: $kind = $kind::$name;
                $run
            })*
        }
    };
}

macro_rules! with_activation {
    ($self:expr, $f:ident => $run:expr) => {
        with_constant!(
            Activation($self) { Relu Gelu Silu Elu LeakyRelu Selu Tanh Sigmoid Mish }, $f => $run
        )
    };
}

macro_rules! with_gate {
    ($self:expr, $f:ident => $run:expr) => {
        with_constant!(Gate($self) { Glu TanhSigmoid }, $f => $run)
    };
}

/// One of two values that are both computed: no branch keeps a loop from being vectorised.
#[inline(always)]
fn pick<T>(first: bool, a: T, b: T) -> T {
    if first { a } else { b }
}

impl Activation {
    /// The value at `x`.
    #[inline(always)]
    pub fn apply<T: Real>(self, x: T) -> T {
        let zero = T::zero();
        let above = x > zero;
        match self {
            // NaN stays NaN
            Self::Relu if x <= zero => zero,
            Self::Relu => x,
            Self::Gelu => x * normal(x),
            Self::Silu => x * x.sigmoid(),
            Self::Elu => pick(above, x, x.exponential_minus_1()),
            Self::LeakyRelu => pick(above, x, x * T::of(LEAK)),
            Self::Selu => {
                T::of(SELU_SCALE) * pick(above, x, T::of(SELU_ALPHA) * x.exponential_minus_1())
            }
            Self::Tanh => x.hyperbolic_tangent(),
            Self::Sigmoid => x.sigmoid(),
            Self::Mish => x * tanh_softplus(x),
        }
    }

    /// The derivative at `x`.
    #[inline(always)]
    pub fn derivative<T: Real>(self, x: T) -> T {
        let (zero, one) = (T::zero(), T::one());
        let above = x > zero;
        match self {
            Self::Relu => pick(above, one, zero),
            Self::Gelu => {
                let density =
                    T::of(0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2);
                normal(x) + x * density * (-x * x * T::of(0.5)).exponential()
            }
            Self::Silu => {
                let s = x.sigmoid();
                s * (one + x * (one - s))
            }
            Self::Elu => pick(above, one, x.exponential()),
            Self::LeakyRelu => pick(above, one, T::of(LEAK)),
            Self::Selu => T::of(SELU_SCALE) * pick(above, one, T::of(SELU_ALPHA) * x.exponential()),
            Self::Tanh => {
                let t = x.hyperbolic_tangent();
                one - t * t
            }
            Self::Sigmoid => {
                let s = x.sigmoid();
                s * (one - s)
            }
            Self::Mish => {
                let t = tanh_softplus(x);
                t + x * (one - t * t) * x.sigmoid()
            }
        }
    }

    /// `y = f(x)`; slices of one length.
    pub fn forward<S: Stored>(self, kernel: Kernel, x: &[S], y: &mut [S]) {
        with_activation!(self, F => map(kernel, x, y, #[inline(always)] |x| F.apply(x)));
    }

    /// `x = f(x)`, on the calling thread.
    pub fn apply_in_place<S: Stored>(self, kernel: Kernel, x: &mut [S]) {
        with_activation!(self, F => map_in_place(kernel, x, #[inline(always)] |x| F.apply(x)));
    }

    /// `dx = dy·f′(x)`; slices of one length. For the ReLU, its result will do for `x`: both are above
    /// zero at the same places.
    pub fn backward<S: Stored>(self, kernel: Kernel, x: &[S], dy: &[S], dx: &mut [S]) {
        with_activation!(self, F => {
            map_pairs(kernel, x, dy, dx, #[inline(always)] |x, dy| dy * F.derivative(x));
        });
    }
}

/// A gate: the first half of the channels, weighed by the second half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// `a·σ(b)`, the gated linear unit (Dauphin et al. 2017, arXiv:1612.08083; `torch.nn.GLU`).
    Glu,
    /// `tanh(a)·σ(b)`, WaveNet's gate (van den Oord et al. 2016, arXiv:1609.03499, eq. 2).
    TanhSigmoid,
}

impl Gate {
    #[inline(always)]
    fn pair<T: Real>(self, a: T, b: T) -> T {
        match self {
            Self::Glu => a * b.sigmoid(),
            Self::TanhSigmoid => a.hyperbolic_tangent() * b.sigmoid(),
        }
    }

    /// `f` and `f′` of `f(a)·σ(b)`.
    #[inline(always)]
    fn value_and_slope<T: Real>(self, a: T) -> (T, T) {
        match self {
            Self::Glu => (a, T::one()),
            Self::TanhSigmoid => {
                let t = a.hyperbolic_tangent();
                (t, T::one() - t * t)
            }
        }
    }

    /// One row; `weights` is room for as many numbers. In several loops: the compiler does not vectorise
    /// a single one.
    #[inline(always)]
    fn backward_row<S: Stored>(
        self,
        (a, b): (&[S], &[S]),
        dy: &[S],
        (da, db): (&mut [S], &mut [S]),
        weights: &mut [S::Real],
    ) {
        for (weight, b) in weights.iter_mut().zip(b) {
            *weight = b.load().sigmoid();
        }
        let given = a.iter().zip(dy).zip(&mut *weights);
        for (da, ((a, dy), weight)) in da.iter_mut().zip(given) {
            let (value, slope) = self.value_and_slope(a.load());
            let (s, dy) = (*weight, dy.load());
            *da = S::store(dy * slope * s);
            *weight = dy * value * s * (S::Real::one() - s);
        }
        for (db, weight) in db.iter_mut().zip(weights) {
            *db = S::store(*weight);
        }
    }

    /// `x` rows of `2·channels` numbers, `y` rows of `channels`.
    pub fn forward<S: Stored>(self, kernel: Kernel, channels: usize, x: &[S], y: &mut [S]) {
        let piece = whole_rows(channels);
        with_gate!(self, F => {
            let pieces = y.chunks_mut(piece).zip(x.chunks(2 * piece));
            each_piece(kernel, pieces, #[inline(always)] |(y, x)| F.rows(channels, x, y));
        });
    }

    /// As [`forward`](Self::forward), on the calling thread.
    pub fn apply_rows(self, kernel: Kernel, channels: usize, x: &[f32], y: &mut [f32]) {
        with_gate!(self, F => kernel.vectorized(#[inline(always)] || F.rows(channels, x, y)));
    }

    #[inline(always)]
    fn rows<S: Stored>(self, channels: usize, x: &[S], y: &mut [S]) {
        let rows = y.chunks_exact_mut(channels);
        for (y, x) in rows.zip(x.chunks_exact(2 * channels)) {
            let (a, b) = x.split_at(channels);
            for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
                *y = S::store(self.pair(a.load(), b.load()));
            }
        }
    }

    /// `dx` and `x` rows of `2·channels` numbers, `dy` rows of `channels`.
    pub fn backward<S: Stored>(
        self,
        kernel: Kernel,
        channels: usize,
        x: &[S],
        dy: &[S],
        dx: &mut [S],
    ) {
        let piece = whole_rows(channels);
        with_gate!(self, F => {
            let pieces = dx
                .chunks_mut(2 * piece)
                .zip(x.chunks(2 * piece))
                .zip(dy.chunks(piece));
            each_piece(kernel, pieces, #[inline(always)] |((dx, x), dy)| {
                let mut weights = vec![S::Real::zero(); channels];
                let rows = x.chunks_exact(2 * channels).zip(dy.chunks_exact(channels));
                for (dx, (x, dy)) in dx.chunks_exact_mut(2 * channels).zip(rows) {
                    let halves = dx.split_at_mut(channels);
                    F.backward_row(x.split_at(channels), dy, halves, &mut weights);
                }
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Activation; 9] = [
        Activation::Relu,
        Activation::Gelu,
        Activation::Silu,
        Activation::Elu,
        Activation::LeakyRelu,
        Activation::Selu,
        Activation::Tanh,
        Activation::Sigmoid,
        Activation::Mish,
    ];

    #[test]
    fn derivatives_agree_with_differences() {
        for f in ALL {
            for x in [-30.0f64, -3.1, -0.7, 0.2, 1.9, 40.0] {
                let h = 1e-5;
                let slope = (f.apply(x + h) - f.apply(x - h)) / (2.0 * h);
                assert!((f.derivative(x) - slope).abs() < 1e-8, "{f:?} at {x}");
            }
        }
    }

    #[test]
    fn extreme_values_stay_finite() {
        for f in ALL {
            for x in [-1e30f32, 1e30] {
                assert!(f.apply(x).is_finite() && f.derivative(x).is_finite(), "{f:?} at {x}");
            }
        }
    }

    #[test]
    fn mish_gelu_and_selu_match_their_definitions() {
        // torch: F.mish(torch.tensor(1.0)) = 0.8650983882673103, F.gelu(torch.tensor(-0.5)) = -0.1542687694
        assert!((Activation::Mish.apply(1.0f64) - 0.865_098_388_267_310_3).abs() < 1e-14);
        assert!((Activation::Gelu.apply(-0.5f64) + 0.154_268_769_4).abs() < 1e-9);
        // torch: F.selu(torch.tensor([2., -1.], dtype=torch.float64))
        assert!((Activation::Selu.apply(2.0f64) - 2.101_401_974_710_961).abs() < 1e-14);
        assert!((Activation::Selu.apply(-1.0f64) + 1.111_330_737_812_562_5).abs() < 1e-14);
    }

    #[test]
    fn gates_weigh_the_first_half_by_the_second() {
        let x = [2.0f64, -1.0, 0.0, 3.0];
        let (mut y, mut dx) = ([0.0; 2], [0.0; 4]);
        Gate::Glu.forward(Kernel::best(), 2, &x, &mut y);
        assert_eq!(y[0], 1.0);
        for gate in [Gate::Glu, Gate::TanhSigmoid] {
            gate.backward(Kernel::best(), 2, &x, &[1.0, 0.5], &mut dx);
            for i in 0..4 {
                let at = |h: f64| {
                    let (mut x, mut y) = (x, [0.0; 2]);
                    x[i] += h;
                    gate.forward(Kernel::best(), 2, &x, &mut y);
                    y[0] + 0.5 * y[1]
                };
                assert!((dx[i] - (at(1e-5) - at(-1e-5)) / 2e-5).abs() < 1e-9);
            }
        }
    }
}
