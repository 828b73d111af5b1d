//! Text generation: a sampler, stop rules, and an iterator of text as it is made.

mod allow;
mod constraint;
mod filters;
mod pattern;
mod sampler;
mod sampler_config;
mod stop;

pub use constraint::{ConstraintConfig, Constraints};
pub use sampler::Sampler;
pub use sampler_config::SamplerConfig;
pub use stop::{StopOutcome, StopStrings};

use serde::Serialize;

use crate::models::Stepper;
use crate::nn::State;
use crate::text::{Decoder, Tokenizer};
use crate::{Error, Result};

/// What to generate.
#[derive(Debug, Clone, Default)]
pub struct GenerateConfig {
    /// Tokens at the most.
    pub max_tokens: usize,
    /// How a token is drawn.
    pub sampler: SamplerConfig,
    /// Strings before which the text ends; they may cross token borders.
    pub stop: Vec<String>,
    /// What the text must not contain, must consist of, and how long it must be.
    pub constraints: ConstraintConfig,
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// It has as many tokens as were asked for.
    Length,
    /// A stop string came.
    Stop,
}

/// A prompt that a model has read, from which any number of samples continue.
///
/// # Example
///
/// ```
/// use candle_tcn::LoadedModel;
/// use candle_tcn::generate::{GenerateConfig, Generator};
/// use candle_tcn::nn::StepDtype;
///
/// let loaded = LoadedModel::load("models/kjv-tiny")?;
/// let config = GenerateConfig { max_tokens: 20, ..Default::default() };
/// let stepper = loaded.model.stepper(StepDtype::F32)?;
/// let generator = Generator::new(&stepper, loaded.tokenizer()?, "And God said", config)?;
/// let text = |sample| generator.sample(sample)?.collect::<candle_tcn::Result<String>>();
/// assert_eq!(text(0)?.chars().count(), 20);
/// assert_eq!(text(0)?, text(0)?); // the seed and the sample's number decide
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug)]
pub struct Generator<'a> {
    stepper: &'a Stepper,
    tokenizer: &'a Tokenizer,
    config: GenerateConfig,
    prompt: Vec<u32>,
    /// Whether the prompt's text is shown, so that the first sampled token follows it.
    shown: bool,
    state: State,
    logits: Vec<f32>,
    constraints: Option<Constraints>,
}

impl<'a> Generator<'a> {
    /// Reads `prompt`. An empty one starts as after a line end, or where the vocabulary has none, after
    /// its first token.
    ///
    /// # Errors
    /// [`Error::Text`] naming the characters of the prompt that the model never saw; [`Error::Invalid`]
    /// for options out of range.
    pub fn new(
        stepper: &'a Stepper,
        tokenizer: &'a Tokenizer,
        prompt: &str,
        config: GenerateConfig,
    ) -> Result<Self> {
        config.sampler.validate()?;
        StopStrings::new(config.stop.clone())?;
        let unknown = tokenizer.unknown_chars(prompt);
        if !unknown.is_empty() {
            let unknown: Vec<String> = unknown.iter().map(|c| format!("{c:?}")).collect();
            return Err(Error::Text(format!(
                "prompt: the model has no token for {}; leave them out, or train with --tokenizer byte, which knows every character",
                unknown.join(", ")
            )));
        }
        let shown = !prompt.is_empty();
        let prompt = match tokenizer.encode(prompt)? {
            ids if ids.is_empty() => vec![first_token(tokenizer)?],
            ids => ids,
        };
        let mut state = stepper.init_state(1)?;
        let logits = stepper.prefill(&prompt, &mut state)?;
        let constraints = constraints(&config, tokenizer, shown)?;
        Ok(Self {
            stepper,
            tokenizer,
            config,
            prompt,
            shown,
            state,
            logits,
            constraints,
        })
    }

