//! Tensors of a file before their numbers are read: their types, and the places and order of their numbers.

use std::borrow::Cow;
use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;

use super::checked_file::CheckedFile;
use crate::Result;

/// Axes of a tensor; PyTorch has at most 64, weights at most five.
pub(super) const MAX_RANK: usize = 16;

/// Tensors of a file, or of an index.
pub(super) const MAX_TENSORS: usize = 65_536;

/// The type of the tensor that numbers of a file become, if they can be read: candle has no booleans and no
/// unsigned 16 bits; signed bytes are multiplied by their scales.
pub(super) fn read_as(stored: Dtype) -> Option<DType> {
    Some(match stored {
        Dtype::BOOL | Dtype::U8 => DType::U8,
        Dtype::I8 | Dtype::F32 => DType::F32,
        Dtype::I16 => DType::I16,
        Dtype::U16 | Dtype::U32 => DType::U32,
        Dtype::I32 => DType::I32,
        Dtype::I64 => DType::I64,
        Dtype::BF16 => DType::BF16,
        Dtype::F16 => DType::F16,
        Dtype::F64 => DType::F64,
        _ => return None,
    })
}

/// Numbers of one readable type that lie one behind the other, the lowest byte first.
#[derive(Debug)]
pub(super) struct Storage {
    pub dtype: Dtype,
    /// The first byte in the file.
    pub start: u64,
    /// Number of numbers.
    pub count: usize,
    /// The checksum of the bytes, where the file has one.
    pub crc: Option<u32>,
}

impl Storage {
    /// Its size. Saturates: no file is so long.
    pub(super) fn bytes(&self) -> u64 {
        bytes_of(self.dtype, self.count)
    }

    fn read(&self, file: &CheckedFile) -> Result<Vec<u8>> {
        let bytes = file.bytes("a tensor", self.start, self.bytes())?;
        file.require(self.crc.is_none_or(|crc| crc == crc32fast::hash(&bytes)), || {
            let (len, start) = (bytes.len(), self.start);
            format!("the {len} bytes from byte {start} on are damaged: their checksum is another than the archive's")
        })?;
        Ok(bytes)
    }
}

/// Bytes of `count` numbers, at most `u64::MAX`.
pub(super) fn bytes_of(dtype: Dtype, count: usize) -> u64 {
    (count as u64).saturating_mul(dtype.bitsize() as u64 / 8)
}

/// The numbers of a storage that make up a tensor: number `(i, j, …)` is
/// `offset + i·strides[0] + j·strides[1] + …`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct StridedView {
    pub shape: Vec<usize>,
    strides: Vec<usize>,
    offset: usize,
}

impl StridedView {
    /// All numbers of a storage of `count`, in order.
    pub(super) fn whole(shape: Vec<usize>, count: usize) -> Result<Self, String> {
        // an overflow is found by `new`, where the numbers are counted
        let strides = row_major(&shape);
        Self::new(0, shape, strides, count)
    }

    /// Numbers of a storage of `count`; an error where they do not all lie in it.
    pub(super) fn new(
        offset: usize,
        shape: Vec<usize>,
        strides: Vec<usize>,
        count: usize,
    ) -> Result<Self, String> {
        let (axes, steps) = (shape.len(), strides.len());
        if axes != steps || axes > MAX_RANK {
            return Err(format!(
                "expected a stride for each of at most {MAX_RANK} axes, found {axes} axes and {steps} strides"
            ));
        }
        let numbers = shape.iter().try_fold(1usize, |n, &length| n.checked_mul(length));
        let last = shape.iter().zip(&strides).try_fold(offset, |sum, (&length, &stride)| {
            sum.checked_add(length.checked_sub(1)?.checked_mul(stride)?)
        });
        let is_inside = || numbers.is_some() && last.is_some_and(|last| last < count);
        if numbers != Some(0) && !is_inside() {
            return Err(format!(
                "expected numbers inside of its {count}, found shape {shape:?} with strides {strides:?} from number {offset} on"
            ));
        }
        Ok(Self { shape, strides, offset })
    }

