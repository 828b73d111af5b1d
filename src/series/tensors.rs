//! Arrays: `.npy`, and safetensors of sequences.

use std::path::Path;

use candle_core::{DType, Tensor};

use super::{Column, Series, SeriesSet};
use crate::files::weights;
use crate::{AtPath, Error, Result};

/// Most classes that whole numbers may be.
const MAX_CLASSES: u32 = 10_000;

/// Reads a `.npy` array of frames: (time), (time, channels), or (series, time, channels).
///
/// # Errors
/// [`Error::Io`] naming the file; [`Error::File`] for what is no array of these shapes, or holds infinite numbers.
///
/// # Example
///
/// ```
/// use candle_core::{Device, Tensor};
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("frames.npy");
/// Tensor::new(&[[1f32, 2.], [3., 4.], [5., 6.]], &Device::Cpu)?.write_npy(&path)?;
/// let set = candle_tcn::series::read_npy(&path)?;
/// assert_eq!((set.series.len(), set.series[0].len(), set.columns.len()), (1, 3, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_npy(path: impl AsRef<Path>) -> Result<SeriesSet> {
    let path = path.as_ref();
    let wrong = |message: String| Error::file(path, message);
    check_npy(path)?;
    let frames = Tensor::read_npy(path).map_err(|error| wrong(error.to_string()))?;
    let frames = match frames.rank() {
        1 => frames.unsqueeze(1)?,
        _ => frames,
    };
    let set = set_of(&frames, None).map_err(wrong)?;
    check_finite(path, &set)?;
    Ok(set)
}

/// Refuses an array that is longer than its file: memory is asked for by its shape.
fn check_npy(path: &Path) -> Result<()> {
    const START: usize = 4096;
    let bytes = std::fs::metadata(path).at(path)?.len();
    let mut start = vec![0; START.min(bytes as usize)];
    std::io::Read::read_exact(&mut std::fs::File::open(path).at(path)?, &mut start).at(path)?;
    let text = String::from_utf8_lossy(&start).into_owned();
    let wrong = || Error::file(path, "expected a NumPy array of frames, found another file");
    if !start.starts_with(b"\x93NUMPY") {
        return Err(wrong());
    }
    let (_, after) = text.split_once("'shape'").ok_or_else(wrong)?;
    let (_, after) = after.split_once('(').ok_or_else(wrong)?;
    let (shape, _) = after.split_once(')').ok_or_else(wrong)?;
    let mut count = 1u64;
    for size in shape.split(',').map(str::trim).filter(|size| !size.is_empty()) {
        let size: u64 = size.parse().map_err(|_| wrong())?;
        count = count.checked_mul(size).filter(|&count| count <= bytes).ok_or_else(|| {
            Error::file(path, format!("expected ({shape}) numbers, found a file of {bytes} bytes"))
        })?;
    }
    Ok(())
}

/// Reads sequences from safetensors: `inputs` (series, time, channels), or (time of all, channels) with `lengths` (series)
/// of how many steps each has; perhaps `targets`: whole numbers (series) are classes, whole numbers (series, time) a column
/// of categories, other numbers (series, time, …) columns of numbers.
///
/// # Errors
/// [`Error::Io`] and [`Error::File`] naming the file, for tensors that do not fit each other.
///
/// # Example
///
/// ```
/// use std::collections::HashMap;
/// use candle_core::{Device, Tensor};
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("rolls.safetensors");
/// let tensors = HashMap::from([
///     ("inputs".to_string(), Tensor::new(&[[0f32, 1.], [1., 1.], [1., 0.]], &Device::Cpu)?),
///     ("lengths".to_string(), Tensor::new(&[2u32, 1], &Device::Cpu)?),
/// ]);
/// candle_tcn::files::write_tensors(&path, &tensors)?;
/// let set = candle_tcn::series::read_tensors(&path)?;
/// assert_eq!(set.series[1].frames, [1., 0.]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_tensors(path: impl AsRef<Path>) -> Result<SeriesSet> {
    let path = path.as_ref();
    let tensors = weights::read(path)?.tensors;
    let wrong = |message: String| Error::file(path, message);
    let inputs = tensors.get("inputs").ok_or_else(|| {
        let names: Vec<_> = tensors.keys().map(String::as_str).collect();
        wrong(format!("expected a tensor `inputs`, found {}", names.join(", ")))
    })?;
    let mut set = set_of(inputs, tensors.get("lengths")).map_err(wrong)?;
    if let Some(targets) = tensors.get("targets") {
        add_targets(&mut set, targets).map_err(wrong)?;
    }
    check_finite(path, &set)?;
    Ok(set)
}

