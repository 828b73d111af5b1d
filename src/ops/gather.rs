//! Rows picked by number: embeddings, and windows of time.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, D, DType, Layout, Result, Shape, Tensor, bail};
use half::bf16;

use super::tape::{self, Keep};
use super::{Arg, StoredElement, output, slice};
use crate::Error;
use crate::kernels::{Stored, gather as kernel};
use crate::profile::{self, Part};

/// The rows of `table` at `ids`: a token embedding.
///
/// # Shapes
/// `table` (vocab, width) of `f32` or `f64`, `ids` (batch, time) of `u32`; result (batch, time, width)
/// of `dtype`, which is that of the table or, for a table of `f32`, `bf16`.
///
/// # Numerics
/// The gradient of a row is summed in the type of the table, in the order of the places.
///
/// # Errors
/// [`Error::Invalid`] for an id that is not below `vocab`.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_tcn::ops::embed;
/// let table = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
/// let ids = Tensor::new(&[[1u32, 0]], &Device::Cpu)?;
/// let xs = embed(&table, &ids, DType::F32)?;
/// assert_eq!(xs.to_vec3::<f32>()?, [[[3., 4.], [1., 2.]]]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// `torch.nn.Embedding`.
pub fn embed(table: &Tensor, ids: &Tensor, dtype: DType) -> crate::Result<Tensor> {
    embed_with_padding(table, ids, None, dtype)
}

/// As [`embed`], with an id whose row of the table takes no gradient: that of padding.
///
/// # Errors
/// As [`embed`].
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Tensor, Var};
/// use candle_tcn::ops::embed_with_padding;
/// let table = Var::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
/// let ids = Tensor::new(&[[1u32, 0, 1]], &Device::Cpu)?;
/// let xs = embed_with_padding(&table, &ids, Some(0), DType::F32)?;
/// let grads = xs.sum_all()?.backward()?;
/// assert_eq!(grads.get(&table).unwrap().to_vec2::<f32>()?, [[0., 0.], [2., 2.]]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// `torch.nn.Embedding` with `padding_idx`.
pub fn embed_with_padding(
    table: &Tensor,
    ids: &Tensor,
    padding: Option<u32>,
    dtype: DType,
) -> crate::Result<Tensor> {
    let ((batch, len), (vocab, width)) = (ids.dims2()?, table.dims2()?);
    if !table.device().is_cpu() {
        let mut rows = table.index_select(&ids.flatten_all()?, 0)?;
        if let Some(padding) = padding {
            let padded = ids.flatten_all()?.eq(padding)?.unsqueeze(1)?;
            let padded = padded.broadcast_as(rows.shape())?;
            rows = padded.where_cond(&rows.detach(), &rows)?;
        }
        return Ok(rows.reshape((batch, len, width))?.to_dtype(dtype)?);
    }
    let ids = valid_ids(ids, vocab)?;
    if dtype != table.dtype() && (table.dtype(), dtype) != (DType::F32, DType::BF16) {
        return Err(Error::invalid(
            "embedding",
            format!("{} or, of f32, bf16", table.dtype().as_str()),
            dtype.as_str(),
        ));
    }
    pick(table, ids, padding, (batch, len, width).into(), dtype)
}

/// The ids of a tensor, each below `vocab`.
fn valid_ids(ids: &Tensor, vocab: usize) -> crate::Result<Vec<u32>> {
    let ids = ids.flatten_all()?.to_vec1::<u32>()?;
    match ids.iter().find(|&&id| id as usize >= vocab) {
        None => Ok(ids),
        Some(id) => Err(Error::invalid("token", format!("an id below {vocab}"), id)),
    }
}

