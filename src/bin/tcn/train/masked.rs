//! Masked training: the flags, and from sequences to batches.

use std::path::PathBuf;

use candle_tcn::models::ModelConfig;
use candle_tcn::text::{Corpus, Tokenizer, TokenizerSpec, split_documents};
use candle_tcn::train::{MaskTokens, MaskedBatches, MaskingConfig, TrainConfig, ValidSet};
use candle_tcn::{Error, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::base::Base;
use super::data::{Data, TextSource, tokenizer_name};
use super::documents::beginning;
use crate::flags::expect_together;
use crate::model;
use crate::sequences::Sequences;

/// The vocabulary of CARP, as its models on the Hub have it.
const PROTEINS: &str = "<pad>\n<cls>\n<eos>\n<unk>\n<mask>\n<null>\nA\nC\nD\nE\nF\nG\nH\nI\nK\nL\nM\nN\nP\nQ\nR\nS\nT\nV\n\
    W\nY\nX\nZ\nB\nJ\nU\nO\n|\n.\n*\n-\n?\n";

/// Seed of the masks to validate under: the same for every run.
const VALID_SEED: u64 = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Predict the next token
    Lm,
    /// Find tokens that are masked, from both sides
    Mlm,
    /// Tell classes of series apart
    Classify,
    /// Forecast series
    Forecast,
    /// Give a value at every step of a series
    Regress,
    /// Give one of several labels at every step
    Label,
    /// Say at every step which of several labels hold
    Multilabel,
}

impl Task {
    /// `true` for a task on series.
    pub fn is_of_series(self) -> bool {
        !matches!(self, Self::Lm | Self::Mlm)
    }
}

#[derive(clap::Args)]
pub struct MaskArgs {
    /// The training task (default: that of the network; classify for a .ts file of series)
    #[arg(long, value_enum)]
    pub task: Option<Task>,
    /// Part of a sequence's tokens that is to be found (default: 0.15)
    #[arg(long, value_name = "F")]
    mask_share: Option<f64>,
    /// Part of those for which a mask stands (default: 0.8)
    #[arg(long, value_name = "F")]
    mask_replace: Option<f64>,
    /// Part of those for which any other token stands; the rest stays as it is (default: 0.1)
    #[arg(long, value_name = "F")]
    mask_random: Option<f64>,
}

impl MaskArgs {
    /// The shares, where masked training is asked for or is what the network is for.
    pub fn of(&self, model: &ModelConfig) -> anyhow::Result<Option<MaskingConfig>> {
        let is_masked = match self.task {
            Some(task) => task == Task::Mlm,
            None => model.require_causal().is_err() && model.require_masked().is_ok(),
        };
        if !is_masked {
            let masked = "a masked language model (--task mlm)";
            expect_together(&[
                ("--mask-share", self.mask_share.is_some(), masked),
                ("--mask-replace", self.mask_replace.is_some(), masked),
                ("--mask-random", self.mask_random.is_some(), masked),
            ])?;
            model.require_causal()?;
            return Ok(None);
        }
        model.require_masked()?;
        let usual = MaskingConfig::default();
        let config = MaskingConfig {
            share: self.mask_share.unwrap_or(usual.share),
            masked: self.mask_replace.unwrap_or(usual.masked),
            random: self.mask_random.unwrap_or(usual.random),
        };
        config.validate()?;
        Ok(Some(config))
    }
}

/// Everything that masked training reads.
pub struct MaskedData {
    pub data: Data,
    /// Sequences to train on, cut where they are longer than a row.
    train: Vec<Vec<u32>>,
    valid: Vec<Vec<u32>>,
}

