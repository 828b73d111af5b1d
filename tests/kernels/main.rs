//! Every kernel against PyTorch and against each other.

#[path = "../common/mod.rs"]
mod common;
mod conv1d_fixtures;
mod conv2d_fixtures;
mod convolution;
mod row_kernels;
