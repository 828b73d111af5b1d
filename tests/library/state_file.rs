//! Saved states: what was saved comes back, and nothing else is taken for it.

use crate::common::UnderTest;
use std::path::PathBuf;

use candle_core::{DType, Device};
use candle_tcn::Result;
use candle_tcn::models::state_file;
use candle_tcn::nn::{Params, StepDtype, StepNet, TcnConfig, temporal_conv_net};

fn net(seed: u64) -> Result<StepNet> {
    let params = Params::new(seed, DType::F32, &Device::Cpu);
    let config = TcnConfig::new(vec![3, 4], 3);
    temporal_conv_net(2, &config, params.builder())?.under_test().step_net(StepDtype::F32)
}

struct Saved {
    net: StepNet,
    dir: tempfile::TempDir,
    bytes: Vec<u8>,
}

impl Saved {
    fn new() -> Result<Self> {
        let (net, dir) = (net(1)?, tempfile::tempdir().expect("a temporary folder"));
        let mut state = net.init_state(2)?;
        for t in 0..7 {
            net.step(&[0.1 * t as f32, 0.5, -0.3, 0.2], &mut state)?;
        }
        let path = dir.path().join("good");
        state_file::save(&path, &net, &state)?;
        let bytes = std::fs::read(path).expect("just written");
        Ok(Self { net, dir, bytes })
    }

    fn write(&self, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join("bad.state");
        std::fs::write(&path, bytes).expect("writable");
        path
    }

    /// The message of loading these bytes.
    fn refused(&self, bytes: &[u8]) -> String {
        let path = self.write(bytes);
        let error = state_file::load(&path, &self.net, 2).expect_err("refused");
        let message = error.to_string();
        assert!(message.contains("bad.state"), "{message}");
        message
    }

    /// The file with its header rewritten.
    fn with_header(&self, change: impl Fn(String) -> String) -> Vec<u8> {
        let len = u64::from_le_bytes(*self.bytes.first_chunk().expect("8 bytes")) as usize;
        let header = String::from_utf8(self.bytes[8..8 + len].to_vec()).expect("JSON");
        let header = change(header);
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&self.bytes[8 + len..]);
        bytes
    }

    /// The file with the first number of this tensor replaced.
    fn with_number(&self, name: &str, number: &[u8]) -> Vec<u8> {
        let file = safetensors::SafeTensors::deserialize(&self.bytes).expect("whole");
        let data = file.tensor(name).expect("there").data().as_ptr() as usize;
        let at = data - self.bytes.as_ptr() as usize;
        let mut bytes = self.bytes.clone();
        bytes[at..at + number.len()].copy_from_slice(number);
        bytes
    }
}

#[test]
fn a_state_comes_back() -> Result<()> {
    let saved = Saved::new()?;
    let path = saved.write(&saved.bytes);
    let loaded = state_file::load(&path, &saved.net, 2)?;
    assert_eq!(loaded.positions(), [7, 7]);
    state_file::save(&path, &saved.net, &loaded)?;
    assert_eq!(std::fs::read(path).expect("there"), saved.bytes);
    Ok(())
}

#[test]
fn a_file_cut_anywhere_is_refused() -> Result<()> {
    let saved = Saved::new()?;
    for len in 0..saved.bytes.len() {
        saved.refused(&saved.bytes[..len]);
    }
    let message = saved.refused(&saved.bytes[..saved.bytes.len() - 4]);
    let (all, found) = (saved.bytes.len(), saved.bytes.len() - 4);
    assert!(message.contains(&format!("expected {all} bytes, found {found}")), "{message}");
    saved.refused(&[&saved.bytes[..], b"more"].concat());
    Ok(())
}

#[test]
fn a_changed_header_never_panics() -> Result<()> {
    let saved = Saved::new()?;
    let path = saved.dir.path().join("bad.state");
    for at in 0..saved.bytes.len().min(900) {
        for change in [1, 0x80, 0xff] {
            let mut bytes = saved.bytes.clone();
            bytes[at] ^= change;
            std::fs::write(&path, &bytes).expect("writable");
            // the metadata's free text may change without harm
            let _ = state_file::load(&path, &saved.net, 2);
        }
    }
    Ok(())
}

#[test]
fn another_networks_state_is_refused() -> Result<()> {
    let saved = Saved::new()?;
    let path = saved.write(&saved.bytes);
    let error = state_file::load(&path, &net(2)?, 2).expect_err("of another model");
    assert!(error.to_string().contains("another model"), "{error}");
    let error = state_file::load(&path, &saved.net, 1).expect_err("of two sequences");
    assert!(
        error.to_string().contains("positions") || error.to_string().contains("ring"),
        "{error}"
    );
    // the same network with its weights in another type goes on
    let params = Params::new(1, DType::F32, &Device::Cpu);
    let config = TcnConfig::new(vec![3, 4], 3);
    let int8 =
        temporal_conv_net(2, &config, params.builder())?.under_test().step_net(StepDtype::Int8)?;
    assert_eq!(state_file::load(&path, &int8, 2)?.positions(), [7, 7]);
    Ok(())
}

#[test]
fn hostile_files_are_refused() -> Result<()> {
    let saved = Saved::new()?;
    for header in [u64::MAX, 1 << 40, 1 << 23, 0, 1] {
        let bytes = [&header.to_le_bytes()[..], &saved.bytes[8..]].concat();
        saved.refused(&bytes);
    }
    assert!(saved.refused(b"\x50\x4b\x03\x04 some zip").contains("another file"));
    let tensors = saved.with_header(|header| header.replace("candle_tcn_state_of", "other"));
    assert!(saved.refused(&tensors).contains("other tensors"));
    for (from, to) in [("ring.0", "ring.9"), ("\"F32\"", "\"I32\""), ("[2,2,2]", "[2,4,1]")] {
        let bytes = saved.with_header(|header| header.replacen(from, to, 1));
        assert_ne!(bytes, saved.bytes, "{from}");
        saved.refused(&bytes);
    }
    let huge = saved.with_header(|header| header.replace("[2,2,2]", "[2,2,4611686018427387904]"));
    assert_ne!(huge, saved.bytes);
    saved.refused(&huge);
    let nan = saved.with_number("ring.1", &f32::NAN.to_le_bytes());
    assert!(saved.refused(&nan).contains("ring.1: expected finite numbers"));
    let negative = saved.with_number("positions", &(-1i64).to_le_bytes());
    assert!(saved.refused(&negative).contains("positions"));
    let far = saved.with_number("positions", &i64::MAX.to_le_bytes());
    assert!(saved.refused(&far).contains("positions"));
    let missing = state_file::load("no/such/file", &saved.net, 2).expect_err("missing");
    assert!(missing.to_string().contains("no/such/file"));
    let folder = state_file::load(saved.dir.path(), &saved.net, 2).expect_err("a folder");
    assert!(folder.to_string().contains(&*saved.dir.path().to_string_lossy()));
    Ok(())
}
