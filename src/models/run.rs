//! Any model on named tensors.

use std::collections::HashMap;

use candle_core::{DType, Tensor};

use super::{FrameLayout, Input, Model, ModelConfig};
use crate::nn::Pass;
use crate::{Error, Result};

/// The name of the input in a file of tensors.
const INPUT: &str = "input";

/// Applies a model to named tensors, as they stand in a file.
///
/// `input` is token ids (batch, time) of any integer type, or frames in the layout that the configuration
/// names. `embedding.0`, `embedding.1`, … are conditioning inputs, (batch, channels) or, for both layouts
/// and as pytorch-tcn takes them, (batch, channels, time). Other tensors are not looked at.
///
/// With `chunk` the sequences are given to the model in pieces of so many steps, each of which continues
/// the one before; the results are put together.
///
/// # Shapes
/// Tokens give (batch, time, vocab), frames the layout that they came in.
///
/// # Errors
/// [`Error::Tensor`] for an input that is missing or of another shape; [`Error::Invalid`] for a chunk of 0
/// steps, or where the model is not causal and a chunk is given; those of the model.
///
/// # Example
///
/// ```
/// use std::collections::HashMap;
/// use candle_core::{DType, Device, Tensor};
/// use candle_tcn::models::{Model, ModelConfig, run};
/// use candle_tcn::nn::Params;
///
/// let json = r#"{"model_type": "pytorch_tcn", "num_inputs": 3, "num_channels": [8, 8]}"#;
/// let config = ModelConfig::from_json(json, "config.json")?;
/// let model = Model::new(&config, Params::new(1, DType::F32, &Device::Cpu).builder())?;
/// let xs = Tensor::rand(0f32, 1., (1, 3, 20), &Device::Cpu)?; // pytorch-tcn's NCL
/// let inputs = HashMap::from([("input".to_string(), xs)]);
/// let whole = run(&model, &config, &inputs, None)?;
/// assert_eq!(whole.dims(), [1, 8, 20]);
/// let pieces = run(&model, &config, &inputs, Some(7))?;
/// assert!((whole - pieces)?.abs()?.max_all()?.to_scalar::<f32>()? < 1e-5);
/// # Ok::<(), candle_tcn::Error>(())
/// ```
pub fn run(
    model: &Model,
    config: &ModelConfig,
    inputs: &HashMap<String, Tensor>,
    chunk: Option<usize>,
) -> Result<Tensor> {
    let input = inputs.get(INPUT).ok_or_else(|| Error::Tensor {
        name: INPUT.into(),
        expected: "the model's input".into(),
        found: "no such tensor".into(),
    })?;
    let layout = match config.input() {
        Input::Tokens { .. } => FrameLayout::ChannelsLast,
        Input::Frames { layout, .. } => layout,
    };
    let xs = match config.input() {
        Input::Tokens { vocab_size } => tokens(input, vocab_size)?,
        Input::Frames { channels, .. } => frames(input, channels, layout)?,
    };
    let embeddings = embeddings(inputs, xs.dim(1)?)?;
    let ys = match chunk {
        None => model.forward(&xs, &mut Pass::eval().with_embeddings(&embeddings))?,
        Some(chunk) => in_chunks(model, &xs, &embeddings, chunk)?,
    };
    Ok(match layout {
        FrameLayout::ChannelsLast => ys,
        FrameLayout::ChannelsFirst => ys.transpose(1, 2)?.contiguous()?,
    })
}

fn unfit(input: &Tensor, expected: String) -> Error {
    Error::Tensor {
        name: INPUT.into(),
        expected,
        found: format!("{:?} of {}", input.dims(), input.dtype().as_str()),
    }
}

fn tokens(input: &Tensor, vocab_size: usize) -> Result<Tensor> {
    if input.dtype().is_float() || input.rank() != 2 || input.elem_count() == 0 {
        let expected = format!("token ids (batch, time) of an integer type, below {vocab_size}");
        return Err(unfit(input, expected));
    }
    Ok(input.to_dtype(DType::U32)?)
}

fn frames(input: &Tensor, channels: usize, layout: FrameLayout) -> Result<Tensor> {
    let (axis, expected) = match layout {
        FrameLayout::ChannelsFirst => (1, format!("frames (batch, {channels} channels, time)")),
        FrameLayout::ChannelsLast => (2, format!("frames (batch, time, {channels} channels)")),
    };
    let fits = input.rank() == 3 && input.dims()[axis] == channels && input.elem_count() > 0;
    if !fits || !input.dtype().is_float() {
        let expected = format!("{expected} of a floating-point type, as input_shape says");
        return Err(unfit(input, expected));
    }
    let xs = input.to_dtype(DType::F32)?;
    Ok(match layout {
        FrameLayout::ChannelsLast => xs,
        FrameLayout::ChannelsFirst => xs.transpose(1, 2)?.contiguous()?,
    })
}

/// `embedding.0`, … as a pass over `time` steps takes them.
fn embeddings(inputs: &HashMap<String, Tensor>, time: usize) -> Result<Vec<Tensor>> {
    let name = |i: usize| format!("embedding.{i}");
    let named = (0..).map_while(|i| inputs.get(&name(i))).enumerate();
    let rows = named.map(|(i, embedding)| match embedding.dims() {
        [_, _] => Ok(embedding.to_dtype(DType::F32)?),
        [_, _, steps] if *steps == time => Ok(embedding
            .to_dtype(DType::F32)?
            .transpose(1, 2)?
            .contiguous()?),
        other => Err(Error::Tensor {
            name: name(i),
            expected: format!("(batch, channels) or (batch, channels, {time} steps as the input)"),
            found: format!("{other:?}"),
        }),
    });
    rows.collect()
}

fn in_chunks(model: &Model, xs: &Tensor, embeddings: &[Tensor], chunk: usize) -> Result<Tensor> {
    if chunk == 0 {
        return Err(Error::invalid("chunk", "at least 1 step", chunk));
    }
    let (batch, time) = (xs.dim(0)?, xs.dim(1)?);
    let mut state = model.init_state(batch)?;
    let mut pieces = Vec::new();
    for start in (0..time).step_by(chunk) {
        let len = chunk.min(time - start);
        let piece = |embedding: &Tensor| match embedding.rank() {
            3 => embedding.narrow(1, start, len),
            _ => Ok(embedding.clone()),
        };
        let embeddings = embeddings.iter().map(piece);
        let embeddings = embeddings.collect::<candle_core::Result<Vec<_>>>()?;
        let pass = Pass::eval().with_state(&mut state);
        let xs = xs.narrow(1, start, len)?;
        pieces.push(model.forward(&xs, &mut pass.with_embeddings(&embeddings))?);
    }
    Ok(Tensor::cat(&pieces, 1)?)
}
