//! Texts that are being generated, as one batch.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::piece::Piece;
use super::{DrawnToken, FinishReason, GenerateConfig, Sampler, TextWriter};
use crate::models::Stepper;
use crate::nn::State;
use crate::text::{Decoder, Tokenizer};
use crate::{Error, Result};

/// Most texts that are generated as one batch; the others wait for a place.
const BATCH: usize = 64;

/// The most that the states of a batch take together, unless one alone takes more.
const BATCH_BYTES: usize = 1 << 28;

/// Fewest tokens that are remembered, for the decoder.
pub(super) const MIN_HISTORY: usize = 16;

/// All that a [`Generator`](super::Generator) keeps of the text it has read: the state after it, the logits of the next token, the last tokens.
#[derive(Debug, Clone)]
pub struct Context {
    /// Of one sequence.
    pub(super) state: State,
    /// Of the token that comes next; empty before the first token.
    pub(super) logits: Vec<f32>,
    /// The last tokens.
    pub(super) history: Vec<u32>,
    /// Tokens drawn so far.
    pub(super) drawn: u64,
    /// `true` if the next token follows text that was read or drawn.
    pub(super) after_text: bool,
}

impl Context {
    /// The streaming state of one sequence.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Logits of the token that comes next; none before something was read.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> usize {
        let rings: usize = self.state.shapes().iter().map(|shape| shape.bytes()).sum();
        rings + 4 * (self.logits.len() + self.history.len())
    }
}

/// The beginning of texts.
#[derive(Debug, Clone)]
pub(super) struct TextStart {
    pub tokenizer: Tokenizer,
    pub config: Arc<GenerateConfig>,
    /// Token at which the model ends a document.
    pub end: Option<u32>,
    pub sampler: Sampler,
    pub context: Context,
}

impl TextStart {
    fn decoder(&self) -> Decoder {
        let before = if self.context.after_text { &self.context.history[..] } else { &[] };
        self.tokenizer.decoder().after(before)
    }

    pub fn writer(&self, sample: u64) -> Result<TextWriter> {
        let sampler = self.sampler.clone().stream(sample).after(self.context.drawn);
        let (config, history) = (self.config.clone(), self.context.history.clone());
        TextWriter::new(config, self.end, sampler, self.decoder(), history)
    }
}

/// One of the texts.
#[derive(Debug, Clone)]
struct Lane {
    sample: u64,
    writer: TextWriter,
    /// All tokens drawn, where a stop string may cut some off again.
    ids: Vec<u32>,
}

/// The end of a single text, from which it can go on, and the last token drawn, which the state has not seen.
pub(super) type Reached = (Context, Option<u32>);

/// Texts being generated: an iterator of pieces, each as soon as it is certain.
///
/// All texts go through the network together; one that ends makes room for the next. Made by
/// [`Generator::samples`](super::Generator::samples).
#[derive(Debug)]
pub struct Generation<'a> {
    stepper: &'a Stepper,
    texts: TextStart,
    waiting: Range<u64>,
    single: bool,
    lanes: Vec<Lane>,
    /// Places whose token is still to be drawn in this round, in turn.
    to_draw: VecDeque<usize>,
    /// Places whose token has been drawn in this round; the texts of all others have ended.
    drawn: Vec<usize>,
    /// Of the lanes.
    state: State,
    /// (lanes, vocab)
    logits: Vec<f32>,
    ready: VecDeque<Piece>,
    /// Of a single text that has ended.
    end: Option<End>,
}

/// The end of a single text.
#[derive(Debug)]
enum End {
    /// After all of its tokens.
    Whole(Reached),
    /// At a stop string: some of the tokens were not shown.
    Stopped(Box<Lane>),
}

impl<'a> Generation<'a> {
    pub(super) fn new(stepper: &'a Stepper, texts: TextStart, samples: Range<u64>) -> Result<Self> {
        let start = &texts.context;
        let bytes: usize = start.state.shapes().iter().map(|shape| shape.bytes()).sum();
        let places = (BATCH_BYTES / bytes.max(1)).clamp(1, BATCH);
        let first = samples.clone().take(places);
        let batch = first.clone().count();
        let mut generation = Self {
            state: start.state.fork(0, batch)?,
            logits: start.logits.repeat(batch),
            waiting: samples.start + batch as u64..samples.end,
            single: samples.end.saturating_sub(samples.start) == 1,
            lanes: Vec::new(),
            to_draw: (0..batch).collect(),
            drawn: Vec::new(),
            ready: VecDeque::new(),
            end: None,
            stepper,
            texts,
        };
        let lanes = first.map(|sample| generation.lane(sample));
        generation.lanes = lanes.collect::<Result<_>>()?;
        Ok(generation)
    }

    /// Ends all texts where they are; what they hold back still comes.
    ///
    /// # Errors
    /// [`Error::Text`] where a tokenizer cannot decode.
    pub fn interrupt(&mut self) -> Result<()> {
        self.waiting = 0..0;
        let mut places: Vec<usize> = self.to_draw.drain(..).chain(self.drawn.drain(..)).collect();
        places.sort_unstable();
        for place in places {
            self.finish(place, FinishReason::Interrupted)?;
        }
        self.lanes.clear();
        Ok(())
    }

