//! The flags of `tcn train`, and the configurations they make.

mod choice;
mod of_series;

use std::path::PathBuf;

use candle_tcn::files::is_standard_input;
use candle_tcn::models::directory::read_config;
use candle_tcn::models::{ModelConfig, PRESETS};
use candle_tcn::text::BatchMode;
use candle_tcn::train::schedule::ScheduleConfig;
use candle_tcn::train::{Budget, TrainConfig};
use clap::ValueEnum;

use super::base::{Base, BaseArgs};
use super::data::TextSource;
use super::masked::{MaskArgs, Task};
use super::series::flags::SeriesArgs;
use super::watch::Loudness;
use crate::flags::{WholeDtype, expect_together};
use crate::optimizer::{OptimizerFlags, OptimizerName};
use crate::series_files::made_up;
use crate::usage_error;
pub use of_series::SeriesUsual;

/// Minutes of a run that does not say how long.
const MINUTES: f64 = 2.5;

const WARMUP: f64 = 0.02;

/// Of a text that is long enough.
const BATCH_SIZE: usize = 16;
const SEQ_LEN: usize = 256;

#[derive(clap::Args)]
pub struct TrainArgs {
    #[command(flatten)]
    source: TextSource,
    /// char, byte, bpe:N, or a tokenizer.json (default: char; of CARP its own letters)
    #[arg(long, value_name = "SPEC")]
    pub tokenizer: Option<String>,
    #[command(flatten)]
    pub masks: MaskArgs,
    #[command(flatten)]
    pub base: BaseArgs,

    /// The network, by name (default: char, char-medium or char-large by the length of the run; char-tiny for the
    /// built-in text; of series by the task)
    #[arg(long, value_name = "NAME", conflicts_with = "config", long_help = preset_help())]
    preset: Option<String>,
    /// The network, as a config.json
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Replaces every dropout probability of the network (default: of the networks char by how often the run reads the
    /// text)
    #[arg(long, value_name = "P")]
    dropout: Option<f64>,

    /// Directory of the run (default: a new one in runs/)
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Continue the run in --out; --steps, --epochs and --minutes (which count from the start of the run), --lr,
    /// --clip, --valid-every and --patience may be changed; --data and --valid say where its texts are now
    #[arg(long, conflicts_with_all = [
        "force", "valid_fraction", "valid_bytes", "tokenizer", "preset", "config", "dropout", "init_from", "unknown",
        "extend_vocabulary", "freeze", "documents", "field", "target_after", "task", "mask_share", "mask_replace", "mask_random",
        "batch_size", "seq_len", "context", "history", "accumulate", "optimizer", "momentum", "weight_decay",
        "schedule", "warmup", "seed", "dtype", "target", "time", "index", "ignore", "group", "known", "calendar", "horizon",
        "season", "quantiles", "shift", "loss", "missing", "scale", "pool", "stretch", "class_weights", "test_fraction",
    ])]
    pub resume: bool,
    /// Replace the run that --out already holds
    #[arg(long)]
    pub force: bool,

    /// Train for N optimizer steps
    #[arg(long, value_name = "N", group = "budget")]
    steps: Option<usize>,
    /// Train for X passes over the text
    #[arg(long, value_name = "X", group = "budget")]
    epochs: Option<f64>,
    /// Train for X minutes, to which the learning rate schedule is fitted (default: 2.5, unless --steps or --epochs
    /// is given)
    #[arg(long, value_name = "X", group = "budget")]
    minutes: Option<f64>,

    /// Rows of a batch (default: 16, fewer for a short text)
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Tokens of a row (default: 256, fewer for a short text)
    #[arg(long, value_name = "N")]
    seq_len: Option<usize>,
    /// carry: rows are streams whose left context is carried from window to window; overlap: shuffled
    /// windows whose first --history tokens are not scored
    #[arg(long, value_enum, default_value_t = ContextMode::Carry)]
    context: ContextMode,
    /// Unscored tokens at the start of a window, with --context overlap (default: a fifth of --seq-len)
    #[arg(long, value_name = "N")]
    history: Option<usize>,
    /// Batches whose gradients are averaged for one step
    #[arg(long, value_name = "N", default_value_t = 1)]
    accumulate: usize,

    /// The optimizer (default: muon for a language model that begins anew, adamw for one with weight norm and for all
    /// others)
    #[arg(long, value_enum)]
    optimizer: Option<OptimizerName>,
    /// Learning rate (default: for muon 0.02 for a text of a megabyte, less for longer ones; 0.004 for adamw, 0.5 for sgd, 0.0005 for rmsprop)
    #[arg(long, value_name = "X")]
    lr: Option<f64>,
    /// Momentum of sgd and rmsprop (default: 0), and of muon (0.95)
    #[arg(long, value_name = "X")]
    momentum: Option<f64>,
    /// Weight decay (default: for muon 0.6 for a text of a megabyte, less for longer ones, 2 for adamw, 0 for the others)
    #[arg(long, value_name = "X")]
    weight_decay: Option<f64>,
    /// Course of the learning rate (default: linear for a language model that begins anew, else cosine); plateau
    /// divides it by ten when the validation loss is above the worst of the last three
    #[arg(long, value_enum)]
    schedule: Option<ScheduleName>,
    /// The part of the run over which a linear or cosine schedule rises (default: 0.02)
    #[arg(long, value_name = "F")]
    warmup: Option<f64>,
    /// The largest gradient norm; 0 for no limit (default: 1)
    #[arg(long, value_name = "X")]
    clip: Option<f64>,
    /// Steps between validations (default: five over the run, twenty or more with --patience or --schedule plateau)
    #[arg(long, value_name = "N")]
    valid_every: Option<usize>,
    /// Stop after N validations without a new best
    #[arg(long, value_name = "N")]
    patience: Option<usize>,
    /// Seed of initial weights, the order of the data and dropout
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Number format between the layers and of what is multiplied
    #[arg(long, value_enum, default_value_t = WholeDtype::Auto)]
    dtype: WholeDtype,
    #[command(flatten)]
    pub loudness: Loudness,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
    // last: its heading is that of all flags after it
    #[command(flatten)]
    pub series: SeriesArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum ContextMode {
    Carry,
    Overlap,
}

