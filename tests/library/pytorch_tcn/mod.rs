//! pytorch-tcn's networks and layers (tests/fixtures/pytorch_tcn, pytorch_tcn_options): outputs, every
//! gradient, streams chunk by chunk and batch statistics, from their own state dicts and arguments.

mod errors;

use crate::common;
use crate::common::{Tensors, Tolerance, UnderTest, max_abs, output, under};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;
use candle_tcn::files::{names, write_tensors};
use candle_tcn::graph::Run;
use candle_tcn::models::{Converted, FrameLayout, ModelConfig, Network, RunOptions, convert, run};
use candle_tcn::nn::Params;
use candle_tcn::{LoadedModel, Result};
use serde_json::Value;

/// The shared cases, one folder each.
const FOLDERS: [&str; 9] = [
    "batch_norm_skip",
    "conv_depthwise_causal",
    "conv_groups_causal",
    "conv_pad_reflect_causal",
    "conv_pad_replicate_causal",
    "conv_stride2_noncausal",
    "gate_embed_concat_proj",
    "noncausal_even_kernel_skip",
    "weight_norm_causal",
];

/// Stored in f32.
const F64: f64 = 1e-6;
const F32: f64 = 1e-5;

struct Golden {
    name: String,
    arguments: Value,
    state: Tensors,
    io: Tensors,
}

fn golden() -> Vec<Golden> {
    let folders = FOLDERS.map(|name| Golden {
        name: name.into(),
        arguments: common::json(&format!("pytorch_tcn/{name}/config")),
        state: common::tensors(&format!("pytorch_tcn/{name}/state_dict")),
        io: common::tensors(&format!("pytorch_tcn/{name}/io")),
    });
    let tensors = common::tensors("pytorch_tcn_options");
    let options: Vec<Value> = common::json("pytorch_tcn_options");
    let options = options.into_iter().map(|arguments| {
        let name = arguments["name"].as_str().expect("fixture").to_string();
        let mut io = under(&format!("{name}."), &tensors);
        let state = under("state.", &io);
        io.retain(|name, _| !name.starts_with("state."));
        Golden { name, arguments, state, io }
    });
    folders.into_iter().chain(options).collect()
}

/// As [`common::assert_close`], but with an absolute part that does not shrink with the numbers.
fn assert_close(what: &str, found: &Tensor, expected: &Tensor, tolerance: f64) -> Result<()> {
    let tolerance = Tolerance { atol: tolerance, rtol: tolerance };
    common::assert_within(what, found, expected, tolerance)
}

fn weight_norm_names(name: &str) -> String {
    name.replace("parametrizations.weight.original0", "weight_g")
        .replace("parametrizations.weight.original1", "weight_v")
}

impl Golden {
    fn convert(&self) -> Result<Converted> {
        let converted = convert(self.state.clone(), Some(&self.arguments))?;
        assert!(converted.left_over.is_empty(), "{}: {:?}", self.name, converted.left_over);
        assert!(converted.missing.is_empty(), "{}: {:?}", self.name, converted.missing);
        // and the configuration survives its file
        let json = converted.config.to_json()?;
        assert_eq!(ModelConfig::from_json(&json, &self.name)?, converted.config);
        Ok(converted)
    }

    /// A tensor in the file's layout as (batch, time, channels), or the other way round.
    fn turned(&self, config: &ModelConfig, tensor: &Tensor) -> Result<Tensor> {
        Ok(match config.architecture().layout() {
            FrameLayout::ChannelsFirst => tensor.transpose(1, 2)?.contiguous()?,
            FrameLayout::ChannelsLast => tensor.clone(),
        })
    }

    fn io(&self, config: &ModelConfig, name: &str, dtype: DType) -> Result<Tensor> {
        self.turned(config, &self.io[name].to_dtype(dtype)?)
    }

    /// The conditioning inputs, as a run takes them.
    fn embeddings(&self, dtype: DType) -> Result<Vec<Tensor>> {
        let named = (0..).map_while(|i| self.io.get(&format!("embedding.{i}")));
        let turn = |embedding: &Tensor| rows(&embedding.to_dtype(dtype)?);
        named.map(turn).collect()
    }

    fn blocks(&self) -> Vec<usize> {
        let blocks = self.arguments["streaming_blocks"].as_array();
        let size = |block: &Value| block.as_u64().expect("fixture") as usize;
        blocks.map_or(Vec::new(), |blocks| blocks.iter().map(size).collect())
    }

    fn frozen(&self) -> Result<(ModelConfig, Network)> {
        let Converted { config, tensors, .. } = self.convert()?;
        let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let model = config.build(vb)?.under_test().freeze()?;
        Ok((config, model))
    }
}

/// The output for `xs` with conditioning inputs.
fn conditioned(model: &Network, xs: &Tensor, embeddings: &[Tensor], run: Run) -> Result<Tensor> {
    let inputs: Vec<_> = [xs].into_iter().chain(embeddings).collect();
    model.run(&inputs, run)?.into_first()
}