    /// Number of its numbers; `new` made sure that the product does not overflow.
    pub(super) fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The tensor of its numbers among `all` of the storage; signed bytes as the unsigned bytes of the same bits.
    fn tensor(&self, all: &[u8], dtype: Dtype) -> Result<Tensor> {
        let read_as = match dtype {
            Dtype::I8 => DType::U8,
            other => read_as(other).unwrap_or(DType::U8),
        };
        let size = dtype.bitsize() / 8;
        let axes: Vec<_> = self.shape.iter().copied().zip(self.strides.iter().copied()).collect();
        let mut dense = axes.iter().zip(row_major(&self.shape));
        let is_dense = dense.all(|(&(length, stride), dense)| length == 1 || stride == dense);
        let mut numbers = Cow::Borrowed(match self.count() {
            count if count > 0 && is_dense => &all[self.offset * size..][..count * size],
            _ => &[],
        });
        if !is_dense && self.count() > 0 {
            let mut gathered = Vec::with_capacity(self.count() * size);
            let mut take = |i| gathered.extend_from_slice(&all[i * size..][..size]);
            gather(&axes, self.offset, &mut take);
            numbers = gathered.into();
        }
        if dtype == Dtype::U16 {
            let pairs = numbers.as_chunks::<2>().0.iter();
            numbers = pairs.flat_map(|&[low, high]| [low, high, 0, 0]).collect::<Vec<_>>().into();
        }
        Ok(Tensor::from_raw_buffer(&numbers, read_as, &self.shape, &Device::Cpu)?)
    }
}

/// Strides of a tensor whose numbers lie one behind the other.
fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].wrapping_mul(shape[axis]);
    }
    strides
}

/// Calls `take` with the place of each number of a tensor of these lengths and strides, the last axis fastest.
fn gather(axes: &[(usize, usize)], start: usize, take: &mut impl FnMut(usize)) {
    match axes.split_first() {
        None => take(start),
        Some((&(length, stride), inner)) => {
            (0..length).for_each(|i| gather(inner, start + i * stride, take));
        }
    }
}

/// A tensor before it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its dotted name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The type it is read as: booleans as bytes, `U16` as `U32`, bytes with scales as `F32`.
    pub dtype: DType,
    /// `true` if it is stored as bytes and scales.
    pub int8: bool,
}

/// A named tensor of a file.
#[derive(Debug, Clone)]
pub(super) struct ListedTensor {
    pub name: String,
    /// Index in [`Listing::storages`].
    pub storage: usize,
    pub view: StridedView,
}

/// The tensors of a file.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub storages: Vec<Storage>,
    pub tensors: Vec<ListedTensor>,
}

impl Listing {
    pub(super) fn dtype(&self, tensor: &ListedTensor) -> Dtype {
        self.storages[tensor.storage].dtype
    }

    /// Reads every tensor, storage by storage. Equal views of a storage share one tensor.
    pub(super) fn read(&self, file: &CheckedFile) -> Result<HashMap<String, Tensor>> {
        let mut users: Vec<HashMap<&StridedView, Vec<&str>>> =
            vec![HashMap::new(); self.storages.len()];
        for ListedTensor { name, storage, view } in &self.tensors {
            users[*storage].entry(view).or_default().push(name);
        }
        let mut tensors = HashMap::with_capacity(self.tensors.len());
        for (storage, views) in self.storages.iter().zip(users) {
            if views.is_empty() {
                continue;
            }
            let numbers = storage.read(file)?;
            for (view, names) in views {
                let tensor = view.tensor(&numbers, storage.dtype)?;
                tensors.extend(names.into_iter().map(|name| (name.to_string(), tensor.clone())));
            }
        }
        Ok(tensors)
    }
}