#[derive(Clone, Copy, ValueEnum)]
enum ScheduleName {
    Constant,
    Linear,
    Cosine,
    Plateau,
}

impl ScheduleName {
    fn config(self, warmup: f64) -> ScheduleConfig {
        let rule = Default::default();
        match self {
            Self::Constant => ScheduleConfig::Constant,
            Self::Linear => ScheduleConfig::Linear { warmup },
            Self::Cosine => ScheduleConfig::Cosine { warmup, final_fraction: 0.0 },
            Self::Plateau => ScheduleConfig::Plateau { factor: 0.1, rule, after: 5, min_lr: 0.0 },
        }
    }
}

/// Settings where no flag says.
#[derive(Clone, Copy)]
pub struct Defaults {
    optimizer: OptimizerName,
    schedule: ScheduleName,
    warmup: f64,
}

fn preset_help() -> String {
    let list = PRESETS.map(|(name, what, _)| format!("  {name}: {what}")).join("\n");
    let default =
        "char, char-medium or char-large by the length of the run; char-tiny for the built-in text";
    format!("The network, by name (default: {default})\n{list}")
}

impl TrainArgs {
    /// The source of the text; paths made absolute, for a resume from another folder.
    pub fn source(&self) -> anyhow::Result<TextSource> {
        let absolute = |path: &PathBuf| match path.to_str() {
            Some(_) if is_standard_input(path) => Ok(path.clone()),
            Some(_) if made_up(path).is_some() && !path.exists() => Ok(path.clone()),
            Some(_) => Ok(std::path::absolute(path)?),
            None => Err(usage_error(format!(
                "--data: expected a path in UTF-8, found {}",
                path.display()
            ))),
        };
        let TextSource { data, valid, .. } = &self.source;
        let data = data.iter().map(absolute).collect::<anyhow::Result<_>>()?;
        let valid = valid.as_ref().map(absolute).transpose()?;
        let token_cache = self.source.token_cache.as_ref().map(std::path::absolute).transpose()?;
        Ok(TextSource { data, valid, token_cache, ..self.source.clone() })
    }

    /// The network's name in that of the run.
    pub fn model_name(&self) -> String {
        if let Some(name) = self.base.stem() {
            return name;
        }
        match (&self.config, &self.preset) {
            (Some(file), _) => {
                file.file_stem().map_or("model".into(), |s| s.to_string_lossy().into_owned())
            }
            (None, Some(preset)) => preset.clone(),
            (None, None) if self.masks.task == Some(Task::Mlm) => "bytenet-masked".to_string(),
            (None, None) if self.source.data.is_empty() => "char-tiny".to_string(),
            (None, None) => "char".to_string(),
        }
    }

    /// The network: that of the model that the run begins with, where there is one.
    pub fn model_config(&self, base: Option<&Base>) -> anyhow::Result<ModelConfig> {
        let config = match (base, &self.config) {
            (Some(base), _) => base.files.config.clone(),
            (None, Some(file)) => read_config(file)?,
            (None, None) => ModelConfig::preset(&self.model_name())?,
        };
        let config = self.with_dropout(config)?;
        config.expect_tokens()?;
        Ok(config)
    }

