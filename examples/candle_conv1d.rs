//! The character model of `tcn bench train`, trained on candle's own `conv1d` and layers: what a candle
//! user would write without this crate. It exists to compare speed, and prints one JSON object.
//!
//! **Do not train with it.** On the CPU, candle-core 0.11.1 gives a wrong weight gradient of `conv1d`
//! for batches of two rows and more.
//!
//! ```text
//! RAYON_NUM_THREADS=2 cargo run --release --example candle_conv1d -- 3
//! ```

use std::time::Instant;

use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_nn::{Init, VarBuilder, VarMap, loss, ops};

const VOCAB: usize = 50;
const CHANNELS: [usize; 3] = [450, 450, 100];
const KERNEL_SIZE: usize = 3;
const DROPOUT: f32 = 0.1;
const BATCH: usize = 32;
const SEQ_LEN: usize = 400;
const LR: f64 = 0.1;
const CLIP: f64 = 0.15;

/// A causal convolution (batch, channels, time), its weight `g·v / ‖v‖`.
struct Conv {
    v: Tensor,
    g: Tensor,
    bias: Tensor,
    dilation: usize,
}

impl Conv {
    fn new(
        in_channels: usize,
        out_channels: usize,
        dilation: usize,
        vb: VarBuilder,
    ) -> Result<Self> {
        let bound = 1.0 / ((in_channels * KERNEL_SIZE) as f64).sqrt();
        let uniform = Init::Uniform { lo: -bound, up: bound };
        let shape = (out_channels, in_channels, KERNEL_SIZE);
        Ok(Self {
            v: vb.get_with_hints(shape, "v", uniform)?,
            g: vb.get_with_hints((out_channels, 1, 1), "g", Init::Const(0.5))?,
            bias: vb.get_with_hints(out_channels, "bias", uniform)?,
            dilation,
        })
    }

    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let norm = self.v.sqr()?.sum_keepdim((1, 2))?.sqrt()?;
        let weight = self.v.broadcast_mul(&self.g.div(&norm)?)?;
        let padded = xs.pad_with_zeros(D::Minus1, (KERNEL_SIZE - 1) * self.dilation, 0)?;
        let ys = padded.conv1d(&weight, 0, 1, self.dilation, 1)?;
        ys.broadcast_add(&self.bias.reshape((1, (), 1))?)
    }
}

struct Block {
    convs: [Conv; 2],
    /// Weight and bias of the 1×1 convolution on the residual, where widths differ.
    downsample: Option<(Tensor, Tensor)>,
}

impl Block {
    fn new(
        in_channels: usize,
        out_channels: usize,
        dilation: usize,
        vb: VarBuilder,
    ) -> Result<Self> {
        let bound = 1.0 / (in_channels as f64).sqrt();
        let uniform = Init::Uniform { lo: -bound, up: bound };
        let down = vb.pp("downsample");
        let downsample = match in_channels == out_channels {
            true => None,
            false => Some((
                down.get_with_hints((out_channels, in_channels, 1), "weight", uniform)?,
                down.get_with_hints(out_channels, "bias", uniform)?,
            )),
        };
        Ok(Self {
            convs: [
                Conv::new(in_channels, out_channels, dilation, vb.pp("conv1"))?,
                Conv::new(out_channels, out_channels, dilation, vb.pp("conv2"))?,
            ],
            downsample,
        })
    }

    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let mut hs = xs.clone();
        for conv in &self.convs {
            hs = ops::dropout(&conv.forward(&hs)?.relu()?, DROPOUT)?;
        }
        let residual = match &self.downsample {
            None => xs.clone(),
            Some((weight, bias)) => {
                xs.conv1d(weight, 0, 1, 1, 1)?.broadcast_add(&bias.reshape((1, (), 1))?)?
            }
        };
        (hs + residual)?.relu()
    }
}

struct CharTcn {
    /// Embedding and, transposed, the matrix of the softmax.
    embedding: Tensor,
    blocks: Vec<Block>,
    bias: Tensor,
}

impl CharTcn {
    fn new(vb: VarBuilder) -> Result<Self> {
        let width = CHANNELS[CHANNELS.len() - 1];
        let uniform = Init::Uniform { lo: -0.1, up: 0.1 };
        let mut in_channels = width;
        let mut blocks = Vec::new();
        for (level, out_channels) in CHANNELS.into_iter().enumerate() {
            let vb = vb.pp(format!("block{level}"));
            blocks.push(Block::new(in_channels, out_channels, 1 << level, vb)?);
            in_channels = out_channels;
        }
        Ok(Self {
            embedding: vb.get_with_hints((VOCAB, width), "embedding", uniform)?,
            blocks,
            bias: vb.get_with_hints(VOCAB, "bias", Init::Const(0.0))?,
        })
    }

    /// Logits (batch · time, vocabulary) of ids (batch, time).
    fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let (batch, len) = ids.dims2()?;
        let width = self.embedding.dim(1)?;
        let xs = self.embedding.index_select(&ids.flatten_all()?, 0)?;
        let xs = ops::dropout(&xs.reshape((batch, len, width))?, DROPOUT)?;
        let mut hs = xs.transpose(1, 2)?.contiguous()?;
        for block in &self.blocks {
            hs = block.forward(&hs)?;
        }
        let rows = hs.transpose(1, 2)?.reshape((batch * len, width))?;
        rows.matmul(&self.embedding.t()?)?.broadcast_add(&self.bias)
    }
}

/// Forward, loss, backward, clipping, SGD.
fn step(model: &CharTcn, variables: &[Var], ids: &Tensor, targets: &Tensor) -> Result<()> {
    let gradients = loss::cross_entropy(&model.forward(ids)?, targets)?.backward()?;
    let mut square = 0.0;
    for variable in variables {
        if let Some(gradient) = gradients.get(variable) {
            square += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
        }
    }
    let scale = (CLIP / (square.sqrt() + 1e-6)).min(1.0);
    for variable in variables {
        if let Some(gradient) = gradients.get(variable) {
            variable.set(&(variable.as_tensor() - (gradient * (LR * scale))?)?)?;
        }
    }
    Ok(())
}

fn random_ids(count: usize) -> Result<Tensor> {
    Tensor::rand(0f32, VOCAB as f32, count, &Device::Cpu)?
        .clamp(0f32, (VOCAB - 1) as f32)?
        .to_dtype(DType::U32)
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let runs: usize = std::env::args().nth(1).map_or(Ok(3), |runs| runs.parse())?;
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let model = CharTcn::new(vb)?;
    let variables = variables.all_vars();
    let ids = random_ids(BATCH * SEQ_LEN)?.reshape((BATCH, SEQ_LEN))?;
    let targets = random_ids(BATCH * SEQ_LEN)?;

    step(&model, &variables, &ids, &targets)?;
    let mut times = Vec::new();
    for _ in 0..runs.max(1) {
        let start = Instant::now();
        step(&model, &variables, &ids, &targets)?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let result = serde_json::json!({
        "what": "candle conv1d train",
        "tokens_per_s": (BATCH * SEQ_LEN) as f64 / times[times.len() / 2],
        "parameters": variables.iter().map(|v| v.elem_count()).sum::<usize>(),
        "threads": candle_core::utils::get_num_threads(),
    });
    println!("{result}");
    Ok(())
}
