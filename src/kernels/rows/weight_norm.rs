//! Weight norm.

use super::super::{Kernel, Real, pieces::each_piece};
use super::{piece_of, sum_pairs};

/// Weight norm `w = g·v/‖v‖`, one norm per output channel (Salimans & Kingma 2016,
/// arXiv:1602.07868; `torch.nn.utils.weight_norm` with `dim=0`). `g` has one number per channel.
pub fn weight_norm<T: Real>(kernel: Kernel, v: &[T], g: &[T], w: &mut [T]) {
    let n = v.len() / g.len();
    let (rows, piece) = piece_of(n);
    each_piece(
        kernel,
        w.chunks_mut(piece).zip(v.chunks(piece)).zip(g.chunks(rows)),
        #[inline(always)]
        |((w, v), g)| {
            for ((w, v), &g) in w.chunks_exact_mut(n).zip(v.chunks_exact(n)).zip(g) {
                let scale = g / dot(v, v).sqrt();
                for (w, &v) in w.iter_mut().zip(v) {
                    *w = v * scale;
                }
            }
        },
    );
}

/// The gradients of [`weight_norm`], in one pass: `dg = dw·v/‖v‖` and
/// `dv = g/‖v‖·(dw − v·(dw·v)/‖v‖²)`.
pub fn weight_norm_grad<T: Real>(
    kernel: Kernel,
    v: &[T],
    g: &[T],
    dw: &[T],
    dv: &mut [T],
    dg: &mut [T],
) {
    let n = v.len() / g.len();
    let (rows, piece) = piece_of(n);
    let given = v.chunks(piece).zip(g.chunks(rows)).zip(dw.chunks(piece));
    each_piece(
        kernel,
        dv.chunks_mut(piece).zip(dg.chunks_mut(rows)).zip(given),
        #[inline(always)]
        |((dv, dg), ((v, g), dw))| {
            let gains = dg.iter_mut().zip(g);
            let given = v.chunks_exact(n).zip(dw.chunks_exact(n));
            for ((dv, (v, dw)), (dg, &g)) in dv.chunks_exact_mut(n).zip(given).zip(gains) {
                let (square, product) = (dot(v, v), dot(dw, v));
                let length = square.sqrt();
                let (scale, along) = (g / length, product / square);
                *dg = product / length;
                for ((dv, &v), &dw) in dv.iter_mut().zip(v).zip(dw) {
                    *dv = scale * (dw - v * along);
                }
            }
        },
    );
}

#[inline(always)]
fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    sum_pairs(a, b, |a, b| a * b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_norm_has_the_length_of_its_gain() {
        let mut w = [0.0; 4];
        weight_norm(Kernel::best(), &[3.0, 4.0, 0.0, 2.0], &[10.0, 1.0], &mut w);
        assert_eq!(w, [6.0, 8.0, 0.0, 1.0]);
    }
}
