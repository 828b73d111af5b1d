//! The flags of `tcn generate`.

use std::path::{Path, PathBuf};

use candle_tcn::files::is_standard_input;
use candle_tcn::generate::{ConstraintConfig, GenerateConfig, SamplerConfig};
use candle_tcn::text::Tokenizer;

use crate::flags::{Dtype, count, expect_together, unescaped, with_code_points};
use crate::usage_error;

#[derive(clap::Args)]
pub struct GenerateArgs {
    /// A model directory, or org/name[@revision] on the Hub (default: the built-in model)
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Text to continue, shown before what follows; `-` reads it from standard input, without showing it
    #[arg(long, value_name = "TEXT", default_value = "", allow_hyphen_values = true)]
    pub prompt: String,
    /// A file to continue, of any length, of which only the end that the network sees is read; it is not shown.
    /// `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub prompt_file: Option<PathBuf>,
    /// Answer each line of --prompt-file that is not empty by itself, on a line, with what is likeliest: nothing is drawn
    #[arg(long, requires = "prompt_file", conflicts_with_all = [
        "interactive", "load_state", "save_state", "temperature", "top_k", "top_p", "min_p", "typical_p",
        "repetition_penalty", "presence_penalty", "frequency_penalty", "penalty_window", "logit_bias", "ban", "ban_chars",
        "allow", "allow_chars", "min_tokens", "stop", "seed", "num_samples", "logprobs", "ignore_eos",
    ])]
    pub each_line: bool,
    /// Text behind each line, such as the separator of --target-after
    #[arg(long, value_name = "TEXT", requires = "each_line", value_parser = unescaped, allow_hyphen_values = true, default_value = "")]
    pub prompt_end: String,
    /// Beginnings of each answer that are kept (beam search)
    #[arg(long, value_name = "N", requires = "each_line", value_parser = count, default_value = "1")]
    pub beams: usize,
    /// Power of its number of tokens by which an answer's log-probability is divided; 0 prefers short ones
    #[arg(long, value_name = "X", requires = "each_line", default_value_t = 1.0)]
    pub length_penalty: f64,
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
    /// Write at most N tokens
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub max_tokens: usize,
    /// 0 always takes the likeliest token, 1 the model's own distribution
    #[arg(long, value_name = "X", default_value_t = 0.8)]
    temperature: f64,
    /// Draw from the K likeliest tokens only
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Draw from the likeliest tokens that together have this probability
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// Draw from tokens at least this fraction as likely as the likeliest
    #[arg(long, value_name = "P")]
    min_p: Option<f64>,
    /// Draw from the tokens whose likelihood is nearest to the expected one, which together have this
    /// probability
    #[arg(long, value_name = "P")]
    typical_p: Option<f64>,
    /// Above 1: make tokens that came recently less likely
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    repetition_penalty: f64,
    /// Subtract this from the logit of every token that came recently
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    presence_penalty: f64,
    /// Subtract this from a token's logit for each time that it came recently
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    frequency_penalty: f64,
    /// Number of last tokens that are recent, for the three penalties (default: 256)
    #[arg(long, value_name = "N")]
    penalty_window: Option<usize>,
    /// Add X to the logit of the token TEXT; may be given several times
    #[arg(long, value_name = "TEXT=X", value_parser = logit_bias, allow_hyphen_values = true)]
    logit_bias: Vec<(String, f64)>,
    /// Never write this text (\n, \t, \r, \\ and \u{E9} as in a program); may be given several times
    #[arg(long, value_name = "TEXT", value_parser = unescaped, allow_hyphen_values = true)]
    ban: Vec<String>,
    /// Never write any of these characters
    #[arg(long, value_name = "CHARS", value_parser = unescaped, allow_hyphen_values = true, default_value = "")]
    ban_chars: String,
    /// Write nothing but these texts, one after the other; may be given several times
    #[arg(long, value_name = "TEXT", value_parser = unescaped, allow_hyphen_values = true)]
    allow: Vec<String>,
    /// Write nothing but these characters (and what --allow allows)
    #[arg(long, value_name = "CHARS", value_parser = unescaped, allow_hyphen_values = true, default_value = "")]
    allow_chars: String,
    /// Complete no stop text, and end no document, before this many tokens
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_tokens: usize,
    /// Stop before this text (\n, \t, \r, \\ and \u{E9} as in a program); may be given several times
    #[arg(long, value_name = "TEXT", value_parser = unescaped, allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Never end by the end of a document
    #[arg(long)]
    ignore_eos: bool,
    /// In --prompt, --stop and --logit-bias, the name of a special token, such as "<|endoftext|>", means the token
    #[arg(long)]
    special: bool,
    /// Seed of the draws (default: a new one each time, printed on standard error)
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Number of texts to write, as one batch
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub num_samples: u64,
    /// Number format of the weights
    #[arg(long, value_enum, default_value_t = Dtype::Auto)]
    pub dtype: Dtype,
    /// Print one JSON object a sample, as each is finished
    #[arg(long)]
    pub json: bool,
    /// With --json: each token with its bytes and its log-probability under the model, before any filter, and
    /// those of the N likeliest
    #[arg(long, value_name = "N", requires = "json", num_args = 0..=1, default_missing_value = "0")]
    logprobs: Option<usize>,
}

