//! The thread that owns the states of all texts that a model writes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::meters::ModelMeters;
use super::reading::Reading;
use super::request::{Reply, TextRequest, TextWanted, send};
use super::row::{RowShared, TextRow};
use super::turns::Turns;
use crate::Result;
use crate::models::Stepper;
use crate::nn::State;
use crate::text::Tokenizer;

/// Time over which the tokens of a streamed text are gathered.
const GATHERED: Duration = Duration::from_millis(20);

/// Fewest rows for which drawing is shared out to threads.
const SHARED_OUT: usize = 16;

/// Bounds of a [`Batcher`].
#[derive(Debug, Clone, Copy)]
pub(super) struct BatcherLimits {
    /// Texts that are written at once.
    pub max_streams: usize,
    /// Tokens of prompts that are read between two steps.
    pub prefill_tokens: usize,
}

/// Texts of a model as one batch, which they join and leave at any step.
///
/// A text depends on its prompt, its options and its seed, not on the others: rows of a step are computed
/// independently of each other, and a prompt is read by itself, in pieces that are cut at the same places.
pub(super) struct Batcher<'a> {
    stepper: &'a Stepper,
    tokenizer: &'a Tokenizer,
    limits: BatcherLimits,
    requests: mpsc::UnboundedReceiver<TextRequest>,
    meters: Arc<ModelMeters>,
    /// Ends all texts where they are.
    stop: Arc<AtomicBool>,
    runtime: Handle,
    waiting: Turns<TextRequest>,
    reading: VecDeque<Reading<'a>>,
    rows: Vec<TextRow>,
    /// Of the rows.
    state: State,
    ids: Vec<u32>,
    sent: Instant,
}

impl<'a> Batcher<'a> {
    pub fn new(
        (stepper, tokenizer): (&'a Stepper, &'a Tokenizer),
        limits: BatcherLimits,
        requests: mpsc::UnboundedReceiver<TextRequest>,
        meters: Arc<ModelMeters>,
        stop: Arc<AtomicBool>,
        runtime: Handle,
    ) -> Result<Self> {
        Ok(Self {
            state: stepper.init_state(0)?,
            stepper,
            tokenizer,
            limits,
            requests,
            meters,
            stop,
            runtime,
            waiting: Turns::new(),
            reading: VecDeque::new(),
            rows: Vec::new(),
            ids: Vec::new(),
            sent: Instant::now(),
        })
    }

    /// Works until nobody can ask any more.
    pub fn run(mut self) {
        while self.receive() {
            if self.stop.load(Ordering::Relaxed) {
                self.end_all();
                continue;
            }
            self.drop_abandoned();
            self.admit();
            self.read();
            self.step();
            self.measure();
        }
    }

    /// Takes new requests, and waits for one where there is nothing else to do; `false` at the end of all.
    fn receive(&mut self) -> bool {
        if self.rows.is_empty() && self.reading.is_empty() && self.waiting.is_empty() {
            // a burst must not hold memory for ever
            if let Ok(state) = self.stepper.init_state(0) {
                self.state = state;
            }
            self.measure();
            match self.requests.blocking_recv() {
                Some(request) => self.enqueue(request),
                None => return false,
            }
        }
        while let Ok(request) = self.requests.try_recv() {
            self.enqueue(request);
        }
        true
    }

    fn enqueue(&mut self, request: TextRequest) {
        let client = request.client.clone();
        self.waiting.push(&client, request);
    }

    /// Frees what nobody waits for.
    fn drop_abandoned(&mut self) {
        self.waiting.retain(|request| !request.is_abandoned());
        self.reading.retain(|reading| !reading.request.is_abandoned());
        for at in (0..self.rows.len()).rev() {
            if self.rows[at].is_abandoned() {
                drop(self.remove(at));
            }
        }
    }

    fn remove(&mut self, at: usize) -> TextRow {
        // the state has a sequence for each row
        let removed = self.state.swap_remove(at);
        debug_assert!(removed.is_ok());
        self.rows.swap_remove(at)
    }

    /// Begins with the prompts for whose texts there is room.
    fn admit(&mut self) {
        let held: usize = self.reading.iter().map(|reading| reading.request.rows()).sum();
        let mut room = self.limits.max_streams.saturating_sub(self.rows.len() + held);
        while let Some(request) = self.waiting.peek().filter(|request| request.rows() <= room) {
            room -= request.rows();
            let Some(request) = self.waiting.pop() else { return };
            let replies = request.replies.clone();
            match Reading::new(self.stepper, self.tokenizer, request) {
                Ok(mut reading) => {
                    reading.follow(&self.reading, self.limits.prefill_tokens);
                    self.reading.push_back(reading);
                }
                Err(error) => send(&self.runtime, &replies, Reply::Failed(error)),
            }
        }
    }

