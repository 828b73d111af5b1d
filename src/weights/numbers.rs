//! Numbers in a file: what kind they are, where they lie, and which of them make up a tensor.

use std::collections::HashMap;
use std::io::Read;

use candle_core::{DType, Device, Tensor, WithDType};
use half::{bf16, f16};

use super::source::Source;
use crate::{Error, Result};

/// Axes of a tensor; PyTorch has at most 64, weights at most five.
pub(super) const MAX_RANK: usize = 16;

/// Tensors of a file, or of an index.
pub(super) const MAX_TENSORS: usize = 65_536;

/// Bytes read at a time.
const BUFFER: usize = 1 << 18;

/// How a number is stored, always with its lowest byte first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    U8,
    I8,
    I16,
    U16,
    I32,
    U32,
    I64,
    BF16,
    F16,
    F32,
    F64,
    /// Complex or quantised numbers of this many bytes, which cannot be read.
    Other(u8),
}

impl Kind {
    /// Bytes of a number.
    pub(super) fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::I16 | Self::U16 | Self::BF16 | Self::F16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::F64 => 8,
            Self::Other(size) => usize::from(size),
        }
    }

    /// `true` for floating-point numbers.
    pub(super) fn is_float(self) -> bool {
        matches!(self, Self::BF16 | Self::F16 | Self::F32 | Self::F64)
    }

    /// The type of the tensor that is read: candle has no booleans and no unsigned 16 bits; signed bytes
    /// are multiplied by their scales.
    pub(super) fn dtype(self) -> Option<DType> {
        Some(match self {
            Self::Bool | Self::U8 => DType::U8,
            Self::I8 | Self::F32 => DType::F32,
            Self::I16 => DType::I16,
            Self::U16 | Self::U32 => DType::U32,
            Self::I32 => DType::I32,
            Self::I64 => DType::I64,
            Self::BF16 => DType::BF16,
            Self::F16 => DType::F16,
            Self::F64 => DType::F64,
            Self::Other(_) => return None,
        })
    }
}

/// Numbers that lie one behind the other.
#[derive(Debug)]
pub(super) struct Storage {
    pub kind: Kind,
    /// The first byte in the file.
    pub start: u64,
    pub count: usize,
    /// The checksum of the bytes, where the file has one.
    pub crc: Option<u32>,
}

/// The numbers of a storage that make up a tensor: number `(i, j, …)` is
/// `offset + i·strides[0] + j·strides[1] + …`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct View {
    pub shape: Vec<usize>,
    strides: Vec<usize>,
    offset: usize,
}

impl View {
    /// All numbers of a storage of `count`, in order.
    pub(super) fn whole(shape: Vec<usize>, count: usize) -> Result<Self, String> {
        let mut strides = vec![1usize; shape.len()];
        for axis in (1..shape.len()).rev() {
            // an overflow is found below, where the numbers are counted
            strides[axis - 1] = strides[axis].wrapping_mul(shape[axis]);
        }
        Self::new(0, shape, strides, count)
    }

    /// Numbers of a storage of `count`; an error where they do not all lie in it.
    pub(super) fn new(
        offset: usize,
        shape: Vec<usize>,
        strides: Vec<usize>,
        count: usize,
    ) -> Result<Self, String> {
        if shape.len() != strides.len() || shape.len() > MAX_RANK {
            return Err(format!(
                "expected a stride for each of at most {MAX_RANK} axes, found {} axes and {} strides",
                shape.len(),
                strides.len()
            ));
        }
        let numbers = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let last = || {
            let mut axes = shape.iter().zip(&strides);
            axes.try_fold(offset, |sum, (&length, &stride)| {
                sum.checked_add(length.checked_sub(1)?.checked_mul(stride)?)
            })
        };
        match numbers {
            Some(0) => {}
            Some(_) if last().is_some_and(|last| last < count) => {}
            _ => {
                return Err(format!(
                    "expected numbers inside of its {count}, found shape {shape:?} with strides {strides:?} from number {offset} on"
                ));
            }
        }
        Ok(Self { shape, strides, offset })
    }

    /// How many numbers it has; `new` made sure that the product does not overflow.
    pub(super) fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether its numbers lie one behind the other.
    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&length, &stride)| {
            let fits = length == 1 || stride == expected;
            expected *= length;
            fits
        })
    }

    fn gather<T: Copy>(&self, numbers: &[T]) -> Vec<T> {
        let count = self.count();
        let mut gathered = Vec::with_capacity(count);
        if count == 0 {
            return gathered;
        }
        if self.is_contiguous() {
            gathered.extend_from_slice(&numbers[self.offset..self.offset + count]);
            return gathered;
        }
        let axes: Vec<(usize, usize)> =
            self.shape.iter().copied().zip(self.strides.iter().copied()).collect();
        let Some((&(run, step), outer)) = axes.split_last() else {
            return gathered;
        };
        let mut position = vec![0usize; outer.len()];
        let mut start = self.offset;
        loop {
            gathered.extend((0..run).map(|i| numbers[start + i * step]));
            // the next row: the last axis that is not at its end goes on, those behind it start anew
            let Some(axis) =
                (0..outer.len()).rev().find(|&axis| position[axis] + 1 < outer[axis].0)
            else {
                return gathered;
            };
            for behind in axis + 1..outer.len() {
                start -= position[behind] * outer[behind].1;
                position[behind] = 0;
            }
            position[axis] += 1;
            start += outer[axis].1;
        }
    }
}

