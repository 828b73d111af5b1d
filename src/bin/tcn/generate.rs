//! `tcn generate`: text, as it is made.

use std::io::Write;
use std::time::Instant;

use candle_tcn::generate::{ConstraintConfig, GenerateConfig, Generator, SamplerConfig};
use candle_tcn::text::Tokenizer;
use serde_json::json;

use crate::flags::Dtype;
use crate::{model, print_line, usage_error};

#[derive(clap::Args)]
pub struct Args {
    /// A model directory, or org/name[@revision] on the Hub (default: the built-in model)
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Text to continue
    #[arg(long, value_name = "TEXT", default_value = "")]
    prompt: String,
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
    /// Texts to write
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        default_value_t = 1
    )]
    num_samples: u64,
    /// How weights are kept
    #[arg(long, value_enum, default_value_t = Dtype::Auto)]
    dtype: Dtype,
    /// Print one JSON object a sample
    #[arg(long)]
    json: bool,
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
            [id] if tokenizer.unknown_chars(text).is_empty() => Ok((id, *bias)),
            ref ids => Err(usage_error(format!(
                "--logit-bias: expected the text of one token, found {text:?}, which is {}",
                ids.len()
            ))),
        };
        self.logit_bias.iter().map(one).collect()
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

pub fn run(args: Args) -> anyhow::Result<()> {
    let loaded = model::load(args.model.as_deref())?;
    let seed = args.seed.unwrap_or_else(|| {
        u64::from(std::process::id())
            ^ std::time::UNIX_EPOCH
                .elapsed()
                .map_or(0, |t| u64::from(t.subsec_nanos()))
    });
    let config = GenerateConfig {
        max_tokens: args.max_tokens,
        sampler: SamplerConfig {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            min_p: args.min_p,
            repetition_penalty: args.repetition_penalty,
            seed,
            typical_p: args.typical_p,
            presence_penalty: args.presence_penalty,
            frequency_penalty: args.frequency_penalty,
            penalty_window: args.penalty_window,
            logit_bias: args.logit_biases(&loaded.tokenizer)?,
        },
        stop: args.stop.clone(),
        constraints: args.constraints(),
    };
    let stepper = loaded.model.stepper(args.dtype.step())?;
    let generator = Generator::new(&stepper, &loaded.tokenizer, &args.prompt, config)?;
    if args.seed.is_none() && args.temperature > 0.0 {
        say!("seed {seed}");
    }
    for index in 0..args.num_samples {
        if args.json {
            json_sample(&generator, index)?;
        } else {
            text_sample(&generator, index, &args)?;
        }
    }
    Ok(())
}

fn text_sample(generator: &Generator, index: u64, args: &Args) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if args.num_samples > 1 {
        writeln!(out, "--- sample {} ---", index + 1)?;
    }
    write!(out, "{}", args.prompt)?;
    for text in generator.sample(index)? {
        write!(out, "{}", text?)?;
        out.flush()?;
    }
    writeln!(out)?;
    Ok(out.flush()?)
}

fn json_sample(generator: &Generator, index: u64) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut generation = generator.sample(index)?;
    let text = generation
        .by_ref()
        .collect::<candle_tcn::Result<String>>()?;
    let tokens = generation.tokens();
    print_line(json!({
        "text": text,
        "tokens": tokens,
        "tokens_per_s": tokens as f64 / start.elapsed().as_secs_f64().max(1e-9),
        "finish_reason": generation.finish_reason(),
    }))
}