fn check_finite(path: &Path, set: &SeriesSet) -> Result<()> {
    for (number, series) in (1..).zip(&set.series) {
        if let Some(place) = series.frames.iter().position(|x| x.is_infinite()) {
            let (step, channel) = (place / series.channels + 1, place % series.channels);
            let name = &set.columns[channel].name;
            let message = format!(
                "series {number}, step {step}, {name}: expected a finite number, found an infinite one"
            );
            return Err(Error::file(path, message));
        }
    }
    Ok(())
}

fn numbers(tensor: &Tensor) -> candle_core::Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// Lengths of `count` sequences.
fn lengths_of(lengths: &Tensor, rows: &[usize]) -> Result<Vec<usize>, String> {
    let text = |error: candle_core::Error| error.to_string();
    let lengths = lengths.flatten_all().and_then(|t| t.to_dtype(DType::I64)).map_err(text)?;
    let lengths: Vec<i64> = lengths.to_vec1().map_err(text)?;
    let lengths: Option<Vec<usize>> =
        lengths.iter().map(|&len| usize::try_from(len).ok().filter(|&len| len > 0)).collect();
    let lengths = lengths.ok_or("lengths: expected numbers above 0, found another")?;
    let fits = match *rows {
        [count, time] => lengths.len() == count && lengths.iter().all(|&len| len <= time),
        [all] => lengths.iter().try_fold(0usize, |sum, &len| sum.checked_add(len)) == Some(all),
        _ => false,
    };
    if fits {
        Ok(lengths)
    } else {
        Err(format!("lengths: expected those of {rows:?} steps, found others"))
    }
}

/// The sequences of frames, without what fills them up.
fn set_of(inputs: &Tensor, lengths: Option<&Tensor>) -> Result<SeriesSet, String> {
    let dims = inputs.dims().to_vec();
    let Some((&channels, rows)) = dims.split_last().filter(|(_, rows)| matches!(rows.len(), 1 | 2))
    else {
        return Err(format!(
            "expected frames (time, channels) or (series, time, channels), found {dims:?}"
        ));
    };
    if inputs.elem_count() == 0 {
        return Err(format!("expected frames, found none: {dims:?}"));
    }
    let all = numbers(inputs).map_err(|error| error.to_string())?;
    let lengths = lengths.map(|lengths| lengths_of(lengths, rows)).transpose()?;
    let lengths = lengths.unwrap_or(match *rows {
        [count, time] => vec![time; count],
        _ => vec![rows[0]],
    });
    let stride = if rows.len() == 2 { Some(rows[1] * channels) } else { None };
    let (mut series, mut start) = (Vec::with_capacity(lengths.len()), 0);
    for len in lengths {
        series.push(Series::new(all[start..start + len * channels].to_vec(), channels));
        start += stride.unwrap_or(len * channels);
    }
    let columns = (1..=channels).map(|i| Column::of_numbers(format!("channel {i}"))).collect();
    Ok(SeriesSet { columns, series, ..SeriesSet::default() })
}