impl MaskedData {
    pub fn read(
        source: &TextSource,
        spec: Option<&TokenizerSpec>,
        (model, base): (&ModelConfig, Option<&Base>),
        seq_len: usize,
    ) -> anyhow::Result<Self> {
        if source.data.is_empty() {
            bail_usage!(
                "--data: expected sequences to train a masked language model on, one a line or FASTA"
            );
        }
        if source.documents.by().is_some() {
            bail_usage!(
                "--documents, --field: a masked language model is trained on sequences, one a line or FASTA"
            );
        }
        let all = read(&source.data)?;
        let held_out = source.valid.as_ref().map(|path| read(std::slice::from_ref(path)));
        let (train, valid) = match held_out.transpose()? {
            Some(valid) => (all, valid),
            None => split_documents(all, source.fraction())?,
        };
        let text = [train.concat(), valid.concat()].concat();
        let (tokenizer, tokenizer_name) = tokenizer(spec, (model, base), text)?;
        let valid = beginning(valid, source.valid_bytes);
        let bytes = [&train, &valid].map(|texts| texts.iter().map(String::len).sum());
        let train = encoded(&tokenizer, "training text", &train, seq_len)?;
        let valid = encoded(&tokenizer, "validation text", &valid, seq_len)?;
        let [train_tokens, valid_tokens] =
            [&train, &valid].map(|pieces| pieces.iter().map(Vec::len).sum());
        let data = Data {
            tokenizer,
            tokenizer_name,
            train_tokens,
            valid_tokens,
            valid: ValidSet::default(),
            end_token: None,
            bytes,
        };
        Ok(Self { data, train, valid })
    }

    /// The model for the tokenizer; of a base, its own tokens stay.
    pub fn fit(&self, model: ModelConfig, base: Option<&Base>) -> Result<ModelConfig> {
        let size = self.data.tokenizer.vocab_size();
        if let Some(base) = base {
            return Ok(model.with_vocab_size(base.files.config.vocab_size().max(size)));
        }
        let MaskTokens { mask, pad, .. } = MaskTokens::of(&self.data.tokenizer)?;
        Ok(model.with_vocab_size(size).with_mask_tokens(pad, mask))
    }

    /// Batches to train on; those to validate on go to the data.
    pub fn batches(
        &mut self,
        masking: MaskingConfig,
        model: &ModelConfig,
        config: &TrainConfig,
    ) -> Result<MaskedBatches> {
        let fills_up = model.graph()?.takes_mask();
        let tokens = MaskTokens::of(&self.data.tokenizer)?;
        let most = config.batch_size.saturating_mul(config.seq_len);
        let batches = |sequences, seed| {
            MaskedBatches::new(sequences, tokens.clone(), masking, most, fills_up, seed)
        };
        let valid = std::mem::take(&mut self.valid);
        if !valid.is_empty() {
            self.data.valid = ValidSet::batches(batches(valid, VALID_SEED)?.first_epoch()?);
        }
        batches(std::mem::take(&mut self.train), config.seed)
    }
}

/// The tokenizer, and its name in a card.
fn tokenizer(
    spec: Option<&TokenizerSpec>,
    (model, base): (&ModelConfig, Option<&Base>),
    text: String,
) -> anyhow::Result<(Tokenizer, String)> {
    let corpus = Corpus::from_bytes(text.into_bytes());
    let usual = TokenizerSpec::Char;
    Ok(match (base, spec) {
        (Some(base), _) => {
            let tokenizer = base.tokenizer(std::iter::once(&corpus))?;
            (tokenizer, tokenizer_name(&usual, Some(base)))
        }
        (None, None) if model.model_type() == "carp" => {
            (Tokenizer::from_vocab(PROTEINS)?, "the letters of CARP".into())
        }
        (None, spec) => {
            let spec = spec.unwrap_or(&usual);
            let tokenizer = Tokenizer::from_spec(spec, corpus.bytes())?.with_mask_tokens()?;
            (tokenizer, tokenizer_name(spec, None))
        }
    })
}

/// The tokens of sequences, in pieces of `len` at the most.
fn encoded(
    tokenizer: &Tokenizer,
    name: &str,
    texts: &[String],
    len: usize,
) -> Result<Vec<Vec<u32>>> {
    let (mut pieces, mut unknown) = (Vec::new(), 0);
    for text in texts {
        let ids = tokenizer.encode(text)?;
        unknown += model::unknown_tokens(tokenizer, &ids);
        pieces.extend(ids.chunks(len.max(1)).map(<[u32]>::to_vec));
    }
    model::warn_of_unknown(&name, unknown, "");
    Ok(pieces)
}

fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let mut texts = Vec::new();
    for path in paths {
        for sequence in Sequences::open(path)? {
            texts.push(sequence?.text);
        }
    }
    if texts.is_empty() {
        return Err(Error::file(&paths[0], "expected sequences, found none").into());
    }
    Ok(texts)
}
