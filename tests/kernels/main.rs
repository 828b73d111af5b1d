//! Every kernel against PyTorch and against each other. The kernel in use is one for the whole process, so these
//! tests stand apart from all others, and [`alone`] lets one of them run at a time.

#[path = "../common/mod.rs"]
mod common;
mod conv1d_fixtures;
mod conv2d_fixtures;
mod row_kernels;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits until no other test chooses kernels.
fn alone() -> MutexGuard<'static, ()> {
    static IN_USE: Mutex<()> = Mutex::new(());
    IN_USE.lock().unwrap_or_else(PoisonError::into_inner)
}
