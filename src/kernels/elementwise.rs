//! Activations and gates: values and gradients, element by element, over all threads.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Real;

/// Elements of one piece of work.
const PIECE: usize = 1 << 14;

/// The slope of the leaky ReLU below zero, PyTorch's default.
const LEAK: f64 = 0.01;

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
    /// `tanh x`
    Tanh,
    /// `σ(x) = 1 / (1 + e⁻ˣ)`
    Sigmoid,
    /// `x·tanh(ln(1 + eˣ))`
    Mish,
}

fn sigmoid<T: Real>(x: T) -> T {
    T::one() / (T::one() + (-x).exp())
}

/// `tanh(ln(1 + eˣ))` without overflow: with `e = e⁻|ˣ|` the quotient needs no large powers.
fn tanh_softplus<T: Real>(x: T) -> T {
    let two = T::of(2.0);
    let e = (-x.abs()).exp();
    if x >= T::zero() {
        (T::one() + two * e) / (T::one() + two * e + two * e * e)
    } else {
        (e * e + two * e) / (e * e + two * e + two)
    }
}

impl Activation {
    /// The value at `x`.
    pub fn apply<T: Real>(self, x: T) -> T {
        let zero = T::zero();
        match self {
            Self::Relu => {
                if x > zero || x.is_nan() {
                    x
                } else {
                    zero
                }
            }
            Self::Gelu => {
                x * T::of(0.5) * (T::one() + (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erf())
            }
            Self::Silu => x * sigmoid(x),
            Self::Elu => {
                if x > zero {
                    x
                } else {
                    x.exp_m1()
                }
            }
            Self::LeakyRelu => {
                if x > zero {
                    x
                } else {
                    x * T::of(LEAK)
                }
            }
            Self::Tanh => x.tanh(),
            Self::Sigmoid => sigmoid(x),
            Self::Mish => x * tanh_softplus(x),
        }
    }

    /// The derivative at `x`.
    pub fn derivative<T: Real>(self, x: T) -> T {
        let (zero, one) = (T::zero(), T::one());
        match self {
            Self::Relu => {
                if x > zero {
                    one
                } else {
                    zero
                }
            }
            Self::Gelu => {
                let cdf = T::of(0.5) * (one + (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erf());
                let norm =
                    T::of(0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2);
                cdf + x * norm * (-x * x * T::of(0.5)).exp()
            }
            Self::Silu => {
                let s = sigmoid(x);
                s * (one + x * (one - s))
            }
            Self::Elu => {
                if x > zero {
                    one
                } else {
                    x.exp()
                }
            }
            Self::LeakyRelu => {
                if x > zero {
                    one
                } else {
                    T::of(LEAK)
                }
            }
            Self::Tanh => {
                let t = x.tanh();
                one - t * t
            }
            Self::Sigmoid => {
                let s = sigmoid(x);
                s * (one - s)
            }
            Self::Mish => {
                let t = tanh_softplus(x);
                t + x * (one - t * t) * sigmoid(x)
            }
        }
    }

    /// `y = f(x)`; slices of one length.
    pub fn forward<T: Real>(self, x: &[T], y: &mut [T]) {
        y.par_chunks_mut(PIECE)
            .zip(x.par_chunks(PIECE))
            .for_each(|(y, x)| {
                y.iter_mut().zip(x).for_each(|(y, &x)| *y = self.apply(x));
            });
    }

    /// `dx = dy·f′(x)`; slices of one length.
    pub fn backward<T: Real>(self, x: &[T], dy: &[T], dx: &mut [T]) {
        let pieces = dx
            .par_chunks_mut(PIECE)
            .zip(x.par_chunks(PIECE))
            .zip(dy.par_chunks(PIECE));
        pieces.for_each(|((dx, x), dy)| {
            dx.iter_mut()
                .zip(x)
                .zip(dy)
                .for_each(|((dx, &x), &dy)| *dx = dy * self.derivative(x));
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
    fn pair<T: Real>(self, a: T, b: T) -> T {
        match self {
            Self::Glu => a * sigmoid(b),
            Self::TanhSigmoid => a.tanh() * sigmoid(b),
        }
    }

    fn gradients<T: Real>(self, a: T, b: T) -> (T, T) {
        let s = sigmoid(b);
        let (value, slope) = match self {
            Self::Glu => (a, T::one()),
            Self::TanhSigmoid => {
                let t = a.tanh();
                (t, T::one() - t * t)
            }
        };
        (slope * s, value * s * (T::one() - s))
    }

    /// `x` rows of `2·channels` numbers, `y` rows of `channels`.
    pub fn forward<T: Real>(self, channels: usize, x: &[T], y: &mut [T]) {
        let rows = rows_per_piece(channels);
        let pieces = y
            .par_chunks_mut(rows * channels)
            .zip(x.par_chunks(rows * 2 * channels));
        pieces.for_each(|(y, x)| {
            for (y, x) in y
                .chunks_exact_mut(channels)
                .zip(x.chunks_exact(2 * channels))
            {
                let (a, b) = x.split_at(channels);
                y.iter_mut()
                    .zip(a)
                    .zip(b)
                    .for_each(|((y, &a), &b)| *y = self.pair(a, b));
            }
        });
    }

    /// `dx` and `x` rows of `2·channels` numbers, `dy` rows of `channels`.
    pub fn backward<T: Real>(self, channels: usize, x: &[T], dy: &[T], dx: &mut [T]) {
        let rows = rows_per_piece(channels);
        let wide = rows * 2 * channels;
        let pieces = dx
            .par_chunks_mut(wide)
            .zip(x.par_chunks(wide))
            .zip(dy.par_chunks(rows * channels));
        pieces.for_each(|((dx, x), dy)| {
            let rows = dx
                .chunks_exact_mut(2 * channels)
                .zip(x.chunks_exact(2 * channels));
            for ((dx, x), dy) in rows.zip(dy.chunks_exact(channels)) {
                let (da, db) = dx.split_at_mut(channels);
                let (a, b) = x.split_at(channels);
                for (i, &dy) in dy.iter().enumerate() {
                    let (slope_a, slope_b) = self.gradients(a[i], b[i]);
                    da[i] = dy * slope_a;
                    db[i] = dy * slope_b;
                }
            }
        });
    }
}

fn rows_per_piece(channels: usize) -> usize {
    (PIECE / channels).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Activation; 8] = [
        Activation::Relu,
        Activation::Gelu,
        Activation::Silu,
        Activation::Elu,
        Activation::LeakyRelu,
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
                assert!(
                    f.apply(x).is_finite() && f.derivative(x).is_finite(),
                    "{f:?} at {x}"
                );
            }
        }
    }

    #[test]
    fn mish_and_gelu_match_their_definitions() {
        // torch: F.mish(torch.tensor(1.0)) = 0.8650983882673103, F.gelu(torch.tensor(-0.5)) = -0.1542687694
        assert!((Activation::Mish.apply(1.0f64) - 0.865_098_388_267_310_3).abs() < 1e-14);
        assert!((Activation::Gelu.apply(-0.5f64) + 0.154_268_769_4).abs() < 1e-9);
    }

    #[test]
    fn gates_weigh_the_first_half_by_the_second() {
        let x = [2.0f64, -1.0, 0.0, 3.0];
        let (mut y, mut dx) = ([0.0; 2], [0.0; 4]);
        Gate::Glu.forward(2, &x, &mut y);
        assert_eq!(y[0], 1.0);
        for gate in [Gate::Glu, Gate::TanhSigmoid] {
            gate.backward(2, &x, &[1.0, 0.5], &mut dx);
            for i in 0..4 {
                let at = |h: f64| {
                    let (mut x, mut y) = (x, [0.0; 2]);
                    x[i] += h;
                    gate.forward(2, &x, &mut y);
                    y[0] + 0.5 * y[1]
                };
                assert!((dx[i] - (at(1e-5) - at(-1e-5)) / 2e-5).abs() < 1e-9);
            }
        }
    }
}
