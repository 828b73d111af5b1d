//! The flags of `tcn generate`.

use std::path::PathBuf;

use candle_tcn::generate::{ConstraintConfig, GenerateConfig, SamplerConfig};
use candle_tcn::text::Tokenizer;

use crate::flags::Dtype;
use crate::usage_error;

#[derive(clap::Args)]
pub struct Args {
    /// A model directory, or org/name[@revision] on the Hub (default: the built-in model)
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Text to continue, shown before what follows; `-` reads it from standard input, without showing it
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub prompt: String,
    /// A file to continue, of any length; it is not shown. `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub prompt_file: Option<PathBuf>,
    /// Read a line, write what follows, read the next line, and so on; an empty line just goes on. Ctrl-C
    /// ends what is being written, or at the prompt the program
    #[arg(long, conflicts_with_all = ["num_samples", "json"])]
    pub interactive: bool,
    /// Go on from this state, which --save-state wrote with the same model; the prompt comes after it
    #[arg(long, value_name = "FILE")]
    pub load_state: Option<PathBuf>,
    /// Afterwards save what was read and shown, to go on from; a file that exists must be that of --load-state
    #[arg(long, value_name = "FILE")]
    pub save_state: Option<PathBuf>,
    /// Replace the file of --save-state if it exists
    #[arg(long, requires = "save_state")]
    pub force: bool,
    /// Tokens at the most
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        default_value_t = 500
    )]
    max_tokens: usize,
    /// 0 always takes the likeliest token, 1 the model's own distribution
    #[arg(
        long,
        value_name = "X",
        allow_negative_numbers = true,
        default_value_t = 0.8
    )]
    temperature: f64,
    /// Draw from the K likeliest tokens only
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    top_k: Option<usize>,
    /// Draw from the likeliest tokens that together have this probability
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Draw from tokens at least this fraction as likely as the likeliest
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f64>,
    /// Draw from the tokens whose likelihood is nearest to the expected one, which together have this
    /// probability
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    typical_p: Option<f64>,
    /// Above 1: make tokens that came recently less likely
    #[arg(
        long,
        value_name = "X",
        allow_negative_numbers = true,
        default_value_t = 1.0
    )]
    repetition_penalty: f64,
    /// Subtract this from the logit of every token that came recently
    #[arg(
        long,
        value_name = "X",
        allow_negative_numbers = true,
        default_value_t = 0.0
    )]
    presence_penalty: f64,
    /// Subtract this from a token's logit for each time that it came recently
    #[arg(
        long,
        value_name = "X",
        allow_negative_numbers = true,
        default_value_t = 0.0
    )]
    frequency_penalty: f64,
    /// How many of the last tokens are recent, for the three penalties
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        default_value_t = 256
    )]
    penalty_window: usize,
    /// Add X to the logit of the token TEXT; may be given several times
    #[arg(long, value_name = "TEXT=X", value_parser = logit_bias)]
    logit_bias: Vec<(String, f64)>,
    /// Never write this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    ban: Vec<String>,
    /// Never write any of these characters
    #[arg(long, value_name = "CHARS", default_value = "")]
    ban_chars: String,
    /// Write nothing but these texts, one after the other; may be given several times
    #[arg(long, value_name = "TEXT")]
    allow: Vec<String>,
    /// Write nothing but these characters (and what --allow allows)
    #[arg(long, value_name = "CHARS", default_value = "")]
    allow_chars: String,
    /// Complete no stop text before this many tokens
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        default_value_t = 0
    )]
    min_tokens: usize,
    /// Stop before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Decides what is drawn (default: another each time, named on standard error)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<u64>,
    /// Texts to write, side by side
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        default_value_t = 1
    )]
    pub num_samples: u64,
    /// How weights are kept
    #[arg(long, value_enum, default_value_t = Dtype::Auto)]
    pub dtype: Dtype,
    /// Print one JSON object a sample, as each is finished
    #[arg(long)]
    pub json: bool,
    /// With --json: each token with its log-probability under the model, before any filter
    #[arg(long, requires = "json")]
    pub logprobs: bool,
}

/// `TEXT=X`; the text may hold `=` itself.
fn logit_bias(text: &str) -> Result<(String, f64), String> {
    let expected = || format!("expected TEXT=X, X a number, found {text:?}");
    let (token, bias) = text.rsplit_once('=').ok_or_else(expected)?;
    Ok((token.to_string(), bias.parse().map_err(|_| expected())?))
}

impl Args {
    fn logit_biases(&self, tokenizer: &Tokenizer) -> anyhow::Result<Vec<(u32, f64)>> {
        let one = |(text, bias): &(String, f64)| match tokenizer.encode(text)?[..] {
            [id] if tokenizer.unknown_id() != Some(id) => Ok((id, *bias)),
            ref ids => Err(usage_error(format!(
                "--logit-bias: expected the text of one token, found {text:?}, which is {}",
                ids.len()
            ))),
        };
        self.logit_bias.iter().map(one).collect()
    }

    /// Whether the text will be drawn by chance, with a seed that nobody named.
    pub fn is_unseeded(&self) -> bool {
        self.seed.is_none() && self.temperature > 0.0
    }

    pub fn config(&self, tokenizer: &Tokenizer) -> anyhow::Result<GenerateConfig> {
        let seed = self.seed.unwrap_or_else(|| {
            u64::from(std::process::id())
                ^ std::time::UNIX_EPOCH
                    .elapsed()
                    .map_or(0, |t| u64::from(t.subsec_nanos()))
        });
        Ok(GenerateConfig {
            max_tokens: self.max_tokens,
            sampler: SamplerConfig {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                repetition_penalty: self.repetition_penalty,
                seed,
                typical_p: self.typical_p,
                presence_penalty: self.presence_penalty,
                frequency_penalty: self.frequency_penalty,
                penalty_window: self.penalty_window,
                logit_bias: self.logit_biases(tokenizer)?,
            },
            stop: self.stop.clone(),
            constraints: self.constraints(),
            logprobs: self.logprobs,
        })
    }

    fn constraints(&self) -> ConstraintConfig {
        let chars = |chars: &str| chars.chars().map(String::from).collect::<Vec<_>>();
        ConstraintConfig {
            ban: [self.ban.clone(), chars(&self.ban_chars)].concat(),
            allow: [self.allow.clone(), chars(&self.allow_chars)].concat(),
            min_tokens: self.min_tokens,
        }
    }
}
