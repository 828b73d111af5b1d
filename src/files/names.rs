//! Names of the files of a model directory and of a training run, and the most bytes that each may have.

/// Configuration of a model, with its `model_type`.
pub const CONFIG: &str = "config.json";
/// Weights as this crate writes them.
pub const WEIGHTS: &str = "model.safetensors";
/// Tokenizer, as the `tokenizers` library has it.
pub const TOKENIZER: &str = "tokenizer.json";
/// Settings of a tokenizer beside [`VOCABULARY`]; kept for Python, not read.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Vocabulary, one token a line, where there is no [`TOKENIZER`].
pub const VOCABULARY: &str = "vocab.txt";
/// Question that a network of series answers, and how columns become its inputs.
pub const TASK: &str = "task.json";
/// Model card.
pub const CARD: &str = "README.md";
/// Command and data that a run was started with.
pub const RUN: &str = "run.json";
/// Figures of a run, one JSON object a line.
pub const METRICS: &str = "metrics.jsonl";
/// Loss curve of a run.
pub const LOSS_CURVE: &str = "loss.svg";
/// Forecasts of a run beside what came.
pub const FORECAST: &str = "forecast.svg";
/// Classes of a run beside what was said of them.
pub const CONFUSION: &str = "confusion.svg";
/// Folder of a run's checkpoints, which are models too.
pub const CHECKPOINTS: &str = "checkpoints";

/// Loop, schedule and counters of a checkpoint.
pub const TRAINER: &str = "trainer.json";
/// State of the optimizer of a checkpoint.
pub const OPTIMIZER: &str = "optimizer.safetensors";
/// Streaming state of a checkpoint.
pub const STATE: &str = "state.safetensors";
/// SHA-256 of the other files of a checkpoint, as `sha256sum` writes and checks it.
pub const SUMS: &str = "SHA256SUMS";

/// Files that a model directory may keep its weights in, in the order in which they are looked for.
pub const WEIGHTS_FILES: [&str; 4] =
    [WEIGHTS, "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];

/// Files of a run beside its checkpoints.
pub const RUN_FILES: [&str; 10] =
    [CONFIG, WEIGHTS, TOKENIZER, TASK, METRICS, LOSS_CURVE, FORECAST, CONFUSION, CARD, RUN];

/// A configuration, or the arguments of a network: a few hundred bytes.
pub const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// The largest tokenizers that are published, of a quarter of a million tokens, take about 30 MB.
pub const MAX_TOKENIZER_BYTES: u64 = 1 << 26;
/// A vocabulary of one token a line.
pub const MAX_VOCABULARY_BYTES: u64 = 1 << 25;
/// Header of a safetensors file: about a hundred bytes for each tensor.
pub const MAX_HEADER_BYTES: u64 = 1 << 22;
/// Index of shards: about a hundred bytes for each tensor.
pub const MAX_INDEX_BYTES: u64 = 1 << 22;
/// Pickle of a PyTorch archive: about two hundred bytes for each tensor.
pub const MAX_PICKLE_BYTES: u64 = 1 << 24;
/// Table of contents of a PyTorch archive: about eighty bytes for each storage.
pub const MAX_ZIP_DIRECTORY_BYTES: u64 = 1 << 23;