    fn with_dropout(&self, config: ModelConfig) -> anyhow::Result<ModelConfig> {
        Ok(match self.dropout {
            Some(p) if !(0.0..1.0).contains(&p) => {
                bail_usage!(
                    "--dropout: expected a probability of at least 0 and below 1, found {p}"
                )
            }
            Some(dropout) => config.with_dropout(dropout),
            None => config,
        })
    }

    /// The settings of a language model: Muon for one whose layers have weights of their own and that begins anew.
    pub fn defaults(&self, model: &ModelConfig) -> anyhow::Result<Defaults> {
        // whatever the tokenizer will be
        let model = model.clone().with_end_token(None)?;
        let graph = model.clone().with_vocab_size(model.vocab_size().max(1)).graph()?;
        let anew = self.base.init_from.is_none() && model.require_causal().is_ok();
        let (optimizer, schedule) = match anew && !graph.hidden_weights().is_empty() {
            true => (OptimizerName::Muon, ScheduleName::Linear),
            false => (OptimizerName::Adamw, ScheduleName::Cosine),
        };
        Ok(Defaults { optimizer, schedule, warmup: WARMUP })
    }

    fn budget(&self) -> Option<Budget> {
        let steps = self.steps.map(Budget::Steps);
        steps.or(self.epochs.map(Budget::Epochs)).or(self.minutes.map(Budget::Minutes))
    }

    /// Changes what `--resume` may change.
    pub fn change(&self, config: &mut TrainConfig) {
        if let Some(budget) = self.budget() {
            config.budget = budget;
        }
        config.lr = self.lr.unwrap_or(config.lr);
        config.valid_every = self.valid_every.or(config.valid_every);
        config.patience = self.patience.or(config.patience);
        if let Some(clip) = self.clip {
            config.clip = (clip != 0.0).then_some(clip);
        }
    }

    /// The configuration for a text of `tokens` tokens, where that is known, whose rows and batches are shorter than usual where it is,
    /// unless the flags say; with the usual optimizer and schedule likewise.
    pub fn train_config(
        &self,
        tokens: Option<usize>,
        usual: Defaults,
    ) -> anyhow::Result<TrainConfig> {
        let optimizer = self.optimizer.unwrap_or(usual.optimizer);
        let schedule = self.schedule.unwrap_or(usual.schedule);
        let (batch_size, seq_len) = self.sizes(tokens.unwrap_or(usize::MAX));
        let is_carry = matches!(self.context, ContextMode::Carry);
        let rises = matches!(schedule, ScheduleName::Linear | ScheduleName::Cosine);
        let is_adamw = optimizer == OptimizerName::Adamw;
        expect_together(&[
            ("--history", self.history.is_some() && is_carry, "--context overlap"),
            ("--warmup", self.warmup.is_some() && !rises, "--schedule linear or cosine"),
            ("--momentum", self.momentum.is_some() && is_adamw, "--optimizer muon, sgd or rmsprop"),
        ])?;
        let batches = match self.context {
            ContextMode::Carry => BatchMode::Carry,
            ContextMode::Overlap => {
                BatchMode::Overlap { history: self.history.unwrap_or(seq_len / 5) }
            }
        };
        let flags = OptimizerFlags {
            lr: self.lr,
            momentum: self.momentum,
            weight_decay: self.weight_decay,
        };
        let batch = self.accumulate.saturating_mul(batch_size).saturating_mul(seq_len).max(1);
        let steps_a_pass = tokens.map(|tokens| tokens as f64 / batch as f64);
        let (optimizer, lr) = optimizer.config(flags, steps_a_pass);
        Ok(TrainConfig {
            batch_size,
            seq_len,
            batches,
            accumulate: self.accumulate,
            optimizer,
            lr,
            schedule: schedule.config(self.warmup.unwrap_or(usual.warmup)),
            clip: Some(self.clip.unwrap_or(1.0)).filter(|&clip| clip != 0.0),
            budget: self.budget().unwrap_or(Budget::Minutes(MINUTES)),
            valid_every: self.valid_every,
            patience: self.patience,
            seed: self.seed,
            dtype: self.dtype.precision(),
            freeze: self.base.freeze.clone(),
        })
    }

    /// Rows of a batch and tokens of a row: so few that a text of `tokens` has a batch.
    fn sizes(&self, tokens: usize) -> (usize, usize) {
        const SHORT: usize = 64;
        let mut batch_size = self.batch_size.unwrap_or(BATCH_SIZE);
        let mut seq_len = self.seq_len.unwrap_or(SEQ_LEN);
        // the target of the last token is one more
        while batch_size.saturating_mul(seq_len) >= tokens {
            if self.seq_len.is_none() && seq_len > SHORT {
                seq_len /= 2;
            } else if self.batch_size.is_none() && batch_size > 1 {
                batch_size /= 2;
            } else if self.seq_len.is_none() && seq_len > 1 {
                seq_len /= 2;
            } else {
                break;
            }
        }
        (batch_size, seq_len)
    }
}
