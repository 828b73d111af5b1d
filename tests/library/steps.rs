//! Single steps on slices: sequences that come and go, blocks of frames, types of weights, and that a
//! step allocates nothing.

use crate::common::close::{Tolerance, compare};
use crate::common::{UnderTest, bits, random, rng, scatter};
use candle_core::{DType, Device, Tensor, Var};
use candle_tcn::Result;
use candle_tcn::geometry::Dilations;
use candle_tcn::graph::{EmbedConfig, Graph, RingShape, Run};
use candle_tcn::models::state_file;
use candle_tcn::models::{ModelConfig, Network, TcnLmConfig, WaveNetConfig};
use candle_tcn::nn::{
    Activation, Gate, NormKind, Params, State, StepDtype, StepNet, TcnConfig, WaveNetStackConfig,
    temporal_conv_net,
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

const DTYPES: [StepDtype; 3] = [StepDtype::F32, StepDtype::Bf16, StepDtype::Int8];

fn networks() -> Vec<TcnConfig> {
    let base = TcnConfig {
        dilations: Some(Dilations::List(vec![1, 3, 2])),
        ..TcnConfig::new(vec![7, 9, 5], 3)
    };
    let mut all = vec![base.clone()];
    for norm in [NormKind::Layer, NormKind::Batch, NormKind::Rms] {
        for pre_norm in [false, true] {
            all.push(TcnConfig {
                norm,
                pre_norm,
                gate: pre_norm.then_some(Gate::Glu),
                activation: Activation::Gelu,
                skip_connections: !pre_norm,
                ..base.clone()
            });
        }
    }
    all
}

fn build(cfg: &TcnConfig, rng: &mut ChaCha8Rng) -> Result<Network> {
    let params = Params::new(rng.random(), DType::F32, &Device::Cpu);
    let net = temporal_conv_net(4, cfg, params.builder())?.under_test();
    scatter(&params, rng)?;
    Ok(net)
}

/// Frames of 4 numbers.
fn frames(rng: &mut ChaCha8Rng, count: usize) -> Vec<f32> {
    (0..4 * count).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// The outputs of one sequence by itself, frame by frame.
fn alone(net: &StepNet, xs: &[f32]) -> Result<Vec<f32>> {
    let mut state = net.init_state(1)?;
    let mut ys = Vec::new();
    for x in xs.chunks_exact(4) {
        ys.extend_from_slice(net.step(x, &mut state)?);
    }
    Ok(ys)
}

fn close(what: &str, a: &[f32], b: &[f32], tolerance: f64) {
    let [a, b] = [a, b].map(|xs| xs.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
    if let Err(message) = compare(&a, &b, Tolerance { atol: tolerance, rtol: tolerance }) {
        panic!("{what}: {message}");
    }
}

#[test]
fn steps_are_the_forward_pass() -> Result<()> {
    let mut rng = rng(1);
    for cfg in networks() {
        let net = build(&cfg, &mut rng)?;
        let xs = frames(&mut rng, 40);
        let tensor = Tensor::from_slice(&xs, (1, 40, 4), &Device::Cpu)?;
        let whole = |dtype| -> Result<Vec<f32>> {
            let ys = net.forward_with(&tensor, Run::eval().with_dtype(dtype))?;
            Ok(ys.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?)
        };
        for (dtype, activations, tolerance) in [
            (StepDtype::F32, DType::F32, 1e-5),
            // rounded at the same places
            (StepDtype::Bf16, DType::BF16, 0.06),
        ] {
            let step = net.step_net(dtype)?;
            let what = format!("{dtype:?} {cfg:?}");
            close(&what, &alone(&step, &xs)?, &whole(activations)?, tolerance);
        }
        // weights of 8 bits: a twentieth of what comes out
        let (found, exact) = (alone(&net.step_net(StepDtype::Int8)?, &xs)?, whole(DType::F32)?);
        let rms =
            |numbers: &mut dyn Iterator<Item = f32>| numbers.map(|x| x * x).sum::<f32>().sqrt();
        let apart = rms(&mut found.iter().zip(&exact).map(|(a, b)| a - b));
        let whole = rms(&mut exact.iter().copied());
        assert!(found.len() == exact.len() && apart < 0.05 * whole, "{cfg:?}: {apart} of {whole}");
    }
    Ok(())
}

#[test]
fn blocks_are_steps() -> Result<()> {
    let mut rng = rng(2);
    for cfg in networks() {
        let net = build(&cfg, &mut rng)?;
        for dtype in DTYPES {
            let step = net.step_net(dtype)?;
            let xs = frames(&mut rng, 50);
            let wanted = alone(&step, &xs)?;
            let mut state = step.init_state(1)?;
            let (mut ys, mut rest) = (Vec::new(), &xs[..]);
            while !rest.is_empty() {
                let len = 4 * rng.random_range(1..=12).min(rest.len() / 4);
                let (now, later) = rest.split_at(len);
                ys.extend_from_slice(step.step(now, &mut state)?);
                rest = later;
            }
            assert_eq!(state.position(0), 50);
            close("blocks", &ys, &wanted, 1e-5);
        }
    }
    Ok(())
}

/// A sequence of a batch: what it will be given, what it gives alone, and how far it is.
#[derive(Clone)]
struct Sequence {
    xs: Vec<f32>,
    wanted: Vec<f32>,
    at: usize,
}

#[test]
fn sequences_come_and_go_independently() -> Result<()> {
    const LEN: usize = 60;
    let mut rng = rng(3);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("state.safetensors");
    for (cfg, dtype) in networks().into_iter().zip(DTYPES.into_iter().cycle()) {
        let step = build(&cfg, &mut rng)?.step_net(dtype)?;
        let width = step.out_channels();
        let new = |rng: &mut ChaCha8Rng| -> Result<Sequence> {
            let xs = frames(rng, LEN);
            let wanted = alone(&step, &xs)?;
            Ok(Sequence { xs, wanted, at: 0 })
        };
        let mut state = step.init_state(1)?;
        let mut sequences = vec![new(&mut rng)?];
        for _ in 0..200 {
            let n = sequences.len();
            let pick = rng.random_range(0..n);
            match rng.random_range(0..14) {
                0 if n < 9 => {
                    state = state.join(&step.init_state(1)?)?;
                    sequences.push(new(&mut rng)?);
                }
                1 if n < 9 => {
                    state = state.join(&state.fork(pick, 2)?)?;
                    sequences.extend([sequences[pick].clone(), sequences[pick].clone()]);
                }
                2 if n > 1 => {
                    let kept: Vec<usize> = (0..n).filter(|&i| i != pick).collect();
                    state = state.select(&kept)?;
                    sequences.remove(pick);
                }
                3 => {
                    state.reset(pick)?;
                    sequences[pick] = new(&mut rng)?;
                }
                4 => {
                    let from = rng.random_range(0..n);
                    let other = state.clone();
                    state.set(pick, &other, from)?;
                    sequences[pick] = sequences[from].clone();
                }
                5 => state = State::from_tensors(state.positions(), &state.tensors()?)?,
                6 => {
                    state_file::save(&path, &step, &state)?;
                    state = state_file::load(&path, &step, n)?;
                }
                _ => {
                    for (i, sequence) in sequences.iter_mut().enumerate() {
                        if sequence.at == LEN {
                            state.reset(i)?;
                            sequence.at = 0;
                        }
                    }
                    let now = sequences.iter().flat_map(|s| &s.xs[4 * s.at..][..4]);
                    let now: Vec<f32> = now.copied().collect();
                    let ys = step.step(&now, &mut state)?;
                    for (sequence, ys) in sequences.iter_mut().zip(ys.chunks_exact(width)) {
                        let wanted = &sequence.wanted[sequence.at * width..][..width];
                        close("in a batch", ys, wanted, 1e-5);
                        sequence.at += 1;
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_step_allocates_nothing() -> Result<()> {
    let mut rng = rng(4);
    for (cfg, dtype) in networks().into_iter().zip(DTYPES.into_iter().cycle()) {
        let step = build(&cfg, &mut rng)?.step_net(dtype)?;
        for (batch, block) in [(1, 1), (8, 1), (1, 16)] {
            let mut state = step.init_state(batch)?;
            let xs = frames(&mut rng, batch * block);
            step.step(&xs, &mut state)?;
            let mut steps = Ok(());
            let counted = allocation_counter::measure(|| {
                steps = (0..100).try_for_each(|_| step.step(&xs, &mut state).map(|_| ()));
            });
            steps?;
            assert_eq!(counted.count_total, 0, "{dtype:?} {batch} x {block} {cfg:?}");
        }
    }
    Ok(())
}

fn language_models() -> Vec<ModelConfig> {
    vec![
        ModelConfig::Tcn(TcnLmConfig {
            eos_token_id: None,
            vocab_size: 11,
            embedding_dim: 6,
            tie_weights: true,
            embedding_dropout: 0.0,
            network: TcnConfig::new(vec![8, 6], 3),
        }),
        ModelConfig::WaveNet(WaveNetConfig {
            eos_token_id: None,
            vocab_size: 11,
            network: WaveNetStackConfig {
                residual_channels: 5,
                gate_channels: 4,
                skip_channels: 8,
                kernel_size: 2,
                dilations: Dilations::List(vec![1, 2, 4]),
                dropout: 0.0,
            },
        }),
        ModelConfig::from_json(
            r#"{"model_type": "bytenet", "n_tokens": 11, "d_embedding": 6, "d_model": 8, "n_layers": 3,
                "kernel_size": 3, "r": 4, "causal": true, "final_ln": true, "activation": "gelu"}"#,
            "config.json",
        )
        .expect("a configuration"),
    ]
}

/// Through the prompt at once or token by token: the same state, and what follows is the same.
#[test]
fn a_prefill_leaves_what_steps_leave() -> Result<()> {
    let mut rng = rng(5);
    for config in language_models() {
        let params = Params::new(1, DType::F32, &Device::Cpu);
        let model = config.build(params.builder())?.under_test();
        scatter(&params, &mut rng)?;
        for (dtype, tolerance) in DTYPES.into_iter().zip([1e-5, 0.05, 2e-3]) {
            let stepper = model.stepper(dtype)?;
            // a prompt's inputs are not rounded
            let tolerance = if stepper.net().input_bits() == Some(8) { 0.1 } else { tolerance };
            let prompt: Vec<u32> = (0..30).map(|_| rng.random_range(0..11)).collect();
            let (mut a, mut b) = (stepper.init_state(1)?, stepper.init_state(1)?);
            let prefilled = stepper.prefill(&prompt, &mut a)?;
            let mut stepped = Vec::new();
            for &id in &prompt {
                stepped = stepper.step(&[id], &mut b)?.to_vec();
            }
            close("logits", &prefilled, &stepped, tolerance);
            for (a, b) in a.tensors()?.iter().zip(b.tensors()?) {
                let (a, b): (Vec<f32>, Vec<f32>) =
                    (a.flatten_all()?.to_vec1()?, b.flatten_all()?.to_vec1()?);
                close(&format!("{dtype:?} state"), &a, &b, tolerance);
            }
            assert_eq!(a.position(0), b.position(0));
        }
    }
    Ok(())
}

/// Eight bits lose what is small beside an input that is large; 16 do not.
#[test]
fn eight_bits_of_inputs_are_kept_only_where_they_are_enough() -> Result<()> {
    for (large, bits) in [(1.0, [Some(8), Some(16)]), (1000.0, [Some(16); 2])] {
        let mut graph = Graph::new();
        let ids = graph.tokens(11)?;
        let xs = graph.embed("embedding", ids, 4, EmbedConfig::default())?;
        let logits = graph.linear("head", xs, 11)?;
        graph.output_logits(logits)?;
        let params = Params::new(1, DType::F32, &Device::Cpu);
        let net = Network::new(graph, params.builder())?;
        for (name, tensor) in net.parameters() {
            let width = tensor.dims()[tensor.rank() - 1];
            let number = |i: usize| match (name, i % width) {
                ("embedding.weight", 0) => large,
                ("head.weight", 0) => 0.0,
                _ => ((i * 7919) % 41) as f32 / 10.0 - 2.0,
            };
            let numbers: Vec<f32> = (0..tensor.elem_count()).map(number).collect();
            Var::from_tensor(tensor)?.set(&Tensor::from_vec(
                numbers,
                tensor.shape(),
                &Device::Cpu,
            )?)?;
        }
        let found = net.stepper(StepDtype::Int8)?.net().input_bits();
        assert!(bits.contains(&found), "{large}: {found:?}");
        assert_eq!(net.stepper(StepDtype::F32)?.net().input_bits(), None);
    }
    Ok(())
}

#[test]
fn frames_that_do_not_fit_are_errors() -> Result<()> {
    let mut rng = rng(6);
    let step = build(&networks()[0], &mut rng)?.step_net(StepDtype::F32)?;
    let mut state = step.init_state(2)?;
    for len in [0, 1, 4, 12] {
        let error = step.step(&vec![0.0; len], &mut state).map(|_| ());
        let text = error.expect_err("not whole").to_string();
        assert!(text.contains("2 sequences x 4 channels"), "{text}");
    }
    assert!(state.reset(2).is_err() && state.select(&[0, 5]).is_err());
    let other = build(&TcnConfig::new(vec![3], 2), &mut rng)?;
    let foreign = other.step_net(StepDtype::F32)?.init_state(2)?;
    assert!(state.set(0, &foreign, 0).is_err() && state.join(&foreign).is_err());
    assert!(step.step(&[0.0; 8], &mut foreign.clone()).is_err());
    Ok(())
}

#[test]
fn sequences_join_and_leave_a_state() -> Result<()> {
    let shapes = [RingShape { span: 3, channels: 2 }, RingShape { span: 1, channels: 4 }];
    let of = |seed: u64| -> Result<State> {
        let tensors = [(3, 2), (1, 4)]
            .map(|(span, channels)| random(&mut rng(seed), &[1, span, channels], DType::F32));
        State::from_tensors(&[seed], &tensors.into_iter().collect::<Result<Vec<_>>>()?)
    };
    let same = |a: &State, b: &State| -> Result<bool> {
        let pairs = a.tensors()?.into_iter().zip(b.tensors()?);
        let mut equal = a.positions() == b.positions();
        for (a, b) in pairs {
            equal &= bits(&a)? == bits(&b)?;
        }
        Ok(equal)
    };
    let mut state = State::new(0, shapes)?;
    for seed in 0..4 {
        state.push(&of(seed)?, 0)?;
    }
    state.swap_remove(1)?;
    for (sequence, seed) in [(0, 0), (1, 3), (2, 2)] {
        assert!(same(&state.fork(sequence, 1)?, &of(seed)?)?, "sequence {sequence}");
    }
    assert!(state.swap_remove(3).is_err() && state.push(&of(1)?, 1).is_err());
    assert!(state.push(&State::new(1, [RingShape { span: 1, channels: 1 }])?, 0).is_err());
    assert_eq!(state.batch(), 3);
    Ok(())
}
