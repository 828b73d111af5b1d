//! The size and the dropout of a language model whose flags leave them to the length of the run.

use std::time::{Duration, Instant};

use candle_tcn::models::ModelConfig;
use candle_tcn::train::{Budget, TrainConfig};

use super::super::check_memory;
use super::TrainArgs;
use crate::bench::work;
use crate::flags::counted;

/// Networks of one kind, the smallest first.
const SIZES: [&str; 4] = ["char-tiny", "char", "char-medium", "char-large"];

/// Tokens that a run reads for each parameter of a larger network, at least.
const TOKENS_A_PARAMETER: f64 = 5.0;

/// Parameters of a larger network for each token of the text, at most.
const PARAMETERS_A_TOKEN: f64 = 1.0;

/// Passes over a text up to which weight decay alone keeps a network from learning it by heart.
const PASSES: f64 = 12.0;

/// The largest dropout that is chosen, and what each doubling of the passes adds.
const DROPOUT: (f64, f64) = (0.2, 0.04);

impl TrainArgs {
    /// The network for a text of so many tokens: the largest for which run and text are long enough, with a dropout that
    /// follows from how often the text is read; `model` as it is where flags or a model to begin with say both. Its
    /// vocabulary is known. See docs/recipe.md.
    pub fn chosen(
        &self,
        model: ModelConfig,
        config: &TrainConfig,
        tokens: usize,
    ) -> anyhow::Result<ModelConfig> {
        let candidates = self.candidates();
        if candidates.is_empty() || candidates.len() == 1 && self.dropout.is_some() {
            return Ok(model);
        }
        let parameters = |model: &ModelConfig| model.graph()?.parameter_count();
        // `model` is the first of them
        let read = Read::new(&model, parameters(&model)?, config, tokens)?;
        let (mut preset, mut chosen, mut passes) = (candidates[0], model, 0.0);
        for &name in candidates {
            let sized = ModelConfig::preset(name)?.with_vocab_size(chosen.vocab_size());
            let sized = sized.with_end_token(chosen.end_token())?;
            let (size, text) = (parameters(&sized)? as f64, tokens as f64);
            let read = read.tokens(size);
            if name == preset || suits(size, read, text) {
                (preset, chosen, passes) = (name, sized, read / text);
            }
        }
        let dropout = self.dropout.unwrap_or(dropout_of(passes));
        if !self.loudness.quiet {
            let text = counted(tokens, "token");
            say!("{passes:.1} passes over {text}: --preset {preset} --dropout {dropout}");
        }
        Ok(chosen.with_dropout(dropout))
    }

    /// The presets among which the length of the run decides: one where it decides on the dropout alone, none where a
    /// configuration or another network is given.
    fn candidates(&self) -> &'static [&'static str] {
        let is_given = self.preset.is_some() || self.source.data.is_empty();
        let known = SIZES.iter().position(|size| *size == self.model_name());
        match known.filter(|_| self.config.is_none() && self.base.init_from.is_none()) {
            Some(at) if is_given => &SIZES[at..=at],
            Some(at) => &SIZES[at..],
            None => &[],
        }
    }
}

/// Tokens that the budget of a run pays for.
enum Read {
    /// So many.
    Tokens(f64),
    /// So many times parameters: a step takes as much longer as the network is larger.
    Work(f64),
}

impl Read {
    fn new(
        model: &ModelConfig,
        parameters: usize,
        config: &TrainConfig,
        tokens: usize,
    ) -> anyhow::Result<Self> {
        let batch = config.accumulate as f64 * config.batch_size as f64 * config.seq_len as f64;
        Ok(match config.budget {
            Budget::Steps(steps) => Self::Tokens(steps as f64 * batch),
            Budget::Epochs(epochs) => Self::Tokens(epochs * tokens as f64),
            Budget::Minutes(minutes) => {
                let rate = tokens_a_second(model, config, minutes)?;
                Self::Work(60.0 * minutes * rate * parameters as f64)
            }
        })
    }

    fn tokens(&self, parameters: f64) -> f64 {
        match self {
            Self::Tokens(tokens) => *tokens,
            Self::Work(work) => work / parameters,
        }
    }
}

/// `true` if a network of so many parameters gains from reading so many tokens, of a text of `text` tokens.
fn suits(parameters: f64, read: f64, text: f64) -> bool {
    read >= TOKENS_A_PARAMETER * parameters && parameters <= PARAMETERS_A_TOKEN * text
}

fn dropout_of(passes: f64) -> f64 {
    let (most, of_doubling) = DROPOUT;
    let dropout = of_doubling * (passes / PASSES).log2();
    (100.0 * dropout.clamp(0.0, most)).round() / 100.0
}

/// Tokens that training reads in a second, by steps on random text: a second of them, less for a short run.
fn tokens_a_second(model: &ModelConfig, config: &TrainConfig, minutes: f64) -> anyhow::Result<f64> {
    const SHARE: f64 = 0.02;
    check_memory(model, config)?;
    let enough = Duration::from_secs_f64((SHARE * 60.0 * minutes).min(1.0));
    let sizes = (config.batch_size, config.seq_len);
    let mut step = work::training(model.clone(), sizes, config.dtype, config.optimizer.clone())?;
    // the first takes memory from the system
    step()?;
    let (start, mut steps) = (Instant::now(), 0);
    while steps == 0 || start.elapsed() < enough {
        step()?;
        steps += 1;
    }
    let tokens = (steps * config.batch_size * config.seq_len) as f64;
    Ok(tokens / start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_networks_want_longer_runs_and_texts() {
        const PARAMETERS: f64 = 2e6;
        assert!(suits(PARAMETERS, 16e6, 4e6));
        assert!(!suits(PARAMETERS, 6e6, 4e6));
        assert!(!suits(PARAMETERS, 16e6, 1e6));
    }

    #[test]
    fn dropout_follows_the_passes() {
        let dropout = [0.0, 6.0, 12.0, 24.0, 48.0, 1e9].map(dropout_of);
        assert_eq!(dropout, [0.0, 0.0, 0.0, 0.04, 0.08, 0.2]);
    }
}
