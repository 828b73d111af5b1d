//! Any model on named tensors.

use std::collections::HashMap;

use candle_core::{DType, Tensor};

use super::{FrameLayout, ModelConfig};
use crate::graph::{Input, Network, Run, State};
use crate::{Error, Result};

/// Names of the input in a file of tensors.
const INPUT: [&str; 2] = ["input", "input_ids"];
/// Names of the mask.
const MASK: [&str; 3] = ["mask", "attention_mask", "input_mask"];
/// Name of the result.
const OUTPUT: &str = "output";

/// Options of [`run`].
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Give the sequences to the model in pieces of so many steps, each of which continues the one before.
    pub chunk: Option<usize>,
    /// Names of the intermediates to keep, `hidden.0`, `hidden.1` and so on (see [`Run::recording`]);
    /// `all` for each of them.
    pub record: Vec<String>,
    /// Do not look at a mask.
    pub no_mask: bool,
    /// Compute in bf16.
    pub bf16: bool,
}

/// Applies a model to named tensors, as they stand in a file: the result is `output`, beside it what is
/// recorded.
///
/// `input` (or `input_ids`) is token ids (batch, time) of any integer type, or frames in the layout that the
/// configuration names. `mask` (or `attention_mask`, `input_mask`), (batch, time) of 0 and 1, hides steps of
/// models that know masks. `embedding.0`, `embedding.1`, … are conditioning inputs, (batch, channels) or, for
/// both layouts and as pytorch-tcn takes them, (batch, channels, time). Other tensors are not looked at.
///
/// # Shapes
/// Tokens give (batch, time, vocab), frames the layout that they came in; intermediates are (batch, time,
/// channels).
///
/// # Errors
/// [`Error::Tensor`] for an input that is missing or of another shape; [`Error::Invalid`] for a chunk of 0
/// steps, where the model is not causal and a chunk is given, or for an intermediate that the model does not
/// have; those of the model.
///
/// # Example
///
/// ```
/// use std::collections::HashMap;
/// use candle_core::{DType, Device, Tensor};
/// use candle_tcn::models::{Network, ModelConfig, RunOptions, run};
/// use candle_tcn::nn::Params;
///
/// let json = r#"{"model_type": "pytorch_tcn", "num_inputs": 3, "num_channels": [8, 8]}"#;
/// let config = ModelConfig::from_json(json, "config.json")?;
/// let model = config.build(Params::new(1, DType::F32, &Device::Cpu).builder())?;
/// let xs = Tensor::rand(0f32, 1., (1, 3, 20), &Device::Cpu)?; // pytorch-tcn's NCL
/// let inputs = HashMap::from([("input".to_string(), xs)]);
/// let whole = run(&model, &config, &inputs, &RunOptions::default())?;
/// assert_eq!(whole["output"].dims(), [1, 8, 20]);
/// let options = RunOptions { chunk: Some(7), ..Default::default() };
/// let pieces = run(&model, &config, &inputs, &options)?;
/// let difference = (&whole["output"] - &pieces["output"])?.abs()?.max_all()?;
/// assert!(difference.to_scalar::<f32>()? < 1e-5);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn run(
    model: &Network,
    config: &ModelConfig,
    inputs: &HashMap<String, Tensor>,
    options: &RunOptions,
) -> Result<HashMap<String, Tensor>> {
    let input = named(inputs, &INPUT);
    let input =
        input.ok_or_else(|| Error::tensor(INPUT[0], "the model's input", "no such tensor"))?;
    let layout = config.architecture().layout();
    let xs = match model.graph().inputs().next() {
        Some(&Input::Tokens { vocab_size, .. }) => tokens(input, vocab_size)?,
        Some(&Input::Frames { channels }) => frames(input, channels, layout)?,
        other => return Err(unfit(input, format!("{other:?}"))),
    };
    let given = Given {
        model,
        embeddings: embeddings(inputs, xs.dim(1)?)?,
        mask: named(inputs, &MASK).filter(|_| !options.no_mask).cloned(),
        xs,
        options,
    };
    let mut results = given.results()?;
    for name in options.record.iter().filter(|name| *name != ALL) {
        if !results.contains_key(name) {
            let known = results.keys().map(String::as_str).filter(|name| *name != OUTPUT);
            let mut known: Vec<_> = known.collect();
            if known.is_empty() {
                known = model.graph().labels().collect();
            }
            known.sort();
            let expected = format!("an intermediate of this model ({})", known.join(", "));
            return Err(Error::invalid("record", expected, name));
        }
    }
    if let Some(output) = results.get_mut(OUTPUT) {
        *output = turned(output, layout)?;
    }
    Ok(results)
}

/// Records every intermediate.
const ALL: &str = "all";

fn named<'a>(inputs: &'a HashMap<String, Tensor>, names: &[&str]) -> Option<&'a Tensor> {
    names.iter().find_map(|name| inputs.get(*name))
}

/// A model and what it is applied to.
struct Given<'a> {
    model: &'a Network,
    xs: Tensor,
    embeddings: Vec<Tensor>,
    mask: Option<Tensor>,
    options: &'a RunOptions,
}

