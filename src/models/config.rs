//! Configuration of a model: serde, tagged by `model_type`.

use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use crate::geometry::Stack;
use crate::graph::{Graph, Network};
use crate::{Error, Result};

/// The order of the axes in files of frames; layers and networks always take (batch, time, channels).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum FrameLayout {
    /// (batch, channels, time), as PyTorch's convolutions.
    #[default]
    #[serde(rename = "NCL")]
    ChannelsFirst,
    /// (batch, time, channels).
    #[serde(rename = "NLC")]
    ChannelsLast,
}

/// An architecture: one file, whose configuration gives the graph of the network. Everything else reads the graph.
pub trait Architecture {
    /// The network.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TooLarge`], naming the field.
    fn graph(&self) -> Result<Graph>;

    /// The field with the size of the vocabulary, 0 in a preset; of networks on tokens.
    fn vocab_size(&mut self) -> Option<&mut usize> {
        None
    }

    /// The field with the token that ends a document; of networks that may begin anew within a sequence.
    fn end_token(&mut self) -> Option<&mut Option<u32>> {
        None
    }

    /// The fields with the channels of a frame, 0 in a preset, and of a result; of networks on frames that can be trained
    /// on any.
    fn frames(&mut self) -> Option<(&mut usize, &mut Option<usize>)> {
        None
    }

    /// Sets the tokens that fill up and that are looked for, of masked language models that have fields for them.
    fn set_mask_tokens(&mut self, _pad: u32, _mask: u32) {}

    /// Layout of the files that hold frames.
    fn layout(&self) -> FrameLayout {
        FrameLayout::ChannelsLast
    }

    /// Sets every probability of dropping.
    fn set_dropout(&mut self, _dropout: f64) {}

    /// Leaves out weight norm, for weights in which it is folded.
    fn fold_weight_norm(&mut self) {}
}

