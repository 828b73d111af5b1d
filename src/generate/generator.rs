//! A model that has read a text, and the texts that continue it.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use safetensors::tensor::Dtype;

use super::generation::{Context, Generation, MIN_HISTORY, TextStart};
use super::{Constraints, GenerateConfig, Sampler, StopStrings, TextWriter};
use crate::models::{Stepper, state_file};
use crate::text::Tokenizer;
use crate::{Error, Result};

/// The longest history that is saved.
const MAX_HISTORY: usize = state_file::MAX_LENGTH;

/// A model that has read a text, from which any number of samples continue.
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
/// let mut generator = Generator::new(&stepper, loaded.tokenizer()?, config)?;
/// generator.read("And God said")?;
/// let text = generator.text(0)?;
/// assert_eq!(text.chars().count(), 20);
/// // several at once, as one batch: the seed and a sample's number decide
/// let mut texts = vec![String::new(); 3];
/// for piece in generator.samples(0..3)? {
///     let piece = piece?;
///     texts[piece.sample as usize] += &piece.text;
/// }
/// assert!(texts[0] == text && texts[1] != text);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
#[derive(Debug)]
pub struct Generator<'a> {
    stepper: &'a Stepper,
    tokenizer: &'a Tokenizer,
    config: Arc<GenerateConfig>,
    context: Context,
}

impl<'a> Generator<'a> {
    /// A generator that has read nothing yet.
    ///
    /// # Errors
    /// [`Error::Invalid`] for options out of range; [`Error::TooLarge`] where there is no memory for the
    /// state.
    pub fn new(
        stepper: &'a Stepper,
        tokenizer: &'a Tokenizer,
        config: GenerateConfig,
    ) -> Result<Self> {
        config.sampler.validate()?;
        StopStrings::new(config.stop.clone())?;
        Ok(Self {
            stepper,
            tokenizer,
            config: Arc::new(config),
            context: Context {
                state: stepper.init_state(1)?,
                logits: Vec::new(),
                history: Vec::new(),
                drawn: 0,
                after_text: false,
            },
        })
    }

    /// Reads `text` after what was read before; an empty one changes nothing. What the tokenizer has no token for
    /// is read as its unknown token.
    ///
    /// # Errors
    /// [`Error::Text`] where the tokenizer cannot encode the text.
    pub fn read(&mut self, text: &str) -> Result<()> {
        self.read_tokens(&self.tokenizer.encode(text)?)
    }

    /// Tokens at the end of a prompt that decide what follows: as many as the network sees, and as many as the
    /// penalties count. What stands before them is not read.
    pub fn prompt_len(&self) -> usize {
        self.field().max(self.history_len())
    }

    /// Tokens that the logits and the state after them depend on. Each convolution remembers `span` rows, so that a
    /// row of the last one reaches no further than all of them together.
    pub fn field(&self) -> usize {
        let spans = self.context.state.shapes().iter().map(|shape| shape.span);
        spans.fold(1, usize::saturating_add)
    }

    fn history_len(&self) -> usize {
        self.config.sampler.penalty_window.max(MIN_HISTORY)
    }

    /// Reads tokens after what was read before. Of more than the network sees, the last are read: logits and state
    /// depend on no others. A state's position counts those that were read.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an id that is not in the vocabulary.
    pub fn read_tokens(&mut self, ids: &[u32]) -> Result<()> {
        self.stepper.check_ids(ids)?;
        self.read_some(ids, usize::MAX)?;
        Ok(())
    }