/// Rows that are 1 at their id and 0 elsewhere.
///
/// # Shapes
/// `ids` (batch, time) of `u32`, each below `vocab`, which is at most `width`; result (batch, time, width)
/// of `dtype`.
///
/// # Errors
/// [`Error::Invalid`] for an id that is not below `vocab`, or a `width` below it.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_tcn::ops::one_hot;
/// let ids = Tensor::new(&[[1u32, 0]], &Device::Cpu)?;
/// assert_eq!(one_hot(&ids, 2, 3, DType::F32)?.to_vec3::<f32>()?, [[[0., 1., 0.], [1., 0., 0.]]]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
///
/// # References
/// `torch.nn.functional.one_hot`.
pub fn one_hot(ids: &Tensor, vocab: usize, width: usize, dtype: DType) -> crate::Result<Tensor> {
    if width < vocab {
        return Err(Error::invalid("width", format!("at least {vocab}"), width));
    }
    let (batch, len) = ids.dims2()?;
    let numbers = valid_ids(ids, vocab)?;
    let mut rows = vec![0f32; numbers.len() * width];
    for (row, id) in rows.chunks_exact_mut(width.max(1)).zip(numbers) {
        row[id as usize] = 1.0;
    }
    Ok(Tensor::from_vec(rows, (batch, len, width), ids.device())?.to_dtype(dtype)?)
}

/// The time steps `start .. start + len`.
///
/// # Shapes
/// `xs` (batch, time, channels) to (batch, len, channels).
///
/// # Errors
/// [`Error::Invalid`] where there are not so many.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_tcn::ops::narrow_time;
/// let xs = Tensor::new(&[[[1f32], [2.], [3.]]], &Device::Cpu)?;
/// assert_eq!(narrow_time(&xs, 1, 2)?.to_vec3::<f32>()?, [[[2.], [3.]]]);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn narrow_time(xs: &Tensor, start: usize, len: usize) -> crate::Result<Tensor> {
    let time = xs.dim(1)?;
    if start.checked_add(len).is_none_or(|end| end > time) {
        return Err(Error::invalid(
            "time steps",
            format!("at most {time}"),
            format!("{len} from step {start}"),
        ));
    }
    pick_time(xs, &(start..start + len).collect::<Vec<_>>())
}

/// The time steps `steps` of each sequence, all below the number there are.
pub(super) fn pick_time(xs: &Tensor, steps: &[usize]) -> crate::Result<Tensor> {
    let (batch, time, channels) = xs.dims3()?;
    if !xs.device().is_cpu() {
        let steps: Vec<u32> = steps.iter().map(|&step| step as u32).collect();
        let steps = Tensor::new(steps, xs.device())?;
        return Ok(xs.contiguous()?.index_select(&steps, 1)?);
    }
    if u32::try_from(batch * time).is_err() {
        return Err(Error::too_large(
            "a choice of time steps",
            format!("{batch} x {time} rows; at most {} are counted", u32::MAX),
        ));
    }
    let of_sequence = |b: usize| steps.iter().map(move |&step| (b * time + step) as u32);
    let rows = (0..batch).flat_map(of_sequence).collect();
    let shape = (batch, steps.len(), channels).into();
    pick(&xs.contiguous()?, rows, None, shape, xs.dtype())
}

fn pick(
    table: &Tensor,
    rows: Vec<u32>,
    padding: Option<u32>,
    shape: Shape,
    dtype: DType,
) -> crate::Result<Tensor> {
    let op = Gather {
        rows: rows.into(),
        padding,
        shape,
        to_bf16: dtype == DType::BF16 && table.dtype() == DType::F32,
    };
    Ok(tape::apply1(&table.contiguous()?, op, Keep::Nothing)?)
}

struct Gather {
    /// Which rows of the table, each below their number.
    rows: Arc<[u32]>,
    /// The row of the table that takes no gradient.
    padding: Option<u32>,
    /// Of the result; its last axis is that of the table.
    shape: Shape,
    to_bf16: bool,
}

impl Gather {
    fn run<T: StoredElement, O: StoredElement + Stored<Real = T::Real>>(
        &self,
        table: Arg,
    ) -> Result<(CpuStorage, Shape)> {
        let width = table.1.shape().dim(D::Minus1)?;
        let table = slice::<T>(table)?;
        Ok(output::<O>(&self.shape, |out| kernel::gather(table, width, &self.rows, out)))
    }
}