/// An embedding (batch, channels, time) as (batch, time, channels).
fn rows(embedding: &Tensor) -> Result<Tensor> {
    Ok(match embedding.rank() {
        3 => embedding.transpose(1, 2)?.contiguous()?,
        _ => embedding.clone(),
    })
}

#[test]
fn outputs_and_every_gradient() -> Result<()> {
    for golden in golden() {
        let Converted { config, tensors, .. } = golden.convert()?;
        for (dtype, tolerance) in [(DType::F64, F64), (DType::F32, F32)] {
            let what = format!("{} {dtype:?}", golden.name);
            let params = Params::new(0, dtype, &Device::Cpu);
            let model = config.build(params.builder())?.under_test();
            common::load(&params, &tensors)?;
            let xs = Var::from_tensor(&golden.io(&config, "input", dtype)?)?;
            let embeddings = golden.embeddings(dtype)?;
            let leaves = embeddings.iter().map(Var::from_tensor);
            let leaves = leaves.collect::<candle_core::Result<Vec<_>>>()?;
            let given: Vec<Tensor> = leaves.iter().map(|leaf| leaf.as_tensor().clone()).collect();
            let ys = conditioned(&model, &xs, &given, Run::eval())?;
            assert_close(&what, &ys, &golden.io(&config, "output", dtype)?, tolerance)?;

            let coefficients = match golden.io.contains_key("loss_coef") {
                true => "loss_coef",
                false => "grad_output",
            };
            let loss = (ys * golden.io(&config, coefficients, dtype)?)?.sum_all()?;
            let grads = loss.backward()?;
            let mut expected = under("grad.", &golden.io);
            let mut check = |name: &str, var: &Var, turn: &dyn Fn(&Tensor) -> Result<Tensor>| {
                let what = format!("{what} grad {name}");
                match (grads.get(var), expected.remove(name)) {
                    (None, None) => Ok(()),
                    (Some(found), Some(expected)) => {
                        assert_close(&what, found, &turn(&expected)?, tolerance)
                    }
                    (found, _) => panic!("{what}: found {}", found.is_some()),
                }
            };
            check("input", &xs, &|t| golden.turned(&config, t))?;
            for (i, leaf) in leaves.iter().enumerate() {
                // the shared cases do not have them
                if golden.io.contains_key(&format!("grad.embedding.{i}")) {
                    check(&format!("embedding.{i}"), leaf, &rows)?;
                }
            }
            let names = under("grad.", &golden.io).into_keys();
            let names: Vec<_> = names.map(|name| (weight_norm_names(&name), name)).collect();
            for (name, var) in params.trainable() {
                let theirs = names.iter().find(|(ours, _)| *ours == name);
                let theirs = theirs.map_or(&name, |(_, theirs)| theirs);
                check(theirs, &var, &|t| Ok(t.clone()))?;
            }
            assert!(expected.is_empty(), "{what}: {:?}", expected.keys());
        }
    }
    Ok(())
}

#[test]
fn files_of_tensors_in_their_own_layout() -> Result<()> {
    for golden in golden() {
        let (config, model) = golden.frozen()?;
        let ys = output(&model, &config, &golden.io, None)?;
        assert_close(&golden.name, &ys, &golden.io["output"], F32)?;
    }
    Ok(())
}

#[test]
fn streams_chunk_by_chunk() -> Result<()> {
    let mut streamed = 0;
    for golden in golden() {
        let (config, model) = golden.frozen()?;
        let blocks = golden.blocks();
        if blocks.is_empty() || !golden.io.contains_key("streaming_output") {
            continue;
        }
        let xs = golden.io(&config, "input", DType::F32)?;
        let expected = golden.io(&config, "streaming_output", DType::F32)?;
        let embeddings = golden.embeddings(DType::F32)?;
        // as there, each sequence by itself; the layers' shared cases have the first only
        let mut buffers = Vec::new();
        for row in 0..expected.dim(0)? {
            let of_row = |t: &Tensor| t.narrow(0, row, 1);
            let embeddings =
                embeddings.iter().map(of_row).collect::<candle_core::Result<Vec<_>>>()?;
            let mut state = model.init_state(1)?;
            let mut pieces = Vec::new();
            let mut start = 0;
            for &len in &blocks {
                let piece = |t: &Tensor| match t.rank() {
                    3 => t.narrow(1, start, len),
                    _ => Ok(t.clone()),
                };
                let embeddings =
                    embeddings.iter().map(piece).collect::<candle_core::Result<Vec<_>>>()?;
                let run = Run::eval().with_state(&mut state);
                pieces.push(conditioned(&model, &piece(&of_row(&xs)?)?, &embeddings, run)?);
                start += len;
            }
            let what = format!("{} row {row}", golden.name);
            assert_close(&what, &Tensor::cat(&pieces, 1)?, &of_row(&expected)?, F32)?;
            buffers = state.tensors()?;
        }
        let finals = under("streaming_final_buffer.", &golden.io);
        if !finals.is_empty() {
            assert_eq!(finals.len(), buffers.len(), "{}", golden.name);
            for (i, buffer) in buffers.iter().enumerate() {
                let name = format!("network.{}.conv{}.padder.buffer", i / 2, i % 2 + 1);
                assert_close(&name, buffer, &rows(&finals[&name])?, F32)?;
            }
        }
        streamed += 1;
    }
    assert!(streamed > 60, "{streamed} cases stream");
    Ok(())
}

