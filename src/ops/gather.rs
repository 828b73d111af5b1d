//! Rows picked by number: embeddings, and windows of time.

use std::sync::Arc;

use candle_core::{D, DType, Result, Shape, Tensor, bail};
use half::bf16;

use super::op::{Arg, Computed, Grads, Keep, Op, apply, on_cpu};
use super::{StoredElement, filled, tensor};
use crate::Error;
use crate::kernels::{Kernel, Stored, gather};

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
    Ok(apply(Gather::embedding(table, ids, None, dtype)?, &[table])?)
}

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

/// Steps of each sequence, by number.
pub(super) fn pick_time(xs: &Tensor, steps: &[usize]) -> crate::Result<Tensor> {
    Ok(apply(Gather::steps(xs, steps)?, &[xs])?)
}

/// Rows of a table.
pub(crate) struct Gather {
    rows: Arc<[u32]>,
    /// Row without a gradient: that of padding (`padding_idx` of `torch.nn.Embedding`).
    padding: Option<u32>,
    shape: Shape,
    dtype: DType,
}

impl Gather {
    /// Rows of `table` for `ids` (batch, time).
    pub fn embedding(
        table: &Tensor,
        ids: &Tensor,
        padding: Option<u32>,
        dtype: DType,
    ) -> crate::Result<Self> {
        let ((batch, len), (vocab, width)) = (ids.dims2()?, table.dims2()?);
        if dtype != table.dtype() && (table.dtype(), dtype) != (DType::F32, DType::BF16) {
            return Err(Error::invalid(
                "embedding",
                format!("{} or, of f32, bf16", table.dtype().as_str()),
                dtype.as_str(),
            ));
        }
        let rows = valid_ids(ids, vocab)?.into();
        Ok(Self { rows, padding, shape: (batch, len, width).into(), dtype })
    }

    /// `steps` of each sequence of `xs` (batch, time, channels).
    pub fn steps(xs: &Tensor, steps: &[usize]) -> crate::Result<Self> {
        let (batch, time, channels) = xs.dims3()?;
        if u32::try_from(batch * time).is_err() {
            return Err(Error::too_large(
                "a choice of time steps",
                format!("{batch} x {time} rows; at most {} are counted", u32::MAX),
            ));
        }
        let of_sequence = |b: usize| steps.iter().map(move |&step| (b * time + step) as u32);
        let rows = (0..batch).flat_map(of_sequence).collect();
        let shape = (batch, steps.len(), channels).into();
        Ok(Self { rows, padding: None, shape, dtype: xs.dtype() })
    }

    fn pick<T: StoredElement, Y: StoredElement + Stored<Real = T::Real>>(
        &self,
        kernel: Kernel,
        table: Arg,
    ) -> Computed {
        let (width, table) = (table.channels(), table.slice::<T>()?);
        Ok(filled::<Y>(&self.shape, |ys| gather::gather(kernel, table, width, &self.rows, ys)))
    }

    fn scatter<T: StoredElement, Y: StoredElement + Stored<Real = T::Real>>(
        &self,
        kernel: Kernel,
        dy: Arg,
        shape: &Shape,
    ) -> Computed {
        let (width, dy) = (dy.channels(), dy.slice::<Y>()?);
        Ok(filled::<T>(shape, |sums| {
            gather::scatter_sum(kernel, dy, width, &self.rows, sums);
            if let Some(padding) = self.padding
                && let Some(row) = sums.chunks_exact_mut(width.max(1)).nth(padding as usize)
            {
                row.fill(<T as num_traits::Zero>::zero());
            }
        }))
    }
}

impl Op for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn keep(&self) -> Keep {
        Keep::Nothing
    }

    fn forward(&self, kernel: Kernel, inputs: &[Arg]) -> Computed {
        let table = inputs[0];
        match (table.dtype(), self.dtype) {
            (DType::F32, DType::BF16) => self.pick::<f32, bf16>(kernel, table),
            (DType::F32, _) => self.pick::<f32, f32>(kernel, table),
            (DType::F64, _) => self.pick::<f64, f64>(kernel, table),
            (DType::BF16, _) => self.pick::<bf16, bf16>(kernel, table),
            _ => bail!("gather: expected f32, f64 or bf16"),
        }
    }

    fn backward(&self, kernel: Kernel, inputs: &[Tensor], _: &Tensor, dy: &Tensor) -> Grads {
        let (table, shape) = (inputs[0].dtype(), inputs[0].shape());
        let sums = on_cpu(&[dy], |args| match (table, self.dtype) {
            (DType::F32, DType::BF16) => self.scatter::<f32, bf16>(kernel, args[0], shape),
            (DType::F32, _) => self.scatter::<f32, f32>(kernel, args[0], shape),
            (DType::F64, _) => self.scatter::<f64, f64>(kernel, args[0], shape),
            (DType::BF16, _) => self.scatter::<bf16, bf16>(kernel, args[0], shape),
            _ => bail!("gather: expected f32, f64 or bf16"),
        })?;
        Ok(vec![Some(tensor(sums))])
    }

    fn primitives(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        let table = inputs[0].flatten_to(D::Minus2)?;
        let ids = Tensor::new(&*self.rows, table.device())?;
        let mut rows = table.index_select(&ids, 0)?;
        if let Some(padding) = self.padding {
            let padded = ids.eq(padding)?.unsqueeze(1)?.broadcast_as(rows.shape())?;
            rows = padded.where_cond(&rows.detach(), &rows)?;
        }
        rows.reshape(&self.shape)?.to_dtype(self.dtype)
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
    fn the_row_of_padding_takes_no_gradient() -> crate::Result<()> {
        let table = Var::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
        let ids = Tensor::new(&[[1u32, 0, 1]], &Device::Cpu)?;
        let xs = apply(Gather::embedding(&table, &ids, Some(0), DType::F32)?, &[&table])?;
        let grads = xs.sum_all()?.backward()?;
        assert_eq!(grads.get(&table).unwrap().to_vec2::<f32>()?, [[0., 0.], [2., 2.]]);
        Ok(())
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
