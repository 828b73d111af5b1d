//! Causality, and streaming: no output depends on a later input, and any way of cutting a sequence
//! into steps and prefills gives what one forward pass gives.

use crate::common::{UnderTest, assert_close, bits, has_kernels, random, random_ids, rng, scatter};
use candle_core::{D, DType, Device, IndexOp, Tensor};
use candle_tcn::Result;
use candle_tcn::geometry::Dilations;
use candle_tcn::graph::Run;
use candle_tcn::models::{ModelConfig, Network, Stepper, TcnLmConfig, WaveNetConfig};
use candle_tcn::nn::{
    Activation, Gate, NormKind, Params, State, StepDtype, TcnConfig, WaveNetStackConfig,
    temporal_conv_net,
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

const VOCAB: usize = 13;

fn tcn(network: TcnConfig) -> ModelConfig {
    ModelConfig::Tcn(TcnLmConfig {
        eos_token_id: None,
        vocab_size: VOCAB,
        embedding_dim: 6,
        tie_weights: false,
        embedding_dropout: 0.0,
        network,
    })
}

fn wavenet(kernel_size: usize, dilations: Vec<usize>) -> ModelConfig {
    ModelConfig::WaveNet(WaveNetConfig {
        eos_token_id: None,
        vocab_size: VOCAB,
        network: WaveNetStackConfig {
            residual_channels: 5,
            gate_channels: 4,
            skip_channels: 16,
            kernel_size,
            dilations: Dilations::List(dilations),
            dropout: 0.0,
        },
    })
}

/// Every norm, gate, order and skip option, with kernels 1 to 4 and dilations drawn from `rng`, and
/// WaveNets of the same kind.
fn configs(rng: &mut ChaCha8Rng) -> Vec<ModelConfig> {
    let mut all = Vec::new();
    let mut reach = |blocks| {
        let dilations = (0..blocks).map(|_| rng.random_range(1..=5)).collect();
        (rng.random_range(1..=4), dilations)
    };
    for norm in [NormKind::Weight, NormKind::Layer, NormKind::Batch, NormKind::Rms, NormKind::None]
    {
        for gate in [None, Some(Gate::Glu), Some(Gate::TanhSigmoid)] {
            for pre_norm in [false, true] {
                for skip_connections in [false, true] {
                    let (kernel_size, dilations) = reach(3);
                    all.push(tcn(TcnConfig {
                        norm,
                        gate,
                        pre_norm,
                        skip_connections,
                        // every input has an effect, which a dead ReLU would hide
                        activation: Activation::LeakyRelu,
                        dilations: Some(Dilations::List(dilations)),
                        ..TcnConfig::new(vec![6, 8, 5], kernel_size)
                    }));
                }
            }
        }
    }
    for kernel_size in 1..=4 {
        let (_, dilations) = reach(4);
        all.push(wavenet(kernel_size, dilations));
    }
    all
}

fn build(config: &ModelConfig, rng: &mut ChaCha8Rng) -> Result<Network> {
    let params = Params::new(rng.random(), DType::F32, &Device::Cpu);
    let model = config.build(params.builder())?.under_test();
    scatter(&params, rng)?;
    Ok(model)
}

#[test]
fn no_output_depends_on_a_later_input() -> Result<()> {
    let mut rng = rng(1);
    let (batch, time) = (3, 24);
    for config in configs(&mut rng) {
        let model = build(&config, &mut rng)?;
        let ids = random_ids(&mut rng, (batch, time), VOCAB as u32)?;
        let before = model.forward_with(&ids, Run::eval())?;
        for t in [0, 1, time / 2, time - 1] {
            // another token in sequence 1 at time t
            let mut changed: Vec<Vec<u32>> = ids.to_vec2()?;
            changed[1][t] = (changed[1][t] + 1) % VOCAB as u32;
            let changed = Tensor::new(changed, &Device::Cpu)?;
            let after = model.forward_with(&changed, Run::eval())?;
            for sequence in 0..batch {
                for s in 0..time {
                    let same = bits(&before.i((sequence, s))?)? == bits(&after.i((sequence, s))?)?;
                    let what = format!("{config:?}: input {t}, output {s} of sequence {sequence}");
                    if sequence != 1 || s < t {
                        assert!(same, "{what}");
                    } else if s == t {
                        assert!(!same, "{what}: no effect");
                    }
                }
            }
        }
    }
    Ok(())
}

/// The logits of `ids` in random pieces, single tokens by `step` or by a forward pass.
fn in_pieces(
    (model, stepper): (&Network, &Stepper),
    ids: &Tensor,
    state: &mut State,
    rng: &mut ChaCha8Rng,
) -> Result<Tensor> {
    let time = ids.dim(1)?;
    let mut pieces = Vec::new();
    let mut done = 0;
    while done < time {
        // as often short as long
        let most = if rng.random() { 2 } else { time };
        let len = rng.random_range(1..=most).min(time - done);
        let piece = ids.narrow(1, done, len)?;
        pieces.push(if len == 1 && rng.random() {
            let tokens: Vec<u32> = piece.flatten_all()?.to_vec1()?;
            let logits = stepper.step(&tokens, state)?;
            Tensor::from_slice(logits, (tokens.len(), 1, VOCAB), &Device::Cpu)?
        } else {
            model.prefill(&piece, state)?
        });
        done += len;
    }
    Ok(Tensor::cat(&pieces, 1)?)
}

#[test]
fn any_chunking_equals_forward() -> Result<()> {
    let mut rng = rng(2);
    for (i, config) in configs(&mut rng).into_iter().enumerate() {
        // every other one begins anew at a token
        let config = config.with_end_token((i % 2 == 1).then_some(3))?;
        let model = build(&config, &mut rng)?;
        for batch in [1, 3] {
            let time = rng.random_range(1..40);
            let ids = random_ids(&mut rng, (batch, time), VOCAB as u32)?;
            let whole = model.forward_with(&ids, Run::eval())?;
            let tolerance = match has_kernels("chunks equal the whole to 1e-5; to 1e-4 they do") {
                true => 1e-5,
                false => 1e-4,
            };
            for model in [model.clone(), model.freeze()?] {
                let stepper = model.stepper(StepDtype::F32)?;
                for _ in 0..3 {
                    let mut state = model.init_state(batch)?;
                    let pieces = in_pieces((&model, &stepper), &ids, &mut state, &mut rng)?;
                    let what = format!("{config:?} batch {batch} time {time}");
                    assert_close(&what, &pieces, &whole, tolerance)?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_long_sequence_of_steps_does_not_drift() -> Result<()> {
    let mut rng = rng(3);
    let model = build(&wavenet(3, vec![1, 2, 4, 1, 2, 4]), &mut rng)?.freeze()?;
    let ids = random_ids(&mut rng, (1, 1000), VOCAB as u32)?;
    let whole = model.forward_with(&ids, Run::eval())?;
    let stepper = model.stepper(StepDtype::F32)?;
    let mut state = stepper.init_state(1)?;
    for (t, id) in ids.flatten_all()?.to_vec1::<u32>()?.into_iter().enumerate() {
        let logits =
            Tensor::from_slice(stepper.step(&[id], &mut state)?, (1, VOCAB), &Device::Cpu)?;
        assert_close(&format!("step {t}"), &logits, &whole.i((.., t))?, 1e-5)?;
    }
    Ok(())
}

#[test]
fn a_fork_goes_on_by_itself() -> Result<()> {
    let mut rng = rng(4);
    let network = TcnConfig::new(vec![6, 6], 3);
    for config in [tcn(network), wavenet(2, vec![1, 2, 4])] {
        let model = build(&config, &mut rng)?.freeze()?;
        let [first, second] = [(); 2].map(|()| random_ids(&mut rng, (2, 15), VOCAB as u32));
        let (first, second) = (first?, second?);
        let shared = first.narrow(1, 0, 9)?;
        let ends = [first.narrow(1, 9, 6)?, second.narrow(1, 9, 6)?];

        let stepper = model.stepper(StepDtype::F32)?;
        let mut state = model.init_state(2)?;
        in_pieces((&model, &stepper), &shared, &mut state, &mut rng)?;
        let mut forks =
            [state.clone(), State::from_tensors(state.positions(), &state.tensors()?)?, state];
        // in turn, so that one would see what another writes
        for t in 0..6 {
            for (i, fork) in forks.iter_mut().enumerate() {
                let end = &ends[i % 2];
                let found = model.prefill(&end.narrow(1, t, 1)?, fork)?;
                let whole = Tensor::cat(&[&shared, end], 1)?;
                let whole = model.forward_with(&whole, Run::eval())?;
                assert_close("fork", &found, &whole.narrow(1, 9 + t, 1)?, 1e-5)?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_centred_network_refuses_a_state() -> Result<()> {
    let mut rng = rng(5);
    let cfg = TcnConfig { causal: false, ..TcnConfig::new(vec![4, 4], 3) };
    let params = Params::new(1, DType::F32, &Device::Cpu);
    let net = temporal_conv_net(2, &cfg, params.builder())?.under_test();
    for time in [1, 7] {
        let xs = random(&mut rng, &[1, time, 2], DType::F32)?;
        assert_eq!(net.forward_with(&xs, Run::eval())?.dim(D::Minus1)?, 4);
        let error = net.init_state(1).expect_err("not causal");
        assert!(error.to_string().contains("causal"), "{error}");
        let error = net.step_net(StepDtype::F32).expect_err("not causal");
        assert!(error.to_string().contains("causal"), "{error}");
        let mut state = State::new(1, Vec::new())?;
        let error =
            net.forward_with(&xs, Run::eval().with_state(&mut state)).expect_err("not causal");
        assert!(error.to_string().contains("causal"), "{error}");
    }
    Ok(())
}

#[test]
fn a_foreign_state_is_an_error_that_says_so() -> Result<()> {
    let mut rng = rng(6);
    let model = build(&tcn(TcnConfig::new(vec![6, 6], 3)), &mut rng)?;
    let stepper = model.stepper(StepDtype::F32)?;
    let mut state = stepper.init_state(2)?;
    for _ in 0..2 {
        let error = stepper.step(&[1, 2, 3], &mut state).expect_err("batch");
        let text = error.to_string();
        assert!(text.contains('2') && text.contains('3'), "{text}");
        let ids = Tensor::new(&[[1u32], [2], [3]], &Device::Cpu)?;
        let error = model.prefill(&ids, &mut state).expect_err("batch");
        let text = error.to_string();
        assert!(text.contains('2') && text.contains('3'), "{text}");
        let error = stepper.step(&[1, VOCAB as u32], &mut state);
        let text = error.expect_err("no such id").to_string();
        assert!(text.contains("vocabulary"), "{text}");
        stepper.step(&[1, 2], &mut state)?;
    }
    assert_eq!(state.position(1), 2);
    let wider = build(&tcn(TcnConfig::new(vec![7, 6], 3)), &mut rng)?;
    let error = wider.stepper(StepDtype::F32)?.step(&[1, 2], &mut state).map(|_| ());
    assert!(error.expect_err("channels").to_string().contains("state"));
    let ids = Tensor::new(&[[1u32], [2]], &Device::Cpu)?;
    let error = wider.prefill(&ids, &mut state).expect_err("channels");
    assert!(error.to_string().contains("state"), "{error}");
    Ok(())
}

#[test]
fn a_state_that_does_not_fit_the_memory_is_an_error() -> Result<()> {
    let network =
        TcnConfig { dilations: Some(Dilations::List(vec![1 << 40])), ..TcnConfig::new(vec![6], 3) };
    let model = build(&tcn(network), &mut rng(7))?;
    let error = model.init_state(1 << 20).expect_err("too large");
    assert!(error.to_string().contains("dilations"), "{error}");
    Ok(())
}