#[test]
fn whole_batches_and_single_taps_stream_too() -> Result<()> {
    for golden in golden() {
        let (config, model) = golden.frozen()?;
        let kwargs = &golden.arguments["kwargs"];
        let zeros = kwargs["padding_mode"].as_str().is_none_or(|mode| mode == "zeros");
        // a piece begins a stride of its own
        let stride = match config.model_type() {
            "temporal_conv1d" => kwargs["stride"].as_u64().unwrap_or(1) as usize,
            _ => 1,
        };
        if !config.graph()?.is_causal() {
            assert_eq!(config.graph()?.state_bytes(1)?, 0);
            // a single tap sees no later input whatever the option says
            if kwargs["kernel_size"] != 1 {
                let error = message(output(&model, &config, &golden.io, Some(3)));
                assert!(error.contains("causal"), "{error}");
            }
            continue;
        }
        let expected = match golden.io.get("streaming_output") {
            Some(streamed) if !zeros && stride == 1 => streamed,
            _ if zeros => &golden.io["output"],
            _ => continue,
        };
        for chunk in [1, 2, 5] {
            let ys = output(&model, &config, &golden.io, Some(chunk * stride))?;
            let what = format!("{} in chunks of {chunk}", golden.name);
            assert_close(&what, &ys, expected, F32)?;
        }
        let floats: usize = model.init_state(1)?.shapes().iter().map(|s| s.span * s.channels).sum();
        assert_eq!(config.graph()?.state_bytes(1)?, 4 * floats);
    }
    Ok(())
}

#[test]
fn batch_statistics_of_a_training_step() -> Result<()> {
    let mut trained = 0;
    for golden in golden() {
        let Converted { config, tensors, .. } = golden.convert()?;
        let Some(expected) = golden.io.get("train_output") else {
            continue;
        };
        let config = config.with_dropout(0.0);
        let params = Params::new(0, DType::F64, &Device::Cpu);
        let model = config.build(params.builder())?.under_test();
        common::load(&params, &tensors)?;
        let xs = golden.io(&config, "input", DType::F64)?;
        let embeddings = golden.embeddings(DType::F64)?;
        let ys = conditioned(&model, &xs, &embeddings, Run::train(1, 1))?;
        assert_close(&golden.name, &ys, &golden.turned(&config, expected)?, F64)?;
        let mut updated = under("train_updated.", &golden.io);
        updated.extend(under("train.", &golden.io));
        let now = params.snapshot()?;
        for (name, expected) in &updated {
            assert_close(&format!("{} {name}", golden.name), &now[name], expected, F64)?;
        }
        assert_eq!(updated.len(), 4 * now.keys().filter(|n| n.ends_with("norm1.bias")).count());
        trained += 1;
    }
    assert_eq!(trained, 5);
    Ok(())
}

fn message<T>(result: Result<T>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn the_outputs_of_all_blocks_can_be_recorded() -> Result<()> {
    let json = r#"{"model_type": "pytorch_tcn", "num_inputs": 3, "num_channels": [4, 5, 6], "kernel_size": 2,
        "use_skip_connections": false}"#;
    let config = ModelConfig::from_json(json, "config.json")?;
    let model = config.build(Params::new(1, DType::F32, &Device::Cpu).builder())?.under_test();
    let input = Tensor::rand(-1f32, 1., (2, 3, 9), &Device::Cpu)?;
    let inputs = Tensors::from([("input".to_string(), input.clone())]);
    for chunk in [None, Some(4)] {
        let options = RunOptions { record: vec!["all".into()], chunk, ..RunOptions::default() };
        let results = run(&model, &config, &inputs, &options)?;
        let widths = [3, 4, 5, 6].into_iter().enumerate();
        for (i, width) in widths {
            assert_eq!(results[&format!("hidden.{i}")].dims(), [2, 9, width]);
        }
        assert_eq!(results.len(), 5);
        let first = results["hidden.0"].transpose(1, 2)?;
        let last = results["hidden.3"].transpose(1, 2)?;
        assert_eq!(max_abs(&(first - &input)?)?, 0.);
        assert_eq!(max_abs(&(last - &results["output"])?)?, 0.);
    }
    Ok(())
}

#[test]
fn a_directory_without_a_tokenizer_loads() -> Result<()> {
    let golden = &golden()[6];
    let Converted { config, tensors, .. } = golden.convert()?;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let json = config.to_json()?;
    std::fs::write(dir.path().join(names::CONFIG), json).expect("written");
    write_tensors(dir.path().join(names::WEIGHTS), &tensors)?;
    let loaded = LoadedModel::load(dir.path())?.under_test();
    let ys = output(&loaded.model, &loaded.config, &golden.io, Some(4))?;
    assert_close(&golden.name, &ys, &golden.io["streaming_output"], F32)?;
    let error = message(loaded.tokenizer());
    assert!(error.contains("pytorch_tcn"), "{error}");
    Ok(())
}