/// `TEXT=X`; the text may hold `=` itself.
fn logit_bias(text: &str) -> Result<(String, f64), String> {
    let expected = || format!("expected TEXT=X, X a number, found {text:?}");
    let (token, bias) = text.rsplit_once('=').ok_or_else(expected)?;
    Ok((token.to_string(), bias.parse().map_err(|_| expected())?))
}

impl GenerateArgs {
    /// The file that the prompt is read from, `-` for standard input; none for one that the command line holds.
    pub fn prompt_source(&self) -> Option<&Path> {
        let given = Path::new(&self.prompt);
        let from_flag = Some(given).filter(|path| is_standard_input(path));
        self.prompt_file.as_deref().or(from_flag)
    }

    /// The prompt, where it is shown; those of files are not.
    pub fn shown_prompt(&self) -> Option<&str> {
        let is_shown = self.prompt_source().is_none();
        is_shown.then_some(&self.prompt)
    }

    /// Refuses flags that would change nothing.
    pub fn check_effects(&self) -> anyhow::Result<()> {
        let is_greedy = self.temperature == 0.0;
        let drawing = "a --temperature above 0; with 0 nothing is drawn, the likeliest token comes";
        let is_penalized = self.repetition_penalty != 1.0
            || self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0;
        let penalties = "--repetition-penalty, --presence-penalty or --frequency-penalty";
        expect_together(&[
            ("--top-k", self.top_k.is_some() && is_greedy, drawing),
            ("--top-p", self.top_p.is_some() && is_greedy, drawing),
            ("--min-p", self.min_p.is_some() && is_greedy, drawing),
            ("--typical-p", self.typical_p.is_some() && is_greedy, drawing),
            ("--penalty-window", self.penalty_window.is_some() && !is_penalized, penalties),
        ])
    }

    fn logit_biases(&self, tokenizer: &Tokenizer) -> anyhow::Result<Vec<(u32, f64)>> {
        let one = |(text, bias): &(String, f64)| match self.encode(tokenizer, text)?[..] {
            [id] if tokenizer.unknown_id() != Some(id) => Ok((id, *bias)),
            ref ids => Err(usage_error(format!(
                "--logit-bias: expected the text of one token, found {}, which is {}",
                with_code_points(text),
                ids.len()
            ))),
        };
        self.logit_bias.iter().map(one).collect()
    }

    /// The tokens of a text; names of special tokens are text like any other, unless --special.
    pub fn encode(&self, tokenizer: &Tokenizer, text: &str) -> candle_tcn::Result<Vec<u32>> {
        match self.special {
            true => tokenizer.encode(text),
            false => tokenizer.encode_plain(text),
        }
    }

    /// The stop texts that mean tokens, and the others.
    fn stops(&self, tokenizer: &Tokenizer) -> (Vec<u32>, Vec<String>) {
        let id =
            |text: &String| tokenizer.special_id(text).filter(|_| self.special).ok_or(text.clone());
        let (tokens, texts): (Vec<_>, Vec<_>) = self.stop.iter().map(id).partition(Result::is_ok);
        (
            tokens.into_iter().flatten().collect(),
            texts.into_iter().filter_map(Result::err).collect(),
        )
    }

    /// `true` if the text will be drawn with a seed that was not given.
    pub fn is_unseeded(&self) -> bool {
        self.seed.is_none() && self.temperature > 0.0
    }

    /// The configuration for a model whose documents end with `end`, where they do.
    pub fn config(
        &self,
        tokenizer: &Tokenizer,
        end: Option<u32>,
    ) -> anyhow::Result<GenerateConfig> {
        let (stop_tokens, stop) = self.stops(tokenizer);
        let has_end = !self.stop.is_empty() || end.is_some() && !self.ignore_eos;
        let documents = "a model of documents (tcn train --documents)";
        expect_together(&[
            (
                "--min-tokens",
                self.min_tokens > 0 && !has_end,
                "--stop TEXT, or a model of documents",
            ),
            ("--ignore-eos", self.ignore_eos && end.is_none(), documents),
        ])?;
        let seed = self.seed.unwrap_or_else(|| {
            u64::from(std::process::id())
                ^ std::time::UNIX_EPOCH.elapsed().map_or(0, |t| u64::from(t.subsec_nanos()))
        });
        let usual_window = SamplerConfig::default().penalty_window;
        let texts = |texts: &[String], chars: &str| {
            texts.iter().cloned().chain(chars.chars().map(String::from)).collect()
        };
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
                penalty_window: self.penalty_window.unwrap_or(usual_window),
                logit_bias: self.logit_biases(tokenizer)?,
            },
            stop,
            stop_tokens,
            ignore_end: self.ignore_eos,
            constraints: ConstraintConfig {
                ban: texts(&self.ban, &self.ban_chars),
                allow: texts(&self.allow, &self.allow_chars),
                min_tokens: self.min_tokens,
            },
            logprobs: self.logprobs,
        })
    }
}