    pub(super) fn reached(mut self) -> Result<Reached> {
        Error::require(self.single, "samples", "a single one to go on after", "several")?;
        match self.end.take() {
            Some(End::Stopped(lane)) => self.before_stop(&lane),
            Some(End::Whole(reached)) => Ok(reached),
            None if !self.lanes.is_empty() => self.here(0),
            None => {
                let expected = "one that did not end with an error";
                Err(Error::invalid("generation", expected, "one that did"))
            }
        }
    }

    fn lane(&self, sample: u64) -> Result<Lane> {
        Ok(Lane { sample, writer: self.texts.writer(sample)?, ids: Vec::new() })
    }

    /// Goes on by one token, by the end of a text, or to the next round.
    fn advance(&mut self) -> Result<()> {
        let Some(place) = self.to_draw.pop_front() else {
            return self.next_round();
        };
        let ended = match self.lanes[place].writer.is_full() {
            false => self.token(place)?,
            true => Some(FinishReason::Length),
        };
        let Some(reason) = ended else {
            self.drawn.push(place);
            return Ok(());
        };
        self.finish(place, reason)?;
        if let Some(sample) = self.waiting.next() {
            // the next text takes the place, and begins after those that are there
            self.to_draw.push_back(place);
            self.lanes[place] = self.lane(sample)?;
            let start = &self.texts.context;
            self.state.set(place, &start.state, 0)?;
            let vocab = start.logits.len();
            self.logits[place * vocab..][..vocab].copy_from_slice(&start.logits);
        }
        Ok(())
    }

    /// Drops the texts that have ended; the others, each of which has drawn a token, go through the network.
    fn next_round(&mut self) -> Result<()> {
        let mut kept = std::mem::take(&mut self.drawn);
        kept.sort_unstable();
        if kept.len() < self.lanes.len() {
            self.state = self.state.select(&kept)?;
            self.logits.truncate(kept.len() * self.texts.context.logits.len());
            let lanes = std::mem::take(&mut self.lanes).into_iter().enumerate();
            let kept = lanes.filter(|(place, _)| kept.binary_search(place).is_ok());
            self.lanes = kept.map(|(_, lane)| lane).collect();
        }
        if self.lanes.is_empty() {
            return Ok(());
        }
        self.to_draw = (0..self.lanes.len()).collect();
        let drawn: Vec<u32> = self.lanes.iter().filter_map(|lane| lane.writer.last()).collect();
        let logits = self.stepper.step(&drawn, &mut self.state)?;
        self.logits.copy_from_slice(logits);
        Ok(())
    }

    /// Draws a token; gives the reason if the text ends with it.
    fn token(&mut self, place: usize) -> Result<Option<FinishReason>> {
        let vocab = self.texts.context.logits.len();
        let logits = &self.logits[place * vocab..][..vocab];
        let lane = &mut self.lanes[place];
        let DrawnToken { id, text, ended } = lane.writer.draw(logits)?;
        if self.single && !self.texts.config.stop.is_empty() {
            lane.ids.push(id);
        }
        if !text.is_empty() {
            self.ready.push_back(Piece { sample: lane.sample, text, finished: None });
        }
        Ok(ended)
    }

    /// Says how the text at this place ended, with what was held back of it.
    fn finish(&mut self, place: usize, reason: FinishReason) -> Result<()> {
        let lane = &mut self.lanes[place];
        let (sample, (text, finished)) = (lane.sample, lane.writer.finish(reason)?);
        if self.single {
            self.end = Some(match finished.reason {
                FinishReason::Stop => End::Stopped(Box::new(lane.clone())),
                _ => End::Whole(self.here(place)?),
            });
        }
        self.ready.push_back(Piece { sample, text, finished: Some(finished) });
        Ok(())
    }

    /// The state of the text at this place before its stop string: after the tokens whose text was shown whole, and
    /// what was shown of the next one.
    fn before_stop(&self, lane: &Lane) -> Result<Reached> {
        let mut decoder = self.texts.decoder();
        let (mut text, mut whole, mut end) = (String::new(), 0, 0);
        for (i, &id) in lane.ids.iter().enumerate() {
            text += &decoder.push(id)?.unwrap_or_default();
            if text.len() > lane.writer.shown() {
                break;
            }
            if text.len() > end {
                (whole, end) = (i + 1, text.len());
            }
        }
        let part = text.get(end..lane.writer.shown()).unwrap_or_default();
        let mut ids = lane.ids[..whole].to_vec();
        ids.extend(self.texts.tokenizer.encode_inside(part)?);
        let next = ids.pop();
        let mut context = self.texts.context.clone();
        for id in &ids {
            // as they were drawn, to the last bit
            self.stepper.step(&[*id], &mut context.state)?;
        }
        context.after_text |= next.is_some();
        context.drawn += lane.writer.tokens() as u64;
        context.history.extend(ids);
        Ok((context, next))
    }

    /// The state of the text at this place.
    fn here(&self, place: usize) -> Result<Reached> {
        let writer = &self.lanes[place].writer;
        let mut history = writer.history().to_vec();
        let next = writer.last();
        if next.is_some() {
            history.pop();
        }
        let start = &self.texts.context;
        let context = Context {
            state: self.state.select(&[place])?,
            logits: start.logits.clone(),
            drawn: start.drawn + writer.tokens() as u64,
            after_text: start.after_text || writer.tokens() > 0,
            history,
        };
        Ok((context, next))
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some(Ok(piece));
            }
            if self.lanes.is_empty() {
                return None;
            }
            if let Err(error) = self.advance() {
                self.waiting = 0..0;
                self.lanes.clear();
                return Some(Err(error));
            }
        }
    }
}
