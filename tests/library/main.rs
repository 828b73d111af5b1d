//! The library against PyTorch's figures, against itself, and with files that nobody should trust.

mod before;
mod blocks;
mod bytenet;
mod carp;
mod checkpoints;
#[path = "../common/mod.rs"]
mod common;
mod conv2d_blocks;
mod conv_transpose1d;
mod determinism;
mod documents;
mod effective;
mod examples;
mod gpn;
mod gradients;
mod house;
mod locuslab;
mod masked;
mod optim;
mod own_task;
mod prompts;
mod pytorch_tcn;
mod sampling;
mod series;
mod state_file;
mod steps;
mod streaming;
mod ten_losses;
mod text;
mod wavenet;
mod weights;