/// A named tensor.
#[derive(Debug)]
pub(super) struct Entry {
    pub name: String,
    /// Index in [`Listing::storages`].
    pub storage: usize,
    pub view: View,
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub storages: Vec<Storage>,
    pub entries: Vec<Entry>,
}

impl Listing {
    /// Hands out every tensor by its name, storage by storage; signed bytes as the unsigned bytes of the
    /// same bits. Equal views of a storage share one tensor.
    pub(super) fn read(&self, source: &Source, mut give: impl FnMut(&str, Tensor)) -> Result<()> {
        let mut users: Vec<Vec<&Entry>> = self.storages.iter().map(|_| Vec::new()).collect();
        for entry in &self.entries {
            users[entry.storage].push(entry);
        }
        let mut buffer = vec![0; BUFFER];
        for (storage, entries) in self.storages.iter().zip(users) {
            let mut views: HashMap<&View, Vec<&str>> = HashMap::new();
            for entry in entries {
                views.entry(&entry.view).or_default().push(&entry.name);
            }
            if views.is_empty() {
                continue;
            }
            let bytes = Bytes { source, storage, buffer: &mut buffer };
            let give = |names: Vec<&str>, tensor: Tensor| {
                names.into_iter().for_each(|name| give(name, tensor.clone()));
            };
            match storage.kind {
                Kind::Bool | Kind::U8 | Kind::I8 => bytes.tensors(views, |[x]| x, give),
                Kind::I16 => bytes.tensors(views, i16::from_le_bytes, give),
                Kind::U16 => bytes.tensors(views, |x| u32::from(u16::from_le_bytes(x)), give),
                Kind::I32 => bytes.tensors(views, i32::from_le_bytes, give),
                Kind::U32 => bytes.tensors(views, u32::from_le_bytes, give),
                Kind::I64 => bytes.tensors(views, i64::from_le_bytes, give),
                Kind::BF16 => bytes.tensors(views, bf16::from_le_bytes, give),
                Kind::F16 => bytes.tensors(views, f16::from_le_bytes, give),
                Kind::F32 => bytes.tensors(views, f32::from_le_bytes, give),
                Kind::F64 => bytes.tensors(views, f64::from_le_bytes, give),
                Kind::Other(_) => Err(source.wrong("complex or quantised numbers cannot be read")),
            }?;
        }
        Ok(())
    }
}

/// The bytes of a storage, about to be read.
struct Bytes<'a> {
    source: &'a Source,
    storage: &'a Storage,
    buffer: &'a mut [u8],
}

impl Bytes<'_> {
    fn tensors<T: WithDType, const N: usize>(
        self,
        views: HashMap<&View, Vec<&str>>,
        number: fn([u8; N]) -> T,
        mut give: impl FnMut(Vec<&str>, Tensor),
    ) -> Result<()> {
        let numbers = self.numbers(number)?;
        let whole = |view: &View| view.count() == numbers.len() && view.is_contiguous();
        if views.len() == 1 && views.keys().all(|view| whole(view)) {
            // the usual case: the numbers that were read are the tensor
            if let Some((view, names)) = views.into_iter().next() {
                let tensor = Tensor::from_vec(numbers, &view.shape[..], &Device::Cpu)?;
                give(names, tensor);
            }
            return Ok(());
        }
        for (view, names) in views {
            let gathered = view.gather(&numbers);
            give(names, Tensor::from_vec(gathered, &view.shape[..], &Device::Cpu)?);
        }
        Ok(())
    }

    /// All numbers; that the file has so many bytes was checked when it was listed.
    fn numbers<T: Copy, const N: usize>(self, number: fn([u8; N]) -> T) -> Result<Vec<T>> {
        let Self { source, storage, buffer } = self;
        let failed = |error| Error::io(source.path(), error);
        let mut numbers = Vec::new();
        numbers.try_reserve_exact(storage.count).map_err(|_| {
            Error::too_large(
                "a tensor",
                format!("there is no memory for {} numbers", storage.count),
            )
        })?;
        let mut reader = source.reader(storage.start)?;
        let mut checksum = crc32fast::Hasher::new();
        let mut left = storage.count;
        while left > 0 {
            let now = left.min(buffer.len() / N);
            let bytes = &mut buffer[..now * N];
            reader.read_exact(bytes).map_err(failed)?;
            if storage.crc.is_some() {
                checksum.update(bytes);
            }
            numbers.extend(bytes.as_chunks::<N>().0.iter().map(|&bytes| number(bytes)));
            left -= now;
        }
        match storage.crc {
            Some(expected) if checksum.finalize() != expected => Err(source.wrong(format!(
                "the {} bytes from byte {} on are damaged: their checksum is another than the archive's",
                storage.count * N,
                storage.start
            ))),
            _ => Ok(numbers),
        }
    }
}
