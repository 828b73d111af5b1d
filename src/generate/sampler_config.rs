//! The options of a sampler.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Configuration of a [`Sampler`](super::Sampler), which draws the next token from the logits.
///
/// The fields stand in the order in which they act, which is that of Hugging Face `generate`:
/// logit bias, repetition penalty, presence and frequency penalty (which `generate` does not have),
/// tokens that must not be drawn, temperature, top-k, top-p, min-p, typical-p, then one draw from the
/// softmax of what is left. Every filter sees the probabilities that the one before it left.
///
/// # Example
///
/// ```
/// use candle_tcn::generate::SamplerConfig;
/// let config = SamplerConfig { temperature: -1.0, ..Default::default() };
/// assert_eq!(
///     config.validate().unwrap_err().to_string(),
///     "temperature: expected a finite number of at least 0 (0 takes the likeliest token), found -1"
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplerConfig {
    /// Numbers added to the logits of these token ids: 5 makes a token about 150 times as likely, −5
    /// as unlikely. Each id at most once.
    pub logit_bias: Vec<(u32, f64)>,
    /// Divides positive logits, and multiplies negative ones, of every token among the last
    /// `penalty_window`; 1 changes nothing, above 1 discourages repetition.
    pub repetition_penalty: f64,
    /// Subtracted from the logit of every token among the last `penalty_window`; 0 changes nothing,
    /// above 0 discourages repetition.
    pub presence_penalty: f64,
    /// Subtracted from a token's logit once for every time it is among the last `penalty_window`; 0
    /// changes nothing, above 0 discourages repetition, the more the more frequent it is.
    pub frequency_penalty: f64,
    /// Number of last tokens, the prompt's among them, that the three penalties look at.
    pub penalty_window: usize,
    /// Divides the logits: below 1 sharpens, above 1 flattens, 0 always takes the likeliest token.
    pub temperature: f64,
    /// Keep only the `top_k` likeliest tokens, and those as likely as the last of them.
    pub top_k: Option<usize>,
    /// Keep the fewest likeliest tokens whose probabilities sum to at least `top_p` (nucleus).
    pub top_p: Option<f64>,
    /// Keep the tokens at least `min_p` times as likely as the likeliest.
    pub min_p: Option<f64>,
    /// Keep the tokens whose information, −ln p, is nearest to the mean (the entropy), the fewest whose
    /// probabilities sum to at least `typical_p`, and those as near as the last of them.
    pub typical_p: Option<f64>,
    /// Seed of the draws: the same seed and logits give the same tokens.
    pub seed: u64,
}

impl Default for SamplerConfig {
    fn default() -> Self {
        Self {
            logit_bias: Vec::new(),
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            penalty_window: 256,
            temperature: 1.0,
            top_k: None,
            top_p: None,
            min_p: None,
            typical_p: None,
            seed: 0,
        }
    }
}

impl SamplerConfig {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] that names the field, what is allowed and what was found.
    pub fn validate(&self) -> Result<()> {
        let mut ids: Vec<u32> = self.logit_bias.iter().map(|&(id, _)| id).collect();
        ids.sort_unstable();
        if let Some([id, _]) = ids.array_windows().find(|[a, b]| a == b) {
            let found = format!("id {id} twice");
            return Err(Error::invalid("logit_bias", "every token id at most once", found));
        }
        if let Some((id, bias)) = self.logit_bias.iter().find(|(_, bias)| !bias.is_finite()) {
            let found = format!("{bias} for token {id}");
            return Err(Error::invalid("logit_bias", "finite numbers", found));
        }
        let expected = "a whole number of at least 1 (leave it out to keep all tokens)";
        Error::require(self.top_k != Some(0), "top_k", expected, 0)?;
        let [top_p, min_p, typical_p] =
            [self.top_p, self.min_p, self.typical_p].map(|p| p.unwrap_or(1.0));
        let share = "a number from 0 to 1";
        for (field, value, allowed, expected) in [
            (
                "repetition_penalty",
                self.repetition_penalty,
                self.repetition_penalty > 0.0,
                "a finite number above 0 (1 changes nothing)",
            ),
            ("presence_penalty", self.presence_penalty, true, NO_PENALTY),
            ("frequency_penalty", self.frequency_penalty, true, NO_PENALTY),
            (
                "temperature",
                self.temperature,
                self.temperature >= 0.0,
                "a finite number of at least 0 (0 takes the likeliest token)",
            ),
            ("top_p", top_p, (0.0..=1.0).contains(&top_p), share),
            ("min_p", min_p, (0.0..=1.0).contains(&min_p), share),
            (
                "typical_p",
                typical_p,
                typical_p > 0.0 && typical_p <= 1.0,
                "a number above 0 and at most 1 (1 keeps all tokens)",
            ),
        ] {
            Error::require(allowed && value.is_finite(), field, expected, value)?;
        }
        Ok(())
    }
}

const NO_PENALTY: &str = "a finite number (0 changes nothing)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_configs_name_their_field() {
        let wrong = |change: fn(&mut SamplerConfig), flag: &str| {
            let mut config = SamplerConfig::default();
            change(&mut config);
            let message = config.validate().unwrap_err().to_string();
            assert!(message.starts_with(&format!("{flag}: expected ")), "{message}");
        };
        wrong(|c| c.temperature = f64::NAN, "temperature");
        wrong(|c| c.temperature = f64::INFINITY, "temperature");
        wrong(|c| c.top_k = Some(0), "top_k");
        wrong(|c| c.top_p = Some(1.5), "top_p");
        wrong(|c| c.top_p = Some(f64::NAN), "top_p");
        wrong(|c| c.min_p = Some(-0.1), "min_p");
        wrong(|c| c.typical_p = Some(0.0), "typical_p");
        wrong(|c| c.typical_p = Some(f64::NAN), "typical_p");
        wrong(|c| c.repetition_penalty = 0.0, "repetition_penalty");
        wrong(|c| c.repetition_penalty = f64::INFINITY, "repetition_penalty");
        wrong(|c| c.presence_penalty = f64::NAN, "presence_penalty");
        wrong(|c| c.frequency_penalty = f64::INFINITY, "frequency_penalty");
        wrong(|c| c.logit_bias = vec![(3, f64::NEG_INFINITY)], "logit_bias");
        wrong(|c| c.logit_bias = vec![(3, 1.0), (0, 1.0), (3, 2.0)], "logit_bias");
    }

    #[test]
    fn a_config_survives_json() {
        let full = SamplerConfig {
            top_k: Some(5),
            top_p: Some(0.5),
            logit_bias: vec![(3, -0.1)],
            seed: u64::MAX,
            ..Default::default()
        };
        let text = serde_json::to_string(&full).unwrap();
        assert_eq!(serde_json::from_str::<SamplerConfig>(&text).unwrap(), full);
        let empty = serde_json::from_str::<SamplerConfig>("{}").unwrap();
        assert_eq!(empty, SamplerConfig::default());
        assert!(serde_json::from_str::<SamplerConfig>(r#"{"topk": 1}"#).is_err());
    }
}
