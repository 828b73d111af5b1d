//! Streaming states as safetensors files, each bound to the network it belongs to.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use safetensors::tensor::{Dtype, TensorInfo};

use crate::files::safetensors::{Header, write};
use crate::files::weights::check_finite;
use crate::files::{CheckedFile, hex};
use crate::nn::{State, StepNet};
use crate::{Error, Result};

/// Steps of a sequence; more than a million years of audio.
const MAX_POSITION: i64 = 1 << 62;

/// The name of the fingerprint in the metadata.
const FINGERPRINT: &str = "candle_tcn_state_of";
const POSITIONS: &str = "positions";

/// Writes `state` of `net`: for each convolution `ring.{i}` (batch, span, channels), oldest step first, and
/// `positions` (batch), the steps that each sequence has seen.
///
/// # Errors
/// [`Error::Invalid`] for a state of another network; [`Error::Io`] naming the file. What stood there
/// before then stays.
///
/// # Example
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_tcn::nn::{Params, StepDtype, TcnConfig, temporal_conv_net};
/// use candle_tcn::models::state_file;
///
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let net = temporal_conv_net(1, &TcnConfig::new(vec![4], 2), params.builder())?;
/// let net = net.step_net(StepDtype::F32)?;
/// let mut state = net.init_state(1)?;
/// net.step(&[1.0], &mut state)?;
///
/// let dir = tempfile::tempdir().expect("a temporary folder");
/// let path = dir.path().join("state.safetensors");
/// state_file::save(&path, &net, &state)?;
/// let mut loaded = state_file::load(&path, &net, 1)?;
/// assert_eq!(loaded.positions(), [1]);
/// assert_eq!(net.step(&[2.0], &mut loaded)?, net.step(&[2.0], &mut state)?);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn save(path: impl AsRef<Path>, net: &StepNet, state: &State) -> Result<()> {
    save_with(path.as_ref(), net, state, HashMap::new())
}

/// Reads what [`save`] wrote, a state of `batch` sequences.
///
/// # Errors
/// [`Error::Io`]; [`Error::File`] naming the file where it is not whole, not a state, a state of another
/// network or of another number of sequences, or holds numbers that are not finite.
pub fn load(path: impl AsRef<Path>, net: &StepNet, batch: usize) -> Result<State> {
    Ok(load_with(path.as_ref(), net, batch, |_| None)?.0)
}

/// As [`save`], with more tensors beside the state.
pub(crate) fn save_with(
    path: &Path,
    net: &StepNet,
    state: &State,
    more: HashMap<String, Tensor>,
) -> Result<()> {
    state.check_shapes(net.rings())?;
    let mut tensors = more;
    for (i, ring) in state.tensors()?.into_iter().enumerate() {
        tensors.insert(format!("ring.{i}"), ring);
    }
    let positions: Vec<i64> = state.positions().iter().map(|&p| p as i64).collect();
    let positions = Tensor::from_vec(positions, state.batch(), &Device::Cpu)?;
    tensors.insert(POSITIONS.into(), positions);
    let fingerprint = hex(&net.fingerprint());
    write(path, &tensors, Some((FINGERPRINT, &fingerprint)))
}

/// As [`load`], with more tensors: `expected` gives the type and the shape of one by its name, where
/// `usize::MAX` stands for any length up to [`MAX_LENGTH`].
pub(crate) fn load_with(
    path: &Path,
    net: &StepNet,
    batch: usize,
    expected: impl Fn(&str) -> Option<(Dtype, Vec<usize>)>,
) -> Result<(State, HashMap<String, Tensor>)> {
    let shape_of = |name: &str| match name.strip_prefix("ring.") {
        Some(index) => {
            let ring = net.rings().get(index.parse::<usize>().ok()?)?;
            Some((Dtype::F32, vec![batch, ring.span, ring.channels]))
        }
        None if name == POSITIONS => Some((Dtype::I64, vec![batch])),
        None => expected(name),
    };
    let mut tensors = read_checked(path, &hex(&net.fingerprint()), shape_of)?;
    let wrong = |message: String| Error::file(path, message);
    let mut take = |name: &str| {
        tensors.remove(name).ok_or_else(|| wrong(format!("expected a tensor {name}, found none")))
    };
    let positions = take(POSITIONS)?.to_vec1::<i64>()?;
    if let Some(position) = positions.iter().find(|p| !(0..=MAX_POSITION).contains(*p)) {
        return Err(wrong(format!(
            "positions: expected whole numbers from 0 to {MAX_POSITION}, found {position}"
        )));
    }
    let positions: Vec<u64> = positions.iter().map(|p| p.unsigned_abs()).collect();
    let rings = (0..net.rings().len()).map(|i| take(&format!("ring.{i}")));
    let rings = rings.collect::<Result<Vec<_>>>()?;
    Ok((State::from_tensors(&positions, &rings)?, tensors))
}

/// Longest tensor whose length the file may choose.
pub(crate) const MAX_LENGTH: usize = 1 << 20;

/// The tensors of a file whose header is that of a state of this network: nothing larger is read than such a
/// state is. All floats are finite.
fn read_checked(
    path: &Path,
    fingerprint: &str,
    shape_of: impl Fn(&str) -> Option<(Dtype, Vec<usize>)>,
) -> Result<HashMap<String, Tensor>> {
    let file = CheckedFile::open(path)?;
    let header = Header::read(&file).map_err(|error| match error {
        Error::File { message, .. } => {
            file.wrong(format!("expected a state saved by tcn, found another file: {message}"))
        }
        other => other,
    })?;
    let saved = header.metadata(FINGERPRINT);
    let saved =
        saved.ok_or_else(|| file.wrong("expected a state saved by tcn, found other tensors"))?;
    file.require(saved == fingerprint, || {
        let saved = saved.escape_default().to_string();
        format!("the state belongs to another model (fingerprint {saved:.12}, this model's is {fingerprint:.12}), or version 0.1 saved it of a network with skip connections; load it with the model that saved it")
    })?;
    for (name, TensorInfo { dtype, shape, .. }) in &header.tensors {
        let Some((expected, lengths)) = shape_of(name) else {
            let message = "no such tensor in a state of this model";
            return Err(file.wrong(format!("tensor {name:?}: {message}")));
        };
        let fits = |(found, expected): (&usize, &usize)| {
            found == expected || *expected == usize::MAX && *found <= MAX_LENGTH
        };
        let same = shape.len() == lengths.len() && shape.iter().zip(&lengths).all(fits);
        file.require(*dtype == expected && same, || {
            format!("tensor {name}: expected {expected:?} {lengths:?}, found {dtype:?} {shape:?}")
        })?;
    }
    let (wanted, found) = (header.file_bytes(), file.len());
    file.require(wanted == found, || {
        format!(
            "expected {wanted} bytes, found {found}: the file is not whole, save the state again"
        )
    })?;
    let tensors = header.read_tensors(&file)?;
    check_finite(&tensors).map_err(|error| file.wrong(error.to_string()))?;
    Ok(tensors)
}