    /// Reads tokens as [`read_tokens`](Self::read_tokens), at most `piece` of them now, and gives those that are left:
    /// what else there is to do can be done between pieces. The same pieces give the same numbers.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an id that is not in the vocabulary.
    pub fn read_some<'i>(&mut self, ids: &'i [u32], piece: usize) -> Result<&'i [u32]> {
        let (before, seen) = ids.split_at(ids.len().saturating_sub(self.field()));
        let (now, left) = seen.split_at(piece.min(seen.len()));
        self.stepper.check_ids(now)?;
        let kept = self.history_len();
        let context = &mut self.context;
        // a document begins behind the end of another
        if let (true, Some(end), Some(first)) =
            (context.logits.is_empty() && before.is_empty(), self.stepper.end_token(), now.first())
            && *first != end
        {
            self.stepper.step(&[end], &mut context.state)?;
        }
        context.logits = match now {
            [] => return Ok(left),
            // as an uninterrupted generation would, to the last bit
            [_] => self.stepper.step(now, &mut context.state)?.to_vec(),
            _ => self.stepper.prefill(now, &mut context.state)?,
        };
        context.after_text = true;
        let history = &mut context.history;
        history.extend_from_slice(&before[before.len().saturating_sub(kept)..]);
        history.extend_from_slice(&now[now.len().saturating_sub(kept)..]);
        history.drain(..history.len().saturating_sub(kept));
        Ok(left)
    }

    /// The whole text of one sample.
    ///
    /// # Errors
    /// As [`Generator::samples`].
    pub fn text(&mut self, index: u64) -> Result<String> {
        let pieces = self.samples(index..index.saturating_add(1))?;
        pieces.map(|piece| Ok(piece?.text)).collect()
    }

    /// The samples of these numbers, as one batch: pieces of text as they are made. The seed and a sample's
    /// number decide what it says, not how many there are (on AMX, batches of bf16 add in another order).
    ///
    /// If nothing was read, texts start as a document of its own where the model knows of them, else as after a line end,
    /// or if the vocabulary has none, after its first token.
    ///
    /// # Errors
    /// [`Error::Invalid`] where no token may be drawn; [`Error::TooLarge`] where there is no memory for the
    /// states.
    pub fn samples(&mut self, samples: Range<u64>) -> Result<Generation<'a>> {
        Generation::new(self.stepper, self.texts()?, samples)
    }

    /// As [`samples`](Self::samples), for a batch of the caller's own: each goes on from the state of the
    /// [`context`](Self::context) and draws its first token from its logits.
    ///
    /// # Errors
    /// As [`samples`](Self::samples).
    pub fn writers(&mut self, samples: Range<u64>) -> Result<Vec<TextWriter>> {
        let texts = self.texts()?;
        samples.map(|sample| texts.writer(sample)).collect()
    }

    /// State, logits and last tokens after the text so far.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Goes on after `context`, which another generator of the same model has read.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one of another model.
    pub fn go_on_after(&mut self, context: &Context) -> Result<()> {
        context.state.check_shapes(self.stepper.net().rings())?;
        self.context = context.clone();
        Ok(())
    }

    /// The beginning of texts after what was read, or after what stands for nothing.
    fn texts(&mut self) -> Result<TextStart> {
        if self.context.logits.is_empty() {
            let first = match self.stepper.end_token() {
                Some(end) => end,
                None => first_token(self.tokenizer)?,
            };
            self.read_tokens(&[first])?;
            self.context.after_text = false;
        }
        let vocab = self.context.logits.len();
        // ids that the model has and the tokenizer has not would print as nothing
        let ending = self.ending();
        let mut banned = self.tokenizer.banned_ids();
        banned.retain(|id| !ending.contains(id));
        banned.extend(self.tokenizer.vocab_size() as u32..vocab as u32);
        let sampler = Sampler::new(self.config.sampler.clone(), &banned, vocab)?;
        Ok(TextStart {
            tokenizer: self.tokenizer.clone(),
            config: self.config.clone(),
            end: self.stepper.end_token(),
            sampler: sampler.constrained(self.constraints()?),
            context: self.context.clone(),
        })
    }

    /// Tokens at which a text ends.
    fn ending(&self) -> Vec<u32> {
        let own = self.stepper.end_token().filter(|_| !self.config.ignore_end);
        self.config.stop_tokens.iter().copied().chain(own).collect()
    }

    /// The constraints of a text; the tokenizer is asked for its tokens' text only where there are some.
    fn constraints(&self) -> Result<Option<Constraints>> {
        let options = &self.config.constraints;
        if options.ban.is_empty() && options.allow.is_empty() && options.min_tokens == 0 {
            return Ok(None);
        }
        let tokens = self.tokenizer.token_bytes()?;
        let tokens = if self.context.after_text { tokens.after_text() } else { tokens };
        let constraints = Constraints::new(options, &self.config.stop, &tokens)?;
        Ok(Some(constraints.ending_with(self.ending())))
    }

    /// Goes on after the text that a generation of a single sample has written, as far as it came.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a generation of several samples.
    pub fn go_on(&mut self, generation: Generation) -> Result<()> {
        let (context, next) = generation.reached()?;
        self.context = context;
        self.read_tokens(next.as_slice())
    }

    /// Saves what was read and drawn, for [`load_state`](Self::load_state): beside the streaming state (see
    /// [`state_file`]) `logits` (1, vocab), `history`, the last tokens, and `drawn`, the number of tokens
    /// drawn so far: going on from it with the same seed gives the text that would have come.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file; what stood there before then stays.
    pub fn save_state(&self, path: impl AsRef<Path>) -> Result<()> {
        let context = &self.context;
        let is_read = !context.logits.is_empty();
        Error::require(is_read, "state", "one after a text", "nothing read yet")?;
        let last = context.history.len().saturating_sub(MAX_HISTORY);
        let device = &Device::Cpu;
        let more = HashMap::from([
            ("logits".into(), Tensor::new(&context.logits[..], device)?.unsqueeze(0)?),
            ("history".into(), Tensor::new(&context.history[last..], device)?),
            ("drawn".into(), Tensor::new(&[context.drawn as i64], device)?),
        ]);
        state_file::save_with(path.as_ref(), self.stepper.net(), &context.state, more)
    }

    /// Goes on where [`save_state`](Self::save_state) was.
    ///
    /// # Errors
    /// Those of [`state_file::load`].
    pub fn load_state(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let (path, net, vocab) = (path.as_ref(), self.stepper.net(), self.stepper.vocab_size());
        let expected = |name: &str| match name {
            "logits" => Some((Dtype::F32, vec![1, vocab])),
            "history" => Some((Dtype::U32, vec![usize::MAX])),
            "drawn" => Some((Dtype::I64, vec![1])),
            _ => None,
        };
        let (state, mut more) = state_file::load_with(path, net, 1, expected)?;
        let mut take = |name: &str| {
            let missing = format!("expected a tensor {name} of a generator's state, found none");
            more.remove(name).ok_or_else(|| Error::file(path, missing))
        };
        let (logits, history, drawn) = (take("logits")?, take("history")?, take("drawn")?);
        let history: Vec<u32> = history.to_vec1()?;
        if let Some(id) = history.iter().find(|&&id| id as usize >= vocab) {
            let message = format!("history: expected token ids below {vocab}, found {id}");
            return Err(Error::file(path, message));
        }
        self.context = Context {
            state,
            logits: logits.flatten_all()?.to_vec1()?,
            after_text: !history.is_empty(),
            history,
            drawn: drawn.to_vec1::<i64>()?[0].unsigned_abs(),
        };
        Ok(())
    }
}

fn first_token(tokenizer: &Tokenizer) -> Result<u32> {
    let banned = tokenizer.banned_ids();
    let line_end = match tokenizer.unknown_chars("\n")[..] {
        [] => tokenizer.encode("\n")?.last().copied(),
        _ => None,
    };
    let first = || (0..tokenizer.vocab_size() as u32).find(|id| !banned.contains(id));
    let none = || Error::Text("the tokenizer has no token to start from".into());
    line_end.or_else(first).ok_or_else(none)
}