impl Given<'_> {
    /// The results of some steps.
    fn forward(
        &self,
        start: usize,
        len: usize,
        state: Option<&mut State>,
    ) -> Result<HashMap<String, Tensor>> {
        let piece = |embedding: &Tensor| match embedding.rank() {
            3 => embedding.narrow(1, start, len),
            _ => Ok(embedding.clone()),
        };
        let embeddings =
            self.embeddings.iter().map(piece).collect::<candle_core::Result<Vec<_>>>()?;
        let wanted = |name: &str| self.options.record.iter().any(|r| r == name || r == ALL);
        let mut run = Run::eval().recording(wanted);
        if let Some(mask) = &self.mask {
            let expected = &self.xs.dims()[..2];
            if mask.dims() != expected {
                let expected = format!("(batch, time) as the input, {expected:?}");
                return Err(Error::tensor(MASK[0], expected, format!("{:?}", mask.dims())));
            }
            run = run.with_mask(&mask.narrow(1, start, len)?)?;
        }
        if let Some(state) = state {
            run = run.with_state(state);
        }
        if self.options.bf16 {
            run = run.with_dtype(DType::BF16);
        }
        let xs = self.xs.narrow(1, start, len)?;
        let inputs: Vec<_> = [&xs].into_iter().chain(&embeddings).collect();
        let outputs = self.model.run(&inputs, run)?;
        let output = outputs.values.into_iter().take(1).map(|output| (OUTPUT.to_string(), output));
        let results = outputs.recorded.into_iter().chain(output);
        results.map(|(name, tensor)| Ok((name, tensor.to_dtype(DType::F32)?))).collect()
    }

    /// The results of all steps, at once or in pieces.
    fn results(&self) -> Result<HashMap<String, Tensor>> {
        let (batch, time) = (self.xs.dim(0)?, self.xs.dim(1)?);
        let chunk = self.options.chunk.unwrap_or(time);
        Error::require(chunk > 0, "chunk", "at least 1 step", chunk)?;
        let state = self.options.chunk.map(|_| self.model.init_state(batch));
        let mut state = state.transpose()?;
        let mut pieces: HashMap<String, Vec<Tensor>> = HashMap::new();
        for start in (0..time).step_by(chunk) {
            let len = chunk.min(time - start);
            for (name, piece) in self.forward(start, len, state.as_mut())? {
                pieces.entry(name).or_default().push(piece);
            }
        }
        let join = |(name, pieces): (String, Vec<Tensor>)| Ok((name, Tensor::cat(&pieces, 1)?));
        pieces.into_iter().map(join).collect()
    }
}

/// Frames of one layout in the other; those with the channels last as they are.
fn turned(xs: &Tensor, layout: FrameLayout) -> Result<Tensor> {
    Ok(match layout {
        FrameLayout::ChannelsLast => xs.clone(),
        FrameLayout::ChannelsFirst => xs.transpose(1, 2)?.contiguous()?,
    })
}

fn unfit(input: &Tensor, expected: String) -> Error {
    let found = format!("{:?} of {}", input.dims(), input.dtype().as_str());
    Error::tensor(INPUT[0], expected, found)
}

fn tokens(input: &Tensor, vocab_size: usize) -> Result<Tensor> {
    if input.dtype().is_float() || input.rank() != 2 || input.elem_count() == 0 {
        let expected = format!("token ids (batch, time) of an integer type, below {vocab_size}");
        return Err(unfit(input, expected));
    }
    // before the cast, which would wrap what does not fit
    let ids = input.flatten_all()?.to_dtype(DType::I64)?.to_vec1::<i64>()?;
    let fits = |id: &i64| usize::try_from(*id).is_ok_and(|id| id < vocab_size);
    match ids.iter().find(|id| !fits(id)) {
        None => Ok(input.to_dtype(DType::U32)?),
        Some(id) => {
            Err(Error::tensor(INPUT[0], format!("token ids from 0 to {}", vocab_size - 1), id))
        }
    }
}

fn frames(input: &Tensor, channels: usize, layout: FrameLayout) -> Result<Tensor> {
    let (axis, axes) = match layout {
        FrameLayout::ChannelsFirst => (1, format!("{channels} channels, time")),
        FrameLayout::ChannelsLast => (2, format!("time, {channels} channels")),
    };
    let fits = input.rank() == 3 && input.dims()[axis] == channels && input.elem_count() > 0;
    if !fits || !input.dtype().is_float() {
        let of = "of a floating-point type, as input_shape says";
        return Err(unfit(input, format!("frames (batch, {axes}) {of}")));
    }
    turned(&input.to_dtype(DType::F32)?, layout)
}

/// `embedding.0`, … as a pass over `time` steps takes them.
fn embeddings(inputs: &HashMap<String, Tensor>, time: usize) -> Result<Vec<Tensor>> {
    let name = |i: usize| format!("embedding.{i}");
    let named = (0..).map_while(|i| inputs.get(&name(i))).enumerate();
    let rows = named.map(|(i, embedding)| match embedding.dims() {
        [_, _] => Ok(embedding.to_dtype(DType::F32)?),
        [_, _, steps] if *steps == time => {
            turned(&embedding.to_dtype(DType::F32)?, FrameLayout::ChannelsFirst)
        }
        other => {
            let expected =
                format!("(batch, channels) or (batch, channels, {time} steps as the input)");
            Err(Error::tensor(name(i), expected, format!("{other:?}")))
        }
    });
    rows.collect()
}
