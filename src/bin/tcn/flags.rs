//! What flags of several commands mean.

use std::num::IntErrorKind;
use std::path::PathBuf;

use candle_core::DType;
use candle_tcn::model_dir::{self, read_config};
use candle_tcn::models::ModelConfig;
use clap::ValueEnum;

use crate::usage_error;

/// A number of at least 1. What is too large is found where it is used.
pub fn count(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(value) if value > 0 => Ok(value),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => {
            Err(format!("expected a whole number of at most {}", usize::MAX))
        }
        _ => Err("expected a whole number of at least 1".into()),
    }
}

/// The configuration of `--model`, else of `--config`, else the preset.
pub fn network(
    preset: &str,
    config: &Option<PathBuf>,
    model: &Option<PathBuf>,
) -> candle_tcn::Result<ModelConfig> {
    match (config, model) {
        (_, Some(dir)) => read_config(dir.join(model_dir::CONFIG)),
        (Some(file), None) => read_config(file),
        (None, None) => ModelConfig::preset(preset),
    }
}

/// `--dtype`: how numbers are kept between the layers and multiplied.
#[derive(Clone, Copy, ValueEnum)]
pub enum Dtype {
    /// What is fastest on this processor
    Auto,
    /// 32 bits
    F32,
    /// 16 bits; weights and sums have 32
    Bf16,
}

impl Dtype {
    /// What is computed with; the one place that decides.
    pub fn resolve(self) -> anyhow::Result<DType> {
        match self {
            Self::Auto | Self::F32 => Ok(DType::F32),
            Self::Bf16 => Err(usage_error(
                "--dtype: expected auto or f32, found bf16, which networks do not compute with yet",
            )),
        }
    }
}
