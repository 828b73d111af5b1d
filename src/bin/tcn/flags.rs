//! What flags of several commands mean.

use std::num::IntErrorKind;
use std::path::PathBuf;

use candle_tcn::model_dir::{self, read_config};
use candle_tcn::models::ModelConfig;
use candle_tcn::nn::StepDtype;
use candle_tcn::train::Precision;
use clap::ValueEnum;

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
    /// bf16 where the processor multiplies it in tiles (AMX), f32 elsewhere
    Auto,
    /// 32 bits
    F32,
    /// 16 bits; weights and sums have 32
    Bf16,
}

impl Dtype {
    /// What is computed with; the one place that decides.
    pub fn precision(self) -> Precision {
        match self {
            Self::Auto => Precision::auto(),
            Self::F32 => Precision::F32,
            Self::Bf16 => Precision::Bf16,
        }
    }
}

/// `--dtype` of generation: how the weights are kept that every token reads.
#[derive(Clone, Copy, ValueEnum)]
pub enum StepDtypeFlag {
    /// bf16 where the processor multiplies it in tiles (AMX), f32 elsewhere
    Auto,
    /// 32 bits
    F32,
    /// 16 bits; sums have 32
    Bf16,
    /// 8 bits, with a scale for each output channel
    Int8,
}

impl StepDtypeFlag {
    /// What is computed with where whole sequences are.
    pub fn precision(self) -> Result<Precision, String> {
        match self.step() {
            StepDtype::F32 => Ok(Precision::F32),
            StepDtype::Bf16 => Ok(Precision::Bf16),
            StepDtype::Int8 => Err("--dtype: expected auto, f32 or bf16, found int8".into()),
        }
    }

    /// What is computed with.
    pub fn step(self) -> StepDtype {
        match (self, Precision::auto()) {
            (Self::Auto, Precision::F32) | (Self::F32, _) => StepDtype::F32,
            (Self::Auto, Precision::Bf16) | (Self::Bf16, _) => StepDtype::Bf16,
            (Self::Int8, _) => StepDtype::Int8,
        }
    }
}
