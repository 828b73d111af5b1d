//! Weights of other programs: what PyTorch wrote is what is read, and nothing hostile gets through.

mod bytes;
mod hostile_files;
mod hostile_pickles;
mod model_dir;
mod torch_files;

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use candle_tcn::files::weights::{self, Weights};

/// The most that a hostile file may make the program hold.
const MAX_BYTES: u64 = 100 << 20;

fn fixture(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    folder.join("weights").join(name)
}

fn assert_same(name: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.dtype(), expected.dtype(), "{name}");
    assert_eq!(found.dims(), expected.dims(), "{name}");
    let numbers = |tensor: &Tensor| {
        let tensor = tensor.flatten_all().and_then(|t| t.to_dtype(candle_core::DType::F64));
        tensor.and_then(|t| t.to_vec1::<f64>()).expect("numbers")
    };
    assert_eq!(numbers(found), numbers(expected), "{name}");
}

/// A folder with one file in it.
struct File {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl File {
    fn new(name: &str, content: &[u8]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("writable");
        Self { _folder: folder, path }
    }

    fn read(&self) -> candle_tcn::Result<Weights> {
        weights::read(&self.path)
    }

    /// The message of reading it, which names the file and the fault, and takes little memory.
    fn refused(&self, fault: &str) -> String {
        let mut message = String::new();
        let used = allocation_counter::measure(|| {
            message = self.read().expect_err(fault).to_string();
        });
        let name = self.path.file_name().expect("a file").to_string_lossy();
        assert!(message.contains(&format!("{name}: ")), "{message}");
        assert!(message.contains(fault), "{message:.500}, expected {fault}");
        assert!(message.len() < 1000, "{} bytes: {message:.200}", message.len());
        assert!(used.bytes_max < MAX_BYTES, "{fault}: {} bytes", used.bytes_max);
        message
    }
}
