//! Named configurations, compiled in from `models/*.json`.

use super::ModelConfig;
use crate::{Error, Result};

macro_rules! presets {
    ($($name:literal: $about:literal,)*) => {
        /// The presets: name, purpose, configuration.
        pub const PRESETS: [(&str, &str, &str); 12] =
            [$(($name, $about, include_str!(concat!("../../models/", $name, ".json")))),*];
    };
}

presets! {
    "char": "pre-norm, gated residual blocks, 1 M parameters: the default of a few minutes",
    "char-medium": "the same with 2 M parameters: the default of longer runs on longer texts",
    "char-large": "the same with 3 M parameters: the default of runs of half an hour and more on several megabytes",
    "char-tiny": "a small network of the same kind: that of the built-in model, and the default for the built-in text",
    "char-ptb": "the character model of Bai et al. 2018: 2.2 M parameters, receptive field 29",
    "wavenet-char": "WaveNet's gated layers with a skip sum",
    "bytenet-small": "ByteNet's residual layers with layer norms, causal",
    "bytenet-masked": "smaller layers of the same kind that see both sides: a masked language model",
    "tcn-small": "the network of Bai et al. 2018 on frames, small: the default for forecasts",
    "tcn-modern": "pre-norm, gated blocks on frames: the default for values and labels of steps",
    "tcn-classify": "blocks with batch norm that see both sides, and the mean over the steps: the default for classes of series",
    "carp-600k": "CARP, a masked language model of proteins: 600 k parameters",
}

impl ModelConfig {
    /// The preset of this name; its vocabulary size is still 0.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown name, listing those there are.
    pub fn preset(name: &str) -> Result<Self> {
        match PRESETS.iter().find(|(known, ..)| *known == name) {
            Some((name, _, json)) => Self::from_json(json, name),
            None => {
                let names = PRESETS.map(|(name, ..)| name).join(", ");
                Err(Error::invalid("preset", format!("one of {names}"), name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_valid_and_survives_json() {
        for (name, ..) in PRESETS {
            let config = ModelConfig::preset(name).unwrap().sized().with_vocab_size(65);
            assert!(config.graph().unwrap().parameter_count().unwrap() > 0);
            assert_eq!(ModelConfig::from_json(&config.to_json().unwrap(), name).unwrap(), config);
        }
    }

    #[test]
    fn an_unknown_preset_lists_the_known() {
        let error = ModelConfig::preset("char-ptt").unwrap_err().to_string();
        assert!(error.contains("char-ptb") && error.contains("wavenet-char"), "{error}");
    }

    #[test]
    fn unknown_and_contradicting_fields_are_named() {
        let typo = r#"{"model_type": "tcn", "embedding_dim": 4, "network": {"num_channels": [4], "kernel_sise": 3}}"#;
        assert!(
            ModelConfig::from_json(typo, "x.json").unwrap_err().to_string().contains("kernel_sise")
        );
        let tied = r#"{"model_type": "tcn", "vocab_size": 9, "embedding_dim": 5, "tie_weights": true,
                       "network": {"num_channels": [4], "kernel_size": 3}}"#;
        let error = ModelConfig::from_json(tied, "x.json").unwrap().graph().unwrap_err();
        assert!(error.to_string().contains("tie_weights"), "{error}");
    }
}
