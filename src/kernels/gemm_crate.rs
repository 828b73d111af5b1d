//! GEMM by the `gemm` crate: `dst += lhs · rhs` on strided views, bounds checked.

use super::Real;

/// A matrix seen through strides: element `(row, col)` is `data[row·row_stride + col·col_stride]`.
#[derive(Clone, Copy)]
pub struct View<'a, T> {
    pub data: &'a [T],
    pub row_stride: usize,
    pub col_stride: usize,
}

impl<T> View<'_, T> {
    fn holds(&self, rows: usize, cols: usize) -> bool {
        holds(self.data.len(), (rows, self.row_stride), (cols, self.col_stride))
    }
}

/// `true` if `len` elements reach to the last of `rows × cols`; an overflow is beyond any slice.
fn holds(
    len: usize,
    (rows, row_stride): (usize, usize),
    (cols, col_stride): (usize, usize),
) -> bool {
    let last = |count: usize, stride: usize| (count - 1).checked_mul(stride);
    last(rows, row_stride)
        .zip(last(cols, col_stride))
        .and_then(|(row, col)| row.checked_add(col))
        .is_some_and(|index| index < len)
}

/// `dst += lhs · rhs`, where `dst` is `rows × cols` with consecutive columns and rows
/// `dst_stride` apart, `lhs` is `rows × depth` and `rhs` is `depth × cols`. One thread.
///
/// # Panics
/// If a view is shorter than its sizes say: a fault of the caller, never of a user's data.
pub fn add_product<T: Real>(
    (rows, cols, depth): (usize, usize, usize),
    dst: &mut [T],
    dst_stride: usize,
    lhs: View<'_, T>,
    rhs: View<'_, T>,
) {
    if rows == 0 || cols == 0 || depth == 0 {
        return;
    }
    assert!(dst_stride >= cols || rows == 1, "rows of the product overlap");
    assert!(holds(dst.len(), (rows, dst_stride), (cols, 1)), "product: destination too short");
    assert!(lhs.holds(rows, depth) && rhs.holds(depth, cols), "product: operand too short");
    // SAFETY: `gemm` reads `lhs` and `rhs` and reads and writes `dst` only at the indices
    // `row·row_stride + col·col_stride` below the sizes given; the three assertions above keep the
    // largest of them inside each slice, strides are not negative, `dst` is borrowed mutably (so it
    // overlaps neither operand) and its elements are distinct. `Real` is implemented for f32 and
    // f64 only, which `gemm` supports.
    unsafe {
        gemm::gemm(
            rows,
            cols,
            depth,
            dst.as_mut_ptr(),
            1,
            dst_stride as isize,
            true,
            lhs.data.as_ptr(),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            T::one(),
            T::one(),
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
