//! Bytes on a disk: weights and other tensors, writes that survive an interruption, locks, hashes, and what was
//! packed.

mod checked_file;
mod decompress;
pub(crate) mod formats;
mod fsync;
mod hashes;
mod int8;
mod listing;
mod lock;
pub mod names;
mod not_weights;
mod replacement;
pub(crate) mod safetensors;
pub(crate) mod shards;

mod torch;
mod unique_names;
mod weight_norm;
pub mod weights;

pub use checked_file::read_small;
pub(crate) use checked_file::{CheckedFile, read_at_most, shown};
pub use decompress::{Decompressed, is_standard_input};
pub(crate) use fsync::{sync, sync_folder};
#[cfg(feature = "hub")]
pub(crate) use hashes::hash;
pub(crate) use hashes::hex;
pub use hashes::{sha256, sha256_of};
pub use int8::write_weights;
pub use lock::Lock;
#[cfg(feature = "hub")]
pub(crate) use lock::is_same;
#[cfg(feature = "hub")]
pub(crate) use replacement::TEMPORARY;
pub(crate) use replacement::sweep_temporaries;
pub use replacement::{Replacement, write_atomic};
pub use safetensors::write_tensors;
pub use weight_norm::fold_weight_norm;
