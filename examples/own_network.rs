//! A network of one's own, written once as a graph: trained, loaded, generated from step by step, its state saved.
//!
//! ```text
//! cargo run --release --example own_network -- FOLDER 300
//! ```

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use candle_tcn::files::{names, weights};
use candle_tcn::generate::{GenerateConfig, Generator};
use candle_tcn::graph::{Conv1dConfig, EmbedConfig, Graph, Network};
use candle_tcn::nn::{Activation, Gate, NormKind, StepDtype};
use candle_tcn::text::{Tokenizer, TokenizerSpec};
use candle_tcn::train::{Budget, RunDir, TrainConfig, Trainer, ValidSet, loss::CrossEntropy};

const WIDTH: usize = 64;

/// Dilated gated blocks with squeeze-and-excite over the channels of each step.
fn network(vocab_size: usize) -> candle_tcn::Result<Graph> {
    let mut g = Graph::new();
    let ids = g.tokens(vocab_size)?;
    let mut xs = g.embed("embedding", ids, WIDTH, EmbedConfig::default())?;
    for (i, dilation) in [1, 2, 4, 8].into_iter().enumerate() {
        xs = g.scope(format!("blocks.{i}"), |g| {
            let hs = g.norm("norm", xs, NormKind::Rms)?;
            let cfg = Conv1dConfig { dilation, ..Conv1dConfig::causal() };
            let hs = g.conv1d("conv", hs, 2 * WIDTH, 3, cfg)?;
            let hs = g.gate(hs, Gate::TanhSigmoid)?;
            let weights = g.linear("squeeze", hs, WIDTH / 4)?;
            let weights = g.activate(weights, Activation::Relu)?;
            let weights = g.linear("excite", weights, WIDTH)?;
            let weights = g.activate(weights, Activation::Sigmoid)?;
            let hs = g.multiply(hs, weights)?;
            g.add(xs, hs)
        })?;
    }
    let logits = g.linear("head", xs, vocab_size)?;
    g.output_logits(logits)?;
    Ok(g)
}

fn train(folder: &str, steps: usize) -> candle_tcn::Result<()> {
    let text = include_bytes!("../README.md");
    let tokenizer = Tokenizer::from_spec(&TokenizerSpec::Byte, text)?;
    let graph = network(tokenizer.vocab_size())?;
    println!("receptive field {}", graph.stack()?.receptive_field()?.total);
    let run = RunDir::create(folder, 1)?;
    tokenizer.save(run.join(names::TOKENIZER))?;
    let config = TrainConfig { budget: Budget::Steps(steps), ..TrainConfig::default() };
    let batches = config.lay_out(tokenizer.encode_bytes(text)?)?;
    let json = r#"{"model_type": "my_network"}"#;
    let mut trainer =
        Trainer::of_graph(config, graph, json, batches, CrossEntropy::default(), run)?;
    trainer.run(&ValidSet::default(), &mut ())?;
    Ok(())
}

/// Trains, loads, generates.
pub fn run(folder: &str, steps: usize) -> candle_tcn::Result<()> {
    train(folder, steps)?;
    let path = |name: &str| std::path::Path::new(folder).join(name);
    let tokenizer = Tokenizer::from_file(path(names::TOKENIZER))?;
    let tensors = weights::read(path(names::WEIGHTS))?.tensors;
    let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let stepper = Network::new(network(tokenizer.vocab_size())?, vb)?.stepper(StepDtype::Bf16)?;
    let mut generator = Generator::new(&stepper, &tokenizer, GenerateConfig::default())?;
    generator.read("## ")?;
    println!("## {}", generator.text(0)?);
    generator.save_state(path("state.safetensors"))?;
    generator.load_state(path("state.safetensors"))
}

fn main() -> candle_tcn::Result<()> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().unwrap_or_else(|| "own_network".into());
    let steps = args.next().and_then(|steps| steps.parse().ok()).unwrap_or(300);
    run(&folder, steps)
}