/// Lists the architectures: the name in `model_type`, and the configuration.
macro_rules! architectures {
    ($($(#[$doc:meta])* $name:literal $variant:ident($config:ident),)*) => {
        /// A model's `config.json`: everything but its weights.
        ///
        /// # Example
        ///
        /// ```
        /// use candle_tcn::models::ModelConfig;
        /// let config = ModelConfig::preset("char-ptb")?.with_vocab_size(50);
        /// assert_eq!(config.graph()?.parameter_count()?, 2_222_100);
        /// assert_eq!(config.geometry()?.receptive_field()?.total, 29);
        /// # Ok::<(), candle_tcn::Error>(())
        /// ```
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "model_type")]
        pub enum ModelConfig {
            $($(#[$doc])* #[serde(rename = $name)] $variant(super::$config),)*
        }

        impl ModelConfig {
            /// The value of `model_type`.
            pub fn model_type(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                }
            }

            /// The architecture with its options.
            pub fn architecture(&self) -> &dyn Architecture {
                match self {
                    $(Self::$variant(config) => config,)*
                }
            }

            fn architecture_mut(&mut self) -> &mut dyn Architecture {
                match self {
                    $(Self::$variant(config) => config,)*
                }
            }
        }
    };
}

architectures! {
    /// Residual blocks of two dilated convolutions (Bai, Kolter & Koltun 2018, arXiv:1803.01271).
    "tcn" Tcn(TcnLmConfig),
    /// Gated residual layers with a skip sum (van den Oord et al. 2016, arXiv:1609.03499).
    "wavenet" WaveNet(WaveNetConfig),
    /// The network of Bai et al. on frames, with a linear layer or without.
    "temporal_conv_net" TemporalConvNet(TemporalConvNetConfig),
    /// pytorch-tcn's network on frames.
    "pytorch_tcn" PytorchTcn(PytorchTcnConfig),
    /// pytorch-tcn's convolution, alone.
    "temporal_conv1d" TemporalConv1d(TemporalConv1dConfig),
    /// pytorch-tcn's transposed convolution, alone.
    "temporal_conv_transpose1d" TemporalConvTranspose1d(TemporalConvTranspose1dConfig),
    /// Residual layers around dilated convolutions (Kalchbrenner et al. 2016, arXiv:1610.10099).
    "bytenet" ByteNet(ByteNetConfig),
    /// The same as a masked language model of proteins.
    "carp" Carp(CarpConfig),
    /// A masked language model of DNA.
    "ConvNet" ConvNet(ConvNetConfig),
}

impl ModelConfig {
    /// Reads a configuration; `source` is named in errors.
    ///
    /// # Errors
    /// [`Error::File`] for JSON that is no model configuration.
    pub fn from_json(json: &str, source: impl AsRef<std::path::Path>) -> Result<Self> {
        serde_json::from_str(json)
            .map_err(|e| Error::file(source, format!("not a model configuration: {e}")))
    }

    /// The configuration as JSON.
    ///
    /// # Errors
    /// [`Error::Invalid`] for numbers that are not finite.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self)
            .map_err(|e| Error::invalid("config", "finite numbers", e))
    }

    /// The network, as every reader reads it.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TooLarge`], naming the field that does not fit.
    pub fn graph(&self) -> Result<Graph> {
        self.architecture().graph()
    }

    /// The network with the tensors of `vb`.
    ///
    /// # Errors
    /// As [`graph`](Self::graph); those of `vb`.
    ///
    /// # Example
    ///
    /// ```
    /// use candle_core::{DType, Device, Module, Tensor};
    /// use candle_tcn::models::ModelConfig;
    /// use candle_tcn::nn::Params;
    /// let config = ModelConfig::preset("char-tiny")?.with_vocab_size(20);
    /// let params = Params::new(1, DType::F32, &Device::Cpu);
    /// let model = config.build(params.builder())?;
    /// let ids = Tensor::new(&[[3u32, 1, 4]], &Device::Cpu)?;
    /// assert_eq!(model.forward(&ids)?.dims(), [1, 3, 20]);
    /// # Ok::<(), candle_tcn::Error>(())
    /// ```
    pub fn build(&self, vb: VarBuilder) -> Result<Network> {
        Network::new(self.graph()?, vb)
    }

    /// Number of token ids, 0 for a network on frames and in a preset.
    pub fn vocab_size(&self) -> usize {
        self.clone().architecture_mut().vocab_size().map_or(0, |size| *size)
    }

    /// The same model for a vocabulary of this size.
    #[must_use]
    pub fn with_vocab_size(mut self, vocab_size: usize) -> Self {
        if let Some(size) = self.architecture_mut().vocab_size() {
            *size = vocab_size;
        }
        self
    }

    /// Token that ends a document and begins the next, where there is one.
    pub fn end_token(&self) -> Option<u32> {
        self.clone().architecture_mut().end_token().and_then(|id| *id)
    }

    /// The same model with documents that end with this token, or with none.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an architecture that reads a sequence as one document.
    pub fn with_end_token(mut self, id: Option<u32>) -> Result<Self> {
        let found = self.model_type();
        match self.architecture_mut().end_token() {
            Some(end) => *end = id,
            None if id.is_none() => {}
            None => {
                let expected = "an architecture with documents (tcn, wavenet, bytenet)";
                return Err(Error::invalid("model_type", expected, found));
            }
        }
        Ok(self)
    }

    /// The same model for frames of so many channels, and results of so many.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an architecture of other inputs.
    pub fn with_frames(mut self, in_channels: usize, out_channels: usize) -> Result<Self> {
        let found = self.model_type();
        let expected = "a network on frames (temporal_conv_net)";
        let fields = self.architecture_mut().frames();
        let (inputs, outputs) =
            fields.ok_or_else(|| Error::invalid("model_type", expected, found))?;
        (*inputs, *outputs) = (in_channels, Some(out_channels));
        Ok(self)
    }

    /// `true` for a network on frames that can be trained on any.
    pub fn takes_frames(&self) -> bool {
        self.clone().architecture_mut().frames().is_some()
    }

    /// The same model for a tokenizer in which these tokens fill up and are looked for.
    #[must_use]
    pub fn with_mask_tokens(mut self, pad: u32, mask: u32) -> Self {
        self.architecture_mut().set_mask_tokens(pad, mask);
        self
    }

    /// The same model with this probability everywhere that dropping has one.
    #[must_use]
    pub fn with_dropout(mut self, dropout: f64) -> Self {
        self.architecture_mut().set_dropout(dropout);
        self
    }

    /// The same model without weight norm, for weights in which it is folded.
    #[must_use]
    pub fn without_weight_norm(mut self) -> Self {
        self.architecture_mut().fold_weight_norm();
        self
    }

    /// The convolutions that see other steps, for receptive-field arithmetic; of a preset too.
    ///
    /// # Errors
    /// As [`graph`](Self::graph).
    pub fn geometry(&self) -> Result<Stack> {
        self.sized().graph()?.stack()
    }

    /// The same model, of one token or channel where the size of its vocabulary or of its frames is not known yet.
    pub(super) fn sized(&self) -> Self {
        let size = self.vocab_size();
        let mut sized = self.clone().with_vocab_size(size.max(1));
        if let Some((inputs @ 0, _)) = sized.architecture_mut().frames() {
            *inputs = 1;
        }
        if let (0, Some(end)) = (size, sized.architecture_mut().end_token()) {
            *end = None;
        }
        sized
    }

    /// Refuses a network on frames where one on tokens is needed.
    ///
    /// # Errors
    /// [`Error::Invalid`] that says so.
    pub fn expect_tokens(&self) -> Result<()> {
        let takes_tokens = self.clone().architecture_mut().vocab_size().is_some();
        let expected = "a language model (tcn, wavenet); what takes frames instead of tokens runs on tensors alone";
        Error::require(takes_tokens, "model_type", expected, self.model_type())
    }

    /// Refuses what is no masked language model.
    ///
    /// # Errors
    /// [`Error::Invalid`] that says so.
    pub fn require_masked(&self) -> Result<()> {
        self.expect_tokens()?;
        let is_masked = !self.sized().graph()?.is_causal();
        let expected = "a masked language model (carp, bytenet, ConvNet), which sees both sides";
        let found = format!("{}, which predicts the next token", self.model_type());
        Error::require(is_masked, "model", expected, found)
    }

    /// Refuses a masked language model, and a network on frames, where one is needed that predicts the next token.
    ///
    /// # Errors
    /// [`Error::Invalid`] that says so.
    pub fn require_causal(&self) -> Result<()> {
        self.expect_tokens()?;
        let is_causal = self.sized().graph()?.is_causal();
        let expected = "a causal language model, which predicts the next token";
        let found =
            format!("{}, a masked language model, which does not generate", self.model_type());
        Error::require(is_causal, "model", expected, found)
    }
}