    /// The tokens of the prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt.len()
    }

    /// The sample of this number, an iterator of pieces of text. Samples are independent of each other.
    ///
    /// # Errors
    /// [`Error::Invalid`] where no token may be drawn.
    pub fn sample(&self, index: u64) -> Result<Generation<'_>> {
        let vocab = self.logits.len();
        // ids that the model has and the tokenizer has not would print as nothing
        let mut banned = self.tokenizer.banned_ids();
        banned.extend(self.tokenizer.vocab_size() as u32..vocab as u32);
        let sampler = Sampler::for_sample(self.config.sampler.clone(), &banned, vocab, index)?;
        Ok(Generation {
            stepper: self.stepper,
            sampler: match self.constraints.clone() {
                Some(constraints) => sampler.constrained(constraints),
                None => sampler,
            },
            decoder: Some(match self.shown {
                true => self.tokenizer.decoder().after(&self.prompt),
                false => self.tokenizer.decoder(),
            }),
            stops: StopStrings::new(self.config.stop.clone())?,
            state: self.state.clone(),
            logits: self.logits.clone(),
            history: self.prompt.clone(),
            penalty_window: self.config.sampler.penalty_window,
            tokens: 0,
            max_tokens: self.config.max_tokens,
            finished: None,
        })
    }
}

/// The constraints of a text; the tokenizer is asked for its tokens' text only where there are some.
fn constraints(
    config: &GenerateConfig,
    tokenizer: &Tokenizer,
    after_text: bool,
) -> Result<Option<Constraints>> {
    let options = &config.constraints;
    if options.ban.is_empty() && options.allow.is_empty() && options.min_tokens == 0 {
        return Ok(None);
    }
    let tokens = tokenizer.token_bytes()?;
    let tokens = match after_text {
        true => tokens.after_text(),
        false => tokens,
    };
    Constraints::new(options, &config.stop, &tokens).map(Some)
}

fn first_token(tokenizer: &Tokenizer) -> Result<u32> {
    if tokenizer.unknown_chars("\n").is_empty()
        && let Some(&id) = tokenizer.encode("\n")?.last()
    {
        return Ok(id);
    }
    let banned = tokenizer.banned_ids();
    (0..tokenizer.vocab_size() as u32)
        .find(|id| !banned.contains(id))
        .ok_or_else(|| Error::Text("the tokenizer has no token to start from".into()))
}

/// A text in the making: pieces of it, each as soon as it is certain.
#[derive(Debug)]
pub struct Generation<'a> {
    stepper: &'a Stepper,
    sampler: Sampler,
    /// Taken when the text ends.
    decoder: Option<Decoder>,
    stops: StopStrings,
    state: State,
    logits: Vec<f32>,
    history: Vec<u32>,
    penalty_window: usize,
    tokens: usize,
    max_tokens: usize,
    finished: Option<FinishReason>,
}

impl Generation<'_> {
    /// Tokens drawn so far.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Why the text ended, once it has.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finished
    }

    fn token(&mut self) -> Result<u32> {
        if self.tokens > 0 {
            let last = self.history[self.history.len() - 1];
            let logits = self.stepper.step(&[last], &mut self.state)?;
            self.logits.copy_from_slice(logits);
        }
        let id = self.sampler.sample(&self.logits, &self.history)?;
        if self.history.len() >= self.penalty_window.saturating_mul(2) {
            self.history
                .drain(..self.history.len() - self.penalty_window);
        }
        self.history.push(id);
        self.tokens += 1;
        Ok(id)
    }

    /// The next piece, which may be empty while a character or a stop string is incomplete.
    fn advance(&mut self) -> Result<String> {
        let text = if self.tokens < self.max_tokens {
            let id = self.token()?;
            match &mut self.decoder {
                Some(decoder) => decoder.push(id)?.unwrap_or_default(),
                None => String::new(),
            }
        } else {
            self.finished = Some(FinishReason::Length);
            self.decoder
                .take()
                .map(Decoder::finish)
                .transpose()?
                .unwrap_or_default()
        };
        let mut outcome = self.stops.push(&text);
        if outcome.stopped {
            self.finished = Some(FinishReason::Stop);
        } else if self.finished.is_some() {
            let held = self.stops.finish();
            outcome.text.push_str(&held.text);
            if held.stopped {
                self.finished = Some(FinishReason::Stop);
            }
        }
        Ok(outcome.text)
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.finished.is_none() {
            match self.advance() {
                Ok(text) if text.is_empty() => {}
                Ok(text) => return Some(Ok(text)),
                Err(error) => {
                    self.finished = Some(FinishReason::Length);
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