impl CustomOp1 for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let _span = profile::span(Part::Elementwise);
        let table = (storage, layout);
        match storage {
            CpuStorage::F32(_) if self.to_bf16 => self.run::<f32, bf16>(table),
            CpuStorage::F32(_) => self.run::<f32, f32>(table),
            CpuStorage::F64(_) => self.run::<f64, f64>(table),
            CpuStorage::BF16(_) => self.run::<bf16, bf16>(table),
            _ => bail!("gather: expected f32, f64 or bf16"),
        }
    }

    fn bwd(&self, table: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let op = Scatter {
            rows: self.rows.clone(),
            padding: self.padding,
            shape: table.shape().clone(),
            from_bf16: self.to_bf16,
        };
        Ok(Some(dy.contiguous()?.apply_op1_no_bwd(&op)?))
    }
}

/// The gradient of [`Gather`].
struct Scatter {
    rows: Arc<[u32]>,
    padding: Option<u32>,
    /// Of the table.
    shape: Shape,
    from_bf16: bool,
}

impl Scatter {
    fn run<O: StoredElement + Stored<Real = T::Real>, T: StoredElement>(
        &self,
        dy: Arg,
    ) -> Result<(CpuStorage, Shape)> {
        let width = self.shape.dim(D::Minus1)?;
        let dy = slice::<O>(dy)?;
        Ok(output::<T>(&self.shape, |sums| {
            kernel::scatter_sum(dy, width, &self.rows, sums);
            if let Some(padding) = self.padding {
                let mut rows = sums.chunks_exact_mut(width.max(1));
                if let Some(row) = rows.nth(padding as usize) {
                    row.fill(<T as num_traits::Zero>::zero());
                }
            }
        }))
    }
}

impl CustomOp1 for Scatter {
    fn name(&self) -> &'static str {
        "gather-grad"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let _span = profile::span(Part::Elementwise);
        let dy = (storage, layout);
        match storage {
            CpuStorage::F32(_) => self.run::<f32, f32>(dy),
            CpuStorage::F64(_) => self.run::<f64, f64>(dy),
            CpuStorage::BF16(_) if self.from_bf16 => self.run::<bf16, f32>(dy),
            CpuStorage::BF16(_) => self.run::<bf16, bf16>(dy),
            _ => bail!("gather-grad: expected f32, f64 or bf16"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{assert_close, gradients, random};
    use super::*;
    use candle_core::{Device, Var};

    fn ids() -> Tensor {
        Tensor::new(&[[3u32, 1, 3], [0, 3, 1]], &Device::Cpu).unwrap()
    }

    #[test]
    fn gradients_agree_with_differences() {
        gradients(&[random(1, &[5, 4])], |t| Ok(embed(&t[0], &ids(), DType::F64)?));
        for batch in [1, 3] {
            gradients(&[random(1, &[batch, 4, 2])], |t| Ok(narrow_time(&t[0], 1, 2)?));
        }
    }

    #[test]
    fn an_embedding_of_f32_may_come_as_bf16() -> crate::Result<()> {
        let table = Var::from_tensor(&random(1, &[5, 4]).to_dtype(DType::F32)?)?;
        let f32 = embed(&table, &ids(), DType::F32)?;
        let bf16 = embed(&table, &ids(), DType::BF16)?;
        assert_eq!(bf16.dtype(), DType::BF16);
        assert_close(&bf16, &f32.to_dtype(DType::BF16)?, 0.0);
        let grads = bf16.sum_all()?.backward()?;
        let grad = grads.get(&table).unwrap();
        assert_eq!(grad.to_vec2::<f32>()?[3], [3.0; 4]);
        Ok(())
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let ids = Tensor::new(&[[5u32]], &Device::Cpu).unwrap();
        let error = embed(&random(1, &[5, 2]), &ids, DType::F64).unwrap_err();
        assert_eq!(error.to_string(), "token: expected an id below 5, found 5");
        for (start, len) in [(2, 2), (4, 0), (usize::MAX, 1)] {
            assert!(narrow_time(&random(1, &[1, 3, 1]), start, len).is_err());
        }
    }
}
