//! Rows picked by number: embeddings, padding, and windows of time.

use num_traits::Zero;

use super::instructions::Instructions;
use super::pieces::{each_piece, whole_rows};
use super::{Kernel, Stored, parallel};

/// Numbers of a row that one task sums up.
const BLOCK: usize = 128;

/// `out[i] = table[ids[i]]`, rows of `width` numbers, rounded where `out` holds them in less.
///
/// Every id must be below the number of rows of `table`.
pub fn gather<T: Stored, O: Stored<Real = T::Real>>(
    kernel: Kernel,
    table: &[T],
    width: usize,
    ids: &[u32],
    out: &mut [O],
) {
    if width == 0 {
        return;
    }
    let piece = whole_rows(width);
    each_piece(
        kernel,
        out.chunks_mut(piece).zip(ids.chunks(piece / width)),
        #[inline(always)]
        |(out, ids)| {
            for (out, &id) in out.chunks_exact_mut(width).zip(ids) {
                let row = &table[id as usize * width..][..width];
                for (out, &x) in out.iter_mut().zip(row) {
                    *out = O::store(x.load());
                }
            }
        },
    );
}

/// The gradient of [`gather`]: each row of `table` becomes the sum of the rows of `dy` that were
/// picked from it, in their order; zero where there are none.
pub fn scatter_sum<O: Stored<Real = T::Real>, T: Stored>(
    kernel: Kernel,
    dy: &[O],
    width: usize,
    ids: &[u32],
    table: &mut [T],
) {
    if width == 0 {
        return;
    }
    let picks = Picks::new(ids, table.len() / width);
    let rows = table.chunks_mut(width).enumerate();
    let blocks = rows.flat_map(|(id, row)| {
        row.chunks_mut(BLOCK).enumerate().map(move |(block, sums)| (id, block * BLOCK, sums))
    });
    parallel::for_each(blocks, |(id, first, sums)| {
        sum_picked(kernel, dy, width, picks.of(id), first, sums);
    });
}

/// Sums the numbers from `first` on of the rows `picks` of `dy`; as many as `sums` has, at most `BLOCK`.
fn sum_picked<O: Stored<Real = T::Real>, T: Stored>(
    kernel: Kernel,
    dy: &[O],
    width: usize,
    picks: &[u32],
    first: usize,
    sums: &mut [T],
) {
    let mut total = [T::Real::zero(); BLOCK];
    kernel.vectorized(
        #[inline(always)]
        || {
            for &pick in picks {
                let row = &dy[pick as usize * width + first..][..sums.len()];
                for (total, &dy) in total.iter_mut().zip(row) {
                    *total += dy.load();
                }
            }
            for (sum, &total) in sums.iter_mut().zip(&total) {
                *sum = T::store(total);
            }
        },
    );
}

/// The places that hold each id, in order.
struct Picks {
    starts: Vec<u32>,
    places: Vec<u32>,
}

impl Picks {
    fn new(ids: &[u32], rows: usize) -> Self {
        let mut starts = vec![0u32; rows + 1];
        for &id in ids {
            starts[id as usize + 1] += 1;
        }
        for id in 0..rows {
            starts[id + 1] += starts[id];
        }
        let mut next = starts.clone();
        let mut places = vec![0u32; ids.len()];
        for (place, &id) in ids.iter().enumerate() {
            let next = &mut next[id as usize];
            places[*next as usize] = place as u32;
            *next += 1;
        }
        Self { starts, places }
    }

    fn of(&self, id: usize) -> &[u32] {
        &self.places[self.starts[id] as usize..self.starts[id + 1] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    const KERNEL: Kernel = Kernel::Portable;

    #[test]
    fn picked_rows_come_back_as_sums() {
        let table = [0f32, 1., 10., 11., 20., 21.];
        let ids = [2, 0, 2];
        let mut out = [bf16::ZERO; 6];
        gather(KERNEL, &table, 2, &ids, &mut out);
        assert_eq!(out.map(f32::from), [20., 21., 0., 1., 20., 21.]);
        let mut sums = [9f32; 6];
        scatter_sum(KERNEL, &out, 2, &ids, &mut sums);
        assert_eq!(sums, [0., 1., 0., 0., 40., 42.]);
    }

    #[test]
    fn rows_wider_than_a_block() {
        let width = 2 * BLOCK + 3;
        let table: Vec<f64> = (0..3 * width).map(|i| i as f64).collect();
        let ids = [1, 1, 2];
        let mut out = vec![0.0; 3 * width];
        gather(KERNEL, &table, width, &ids, &mut out);
        assert_eq!(out[width..], table[width..]);
        let mut sums = vec![9.0; 3 * width];
        scatter_sum(KERNEL, &out, width, &ids, &mut sums);
        for i in 0..width {
            let [a, b, c] = [sums[i], sums[width + i], sums[2 * width + i]];
            assert_eq!((a, b, c), (0.0, 2.0 * table[width + i], table[2 * width + i]));
        }
    }
}