    /// Reads prompts, so many tokens as fit between two steps; each in turn.
    fn read(&mut self) {
        let piece = self.limits.prefill_tokens;
        let mut left = piece;
        while left > 0 && !self.reading.is_empty() {
            let Some(at) = self.reading.iter().position(|reading| !reading.is_following()) else {
                // whom they followed has gone
                self.reading.iter_mut().for_each(Reading::stop_following);
                continue;
            };
            // pieces are cut at places of their own: one that does not fit waits, unless it is the first
            if left < piece && self.reading[at].next_piece(piece) > left {
                return;
            }
            let Some(mut reading) = self.reading.remove(at) else { return };
            match reading.read(piece) {
                Ok(tokens) => {
                    self.meters.prompt_tokens.inc_by(tokens as u64);
                    left = left.saturating_sub(tokens.max(1));
                    self.reading.iter_mut().for_each(|other| other.catch_up(&reading));
                    match reading.is_done() {
                        true => self.begin(reading),
                        false => self.reading.push_back(reading),
                    }
                }
                Err(error) => send(&self.runtime, &reading.request.replies, Reply::Failed(error)),
            }
            let alive: Vec<u64> = self.reading.iter().map(|reading| reading.number).collect();
            self.reading.iter_mut().for_each(|reading| reading.follow_only(&alive));
        }
    }

    /// A prompt is read: its texts join the batch with their first tokens, or its state is handed over.
    fn begin(&mut self, reading: Reading<'a>) {
        let replies = reading.request.replies.clone();
        if matches!(reading.request.wanted, TextWanted::State) {
            let context = Arc::new(reading.generator.context().clone());
            // its place is free before the answer comes
            drop(reading);
            send(&self.runtime, &replies, Reply::State(context));
        } else if let Err(error) = self.begin_texts(reading) {
            send(&self.runtime, &replies, Reply::Failed(error));
        }
    }

    fn begin_texts(&mut self, mut reading: Reading<'a>) -> Result<()> {
        let scored = reading.take_scored();
        let Reading { request, mut generator, .. } = reading;
        let writers = generator.writers(0..request.rows() as u64)?;
        let shared = RowShared::of(request);
        let (context, mut ended) = (generator.context(), Vec::new());
        for (number, writer) in (0..).zip(writers) {
            let mut row = TextRow::new(shared.clone(), number, writer, scored.clone());
            row.draw(context.logits());
            self.meters.first_token.observe(shared.received.elapsed().as_secs_f64());
            self.meters.tokens.inc_by(row.tokens() as u64);
            match row.has_ended() {
                true => ended.push(row),
                false => {
                    // the first token at once
                    row.send_streamed();
                    self.state.push(context.state(), 0)?;
                    self.rows.push(row);
                }
            }
        }
        drop(shared);
        ended.into_iter().for_each(|row| row.end(&self.runtime));
        Ok(())
    }

    /// The next token of each text.
    fn step(&mut self) {
        if self.rows.is_empty() {
            return;
        }
        let start = Instant::now();
        self.ids.clear();
        self.ids.extend(self.rows.iter().map(TextRow::last));
        let vocab = self.stepper.vocab_size();
        match self.stepper.step(&self.ids, &mut self.state) {
            Ok(logits) => {
                let threads = rayon::current_num_threads();
                if threads > 1 && self.rows.len() >= SHARED_OUT {
                    let rows = self.rows.par_iter_mut().zip(logits.par_chunks(vocab));
                    rows.for_each(|(row, logits)| row.draw(logits));
                } else {
                    let rows = self.rows.iter_mut().zip(logits.chunks(vocab));
                    rows.for_each(|(row, logits)| row.draw(logits));
                }
            }
            Err(error) => {
                let message = error.to_string();
                self.rows.iter_mut().for_each(|row| row.fail(&message));
            }
        }
        self.meters.tokens.inc_by(self.rows.len() as u64);
        self.meters.step.observe(start.elapsed().as_secs_f64());
        self.meters.batch.observe(self.rows.len() as f64);
        let is_time = self.sent.elapsed() >= GATHERED;
        for at in (0..self.rows.len()).rev() {
            if self.rows[at].has_ended() {
                self.remove(at).end(&self.runtime);
            } else if is_time {
                self.rows[at].send_streamed();
            }
        }
        if is_time {
            self.sent = Instant::now();
        }
    }

    /// Tells all that wait that nothing more comes.
    fn end_all(&mut self) {
        let waiting = self.waiting.drain().map(|request| request.replies);
        let reading = self.reading.drain(..).map(|reading| reading.request.replies);
        let rows = self.rows.drain(..).map(|row| row.replies());
        for replies in waiting.chain(reading).chain(rows) {
            send(&self.runtime, &replies, Reply::Stopped);
        }
    }

    fn measure(&self) {
        self.meters.streams.set(self.rows.len() as i64);
        let bytes: usize = self.state.shapes().iter().map(|shape| shape.bytes()).sum();
        self.meters.state_bytes.set((bytes * self.rows.len()) as i64);
    }
}