fn add_targets(set: &mut SeriesSet, targets: &Tensor) -> Result<(), String> {
    let whole = !targets.dtype().is_float();
    let found = || {
        format!(
            "targets: expected one for each of {} series or for each step, found {:?}",
            set.series.len(),
            targets.dims()
        )
    };
    let all = numbers(targets).map_err(|error| error.to_string())?;
    let most = all.iter().copied().fold(0f32, f32::max);
    if whole && (most >= MAX_CLASSES as f32 || all.iter().any(|&x| x < 0.0)) {
        return Err(format!(
            "targets: expected classes from 0 to {}, found others",
            MAX_CLASSES - 1
        ));
    }
    let names: Vec<String> = (0..=most as u32).map(|class| class.to_string()).collect();
    if targets.dims() == [set.series.len()] && whole {
        set.series
            .iter_mut()
            .zip(all)
            .for_each(|(series, class)| series.class = Some(class as usize));
        set.classes = names;
        return Ok(());
    }
    let steps: usize = set.series.iter().map(Series::len).sum();
    let longest = set.series.iter().map(Series::len).max().unwrap_or(0);
    let (width, time) = match *targets.dims() {
        [count, time] if count == set.series.len() && time >= longest => (1, Some(time)),
        [count, time, width] if count == set.series.len() && time >= longest => (width, Some(time)),
        [all] if all == steps => (1, None),
        [all, width] if all == steps => (width, None),
        _ => return Err(found()),
    };
    let mut start = 0;
    for series in &mut set.series {
        let len = series.len();
        let rows =
            series.frames.chunks_exact(series.channels).zip(all[start..].chunks_exact(width));
        series.frames = rows.flat_map(|(frame, target)| [frame, target].concat()).collect();
        series.channels += width;
        start += time.unwrap_or(len) * width;
    }
    let categories = if whole && width == 1 { names } else { Vec::new() };
    let name = |i| if width == 1 { "target".to_string() } else { format!("target {i}") };
    set.columns
        .extend((1..=width).map(|i| Column { name: name(i), categories: categories.clone() }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn tensor(values: &[f32], dims: &[usize]) -> Tensor {
        Tensor::from_slice(values, dims, &Device::Cpu).unwrap()
    }

    #[test]
    fn what_fills_up_is_left_out_and_targets_stand_beside() {
        let inputs = tensor(&[1., 2., 3., 4., 0., 0.], &[2, 3, 1]);
        let lengths = Tensor::new(&[3u32, 1], &Device::Cpu).unwrap();
        let mut set = set_of(&inputs, Some(&lengths)).unwrap();
        add_targets(&mut set, &tensor(&[10., 20., 30., 40., 0., 0.], &[2, 3])).unwrap();
        assert_eq!(set.series[0].frames, [1., 10., 2., 20., 3., 30.]);
        assert_eq!(set.series[1].frames, [4., 40.]);

        let mut set = set_of(&inputs, None).unwrap();
        add_targets(&mut set, &Tensor::new(&[1u32, 0], &Device::Cpu).unwrap()).unwrap();
        assert_eq!((set.series[0].class, set.classes.len()), (Some(1), 2));
    }

    #[test]
    fn shapes_that_do_not_fit_are_told() {
        let lengths = |values: &[u32]| Tensor::new(values, &Device::Cpu).unwrap();
        let inputs = tensor(&[1., 2., 3., 4.], &[4, 1]);
        for (lengths, expected) in [(lengths(&[3]), "lengths"), (lengths(&[4, 0]), "above 0")] {
            assert!(set_of(&inputs, Some(&lengths)).unwrap_err().contains(expected));
        }
        assert!(set_of(&tensor(&[], &[0, 1]), None).unwrap_err().contains("found none"));
        assert!(set_of(&tensor(&[1.], &[1, 1, 1, 1]), None).is_err());
        let mut set = set_of(&inputs, None).unwrap();
        assert!(add_targets(&mut set, &tensor(&[1., 2.], &[2])).unwrap_err().contains("targets"));
    }

    #[test]
    fn an_array_longer_than_its_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 4), }";
        let start =
            [b"\x93NUMPY\x01\x00".as_slice(), &(header.len() as u16).to_le_bytes()].concat();
        std::fs::write(&path, [start, header.as_bytes().to_vec()].concat()).unwrap();
        let error = read_npy(&path).unwrap_err().to_string();
        assert!(error.contains("found a file of"), "{error}");
        std::fs::write(&path, "1,2\n").unwrap();
        assert!(read_npy(&path).is_err());
    }
}
