//! Streaming states as safetensors files, each bound to the network it belongs to.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, Metadata};

use crate::model_dir::write_tensors_with;
use crate::nn::{State, StepNet};
use crate::{Error, Result};

/// Describing the tensors of a state takes some hundred bytes for each convolution.
const MAX_HEADER_BYTES: u64 = 1 << 22;

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
/// use candle_tcn::nn::{Params, StepDtype, TcnConfig, TemporalConvNet};
/// use candle_tcn::state_file;
///
/// let params = Params::new(1, DType::F32, &Device::Cpu);
/// let net = TemporalConvNet::new(1, &TcnConfig::new(vec![4], 2), params.builder())?;
/// let net = net.stepper(StepDtype::F32)?;
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
    write_tensors_with(path, &tensors, (FINGERPRINT, &fingerprint))
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
    let bytes = read_checked(path, &hex(&net.fingerprint()), shape_of)?;
    let wrong = |message: String| Error::file(path, message);
    let mut tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
        .map_err(|e| wrong(format!("not a whole state file: {e}")))?;
    let mut take = |name: &str| {
        let missing = || wrong(format!("expected a tensor {name}, found none"));
        tensors.remove(name).ok_or_else(missing)
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
    for (name, tensor) in rings.iter().enumerate().map(|(i, t)| (format!("ring.{i}"), t)) {
        finite(path, &name, tensor)?;
    }
    for (name, tensor) in &tensors {
        if tensor.dtype() == DType::F32 {
            finite(path, name, tensor)?;
        }
    }
    Ok((State::from_tensors(&positions, &rings)?, tensors))
}

/// Longest tensor whose length the file may choose.
pub(crate) const MAX_LENGTH: usize = 1 << 20;

/// The file's bytes, after its header was found to be that of a state of this network: nothing larger is
/// read than such a state is.
fn read_checked(
    path: &Path,
    fingerprint: &str,
    shape_of: impl Fn(&str) -> Option<(Dtype, Vec<usize>)>,
) -> Result<Vec<u8>> {
    let failed = |error| Error::io(path, error);
    let wrong = |message: String| Error::file(path, message);
    let mut file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    (&mut file).take(8).read_to_end(&mut bytes).map_err(failed)?;
    let header = bytes.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    let Some(header) = header.filter(|&len| (2..=MAX_HEADER_BYTES).contains(&len)) else {
        return Err(wrong("expected a state saved by tcn, found another file".into()));
    };
    (&mut file).take(header).read_to_end(&mut bytes).map_err(failed)?;
    let cut = |found: u64, wanted: u64| {
        wrong(format!(
            "expected {wanted} bytes, found {found}: the file is not whole, save the state again"
        ))
    };
    if (bytes.len() as u64) < 8 + header {
        return Err(cut(bytes.len() as u64, 8 + header));
    }
    let metadata: Metadata = serde_json::from_slice(&bytes[8..])
        .map_err(|e| wrong(format!("expected a state saved by tcn: its header is damaged: {e}")))?;
    let saved = metadata.metadata().as_ref().and_then(|m| m.get(FINGERPRINT));
    let Some(saved) = saved else {
        return Err(wrong("expected a state saved by tcn, found other tensors".into()));
    };
    if saved != fingerprint {
        return Err(wrong(format!(
            "the state belongs to another model (fingerprint {:.12}, this model's is {:.12}); load it with the model that saved it",
            saved.escape_default().to_string(),
            fingerprint
        )));
    }
    for (name, info) in metadata.tensors() {
        let Some((dtype, shape)) = shape_of(&name) else {
            return Err(wrong(format!("tensor {name:?}: no such tensor in a state of this model")));
        };
        let fits = |(&found, &expected): (&usize, &usize)| match expected {
            usize::MAX => found <= MAX_LENGTH,
            expected => found == expected,
        };
        let same = info.shape.len() == shape.len() && info.shape.iter().zip(&shape).all(fits);
        if info.dtype != dtype || !same {
            return Err(wrong(format!(
                "tensor {name}: expected {dtype:?} {shape:?}, found {:?} {:?}",
                info.dtype, info.shape
            )));
        }
    }
    let wanted = bytes.len() as u64 + metadata.data_len() as u64;
    let found = file.metadata().map_err(failed)?.len();
    if found != wanted {
        return Err(cut(found, wanted));
    }
    (&mut file).take(metadata.data_len() as u64).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn finite(path: &Path, name: &str, tensor: &Tensor) -> Result<()> {
    let numbers = tensor.flatten_all()?.to_vec1::<f32>()?;
    match numbers.iter().find(|x| !x.is_finite()) {
        None => Ok(()),
        Some(x) => {
            Err(Error::file(path, format!("tensor {name}: expected finite numbers, found {x}")))
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
