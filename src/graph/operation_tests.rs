//! The table of operations in `docs/graph.md`, walked: for each its shape, reach, gradient, form in candle's primitives,
//! and form in steps.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};

use super::operation::Operation;
use super::{
    Conv1dConfig, ConvTranspose1dConfig, EmbedConfig, Graph, Network, NormKind, RowOperation, Run,
    Value,
};
use crate::Result;
use crate::geometry::Padding;
use crate::kernels::Kernel;
use crate::kernels::elementwise::{Activation, Gate};
use crate::kernels::step::StepDtype;
use crate::nn::Params;
use crate::ops::{DropoutKind, Pool};

const BATCH: usize = 2;
const TIME: usize = 9;
const CHANNELS: usize = 4;
/// The input step that is changed to see what reads it.
const CHANGED: usize = 4;

/// `y = x²`, of the first half of the channels.
#[derive(Debug)]
struct Square;

impl RowOperation for Square {
    fn name(&self) -> &'static str {
        "square"
    }

    fn out_channels(&self, in_channels: usize) -> usize {
        in_channels / 2
    }

    fn forward(&self, x: &[f32], y: &mut [f32]) {
        x.iter().zip(y).for_each(|(x, y)| *y = x * x);
    }

    fn backward(&self, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        dx.fill(0.0);
        dx.iter_mut().zip(x).zip(dy).for_each(|((dx, x), dy)| *dx = 2.0 * x * dy);
    }
}

/// An operation on a value of four channels that a linear layer makes; of ids, on the ids themselves.
struct OperationCase {
    build: fn(&mut Graph, Value) -> Result<Value>,
    takes_ids: bool,
    channels: usize,
    /// Steps back and ahead.
    reach: (usize, usize),
    /// Part of the error where no step can be taken.
    no_step: Option<&'static str>,
}

const ROW_WISE: OperationCase = OperationCase {
    build: |_, xs| Ok(xs),
    takes_ids: false,
    channels: CHANNELS,
    reach: (0, 0),
    no_step: None,
};

fn cases() -> Vec<OperationCase> {
    vec![
        ROW_WISE,
        OperationCase {
            build: |g, ids| g.embed("table", ids, 5, EmbedConfig::default()),
            takes_ids: true,
            channels: 5,
            ..ROW_WISE
        },
        OperationCase {
            build: |g, ids| {
                let xs = g.one_hot(ids, 6)?;
                g.linear("head", xs, 3)
            },
            takes_ids: true,
            channels: 3,
            ..ROW_WISE
        },
        OperationCase {
            build: |g, xs| {
                let cfg = Conv1dConfig { dilation: 2, weight_norm: true, ..Conv1dConfig::causal() };
                g.conv1d("conv", xs, 6, 3, cfg)
            },
            channels: 6,
            reach: (4, 0),
            ..ROW_WISE
        },
        OperationCase {
            build: |g, xs| {
                let padding = Padding::Same;
                let cfg = Conv1dConfig { groups: 2, padding, ..Conv1dConfig::causal() };
                let xs = g.conv1d("conv", xs, CHANNELS, 3, cfg)?;
                g.activate(xs, Activation::Relu)
            },
            reach: (1, 1),
            no_step: Some("conv"),
            ..ROW_WISE
        },
        OperationCase {
            build: |g, xs| {
                g.conv_transpose1d("up", xs, CHANNELS, 4, ConvTranspose1dConfig::causal(2))
            },
            reach: (1, 0),
            no_step: Some("up"),
            ..ROW_WISE
        },
        OperationCase { build: |g, xs| g.norm("norm", xs, NormKind::Layer), ..ROW_WISE },
        OperationCase {
            build: |g, xs| {
                let xs = g.norm("norm", xs, NormKind::Rms)?;
                g.activate(xs, Activation::Silu)
            },
            ..ROW_WISE
        },
        OperationCase { build: |g, xs| g.norm("norm", xs, NormKind::Batch), ..ROW_WISE },
        OperationCase { build: |g, xs| g.activate(xs, Activation::Gelu), ..ROW_WISE },
        OperationCase { build: |g, xs| g.gate(xs, Gate::TanhSigmoid), channels: 2, ..ROW_WISE },
        OperationCase {
            build: |g, xs| {
                let ys = g.linear("other", xs, CHANNELS)?;
                g.add(xs, ys)
            },
            ..ROW_WISE
        },
        OperationCase {
            build: |g, xs| {
                let ys = g.conv1d("other", xs, CHANNELS, 2, Conv1dConfig::causal())?;
                g.multiply(xs, ys)
            },
            reach: (1, 0),
            ..ROW_WISE
        },
        OperationCase {
            build: |g, xs| {
                let ys = g.linear("other", xs, 3)?;
                g.concat(&[ys, xs])
            },
            channels: 7,
            ..ROW_WISE
        },
        OperationCase { build: |g, xs| g.dropout(xs, 0.3, DropoutKind::Element), ..ROW_WISE },
        OperationCase { build: |g, xs| g.dropout(xs, 0.3, DropoutKind::Channel), ..ROW_WISE },
        OperationCase { build: |g, xs| g.mean(xs), no_step: Some("pooling"), ..ROW_WISE },
        OperationCase {
            build: |g, xs| g.pool(xs, Pool::Max),
            no_step: Some("pooling"),
            ..ROW_WISE
        },
        OperationCase {
            build: |g, xs| g.pool(xs, Pool::MeanMax),
            channels: 2 * CHANNELS,
            no_step: Some("pooling"),
            ..ROW_WISE
        },
        OperationCase {
            build: |g, xs| g.pool(xs, Pool::Last),
            no_step: Some("pooling"),
            ..ROW_WISE
        },
        OperationCase {
            build: |g, xs| {
                let mean = g.mean(xs)?;
                g.spread(mean, xs)
            },
            no_step: Some("pooling"),
            ..ROW_WISE
        },
        OperationCase {
            build: |g, xs| g.batch_softmax(xs, true),
            no_step: Some("softmax"),
            ..ROW_WISE
        },
        OperationCase {
            build: |g, xs| {
                let condition = g.condition(3)?;
                let more = g.linear("condition", condition, CHANNELS)?;
                let with = g.add(xs, more)?;
                g.otherwise(with, xs)
            },
            ..ROW_WISE
        },
        OperationCase { build: |g, xs| g.custom(xs, Arc::new(Square)), channels: 2, ..ROW_WISE },
    ]
}

/// A place for each operation, so that a new one has to be added here and above.
fn number(operation: &Operation) -> usize {
    match operation {
        Operation::Input(_) => 0,
        Operation::Embed { .. } => 1,
        Operation::OneHot => 2,
        Operation::Conv(_) => 3,
        Operation::ConvTranspose(_) => 4,
        Operation::RowNorm { .. } => 5,
        Operation::BatchNorm(_) => 6,
        Operation::Activate(_) => 7,
        Operation::Gate(_) => 8,
        Operation::Add => 9,
        Operation::Multiply => 10,
        Operation::Concat => 11,
        Operation::Dropout { .. } => 12,
        Operation::Pool(_) => 13,
        Operation::Spread => 14,
        Operation::BatchSoftmax { .. } => 15,
        Operation::Otherwise => 16,
        Operation::Custom(_) => 17,
    }
}

/// A case as a network, and the operations in it by name.
struct Built {
    case: OperationCase,
    name: String,
    net: Network,
    params: Params,
    value: Value,
}

impl Built {
    fn new(case: OperationCase, dtype: DType) -> Result<Self> {
        let params = Params::new(3, dtype, &Device::Cpu);
        let mut g = Graph::new();
        let xs = match case.takes_ids {
            true => g.tokens(6)?,
            false => {
                let frames = g.frames(3)?;
                g.linear("first", frames, CHANNELS)?
            }
        };
        let value = (case.build)(&mut g, xs)?;
        g.output(value)?;
        let name = g.nodes.iter().map(|node| node.operation.name()).collect::<Vec<_>>().join(", ");
        Ok(Self { net: Network::new(g, params.builder())?, case, name, params, value })
    }

    fn input(&self) -> Result<Tensor> {
        let count = BATCH * TIME;
        if self.case.takes_ids {
            let ids = (0..count as u32).map(|i| (i * 5 + 1) % 6);
            return Ok(Tensor::from_iter(ids, &Device::Cpu)?.reshape((BATCH, TIME))?);
        }
        let numbers = (0..3 * count).map(|i| ((i * 37 % 29) as f64 - 14.0) * 0.11);
        let xs = Tensor::from_iter(numbers, &Device::Cpu)?.reshape((BATCH, TIME, 3))?;
        Ok(xs.to_dtype(self.net.parameters().next().map_or(DType::F64, |(_, t)| t.dtype()))?)
    }

    /// The input with another value at one step of one sequence.
    fn changed(&self, sequence: usize) -> Result<Tensor> {
        let xs = self.input()?;
        let hit = (0..BATCH * TIME).map(|i| u8::from(i == sequence * TIME + CHANGED));
        let hit = Tensor::from_iter(hit, &Device::Cpu)?.reshape((BATCH, TIME))?;
        let other = match self.case.takes_ids {
            // ids of 0 to 5
            true => Tensor::full(5u32, xs.shape(), &Device::Cpu)?.sub(&xs)?,
            false => (&xs + 1.)?,
        };
        let hit = match xs.rank() {
            2 => hit,
            _ => hit.unsqueeze(2)?.broadcast_as(xs.shape())?.contiguous()?,
        };
        Ok(hit.where_cond(&other, &xs)?)
    }

    /// Rows of a sequence whose output another input changes.
    fn rows_changed(&self, changed_in: usize, seen_in: usize) -> Result<Vec<usize>> {
        let rows = |xs: &Tensor| -> Result<Vec<Vec<f64>>> {
            let ys = self.net.forward_with(xs, Run::eval())?.get(seen_in)?;
            let ys = if ys.rank() == 1 { ys.unsqueeze(0)? } else { ys };
            Ok(ys.to_dtype(DType::F64)?.to_vec2()?)
        };
        let (before, after) = (rows(&self.input()?)?, rows(&self.changed(changed_in)?)?);
        Ok((0..before.len()).filter(|&row| before[row] != after[row]).collect())
    }
}

#[test]
fn every_operation_has_a_case() -> Result<()> {
    let mut seen = [false; 18];
    for case in cases() {
        for node in &Built::new(case, DType::F32)?.net.graph().nodes {
            seen[number(&node.operation)] = true;
        }
    }
    assert_eq!(seen, [true; 18]);
    Ok(())
}

#[test]
fn shapes_and_reach_are_as_the_edges_say() -> Result<()> {
    for case in cases() {
        let built = Built::new(case, DType::F64)?;
        let (case, name, edge) = (&built.case, &built.name, built.net.graph().edge(built.value));
        let (down, up) = edge.rate();
        let ys = built.net.forward_with(&built.input()?, Run::eval())?;
        let dims = match edge.single {
            true => vec![BATCH, case.channels],
            false => vec![BATCH, TIME * up / down, case.channels],
        };
        assert_eq!(ys.dims(), dims, "{name}");
        assert_eq!(
            (edge.channels, edge.left(), edge.right()),
            (case.channels, case.reach.0, case.reach.1),
            "{name}"
        );
        let rows = match edge.whole {
            true => (0..if edge.single { 1 } else { TIME }).collect(),
            false => {
                let sees = |row: usize| {
                    let at = row * down / up;
                    (at.saturating_sub(edge.left())..=at + edge.right()).contains(&CHANGED)
                };
                (0..dims[1]).filter(|&row| sees(row)).collect::<Vec<_>>()
            }
        };
        let changed = built.rows_changed(0, 0)?;
        // between the ends there may be holes
        assert!(changed.iter().all(|row| rows.contains(row)), "{name}: {changed:?}");
        // a maximum, or the last step, need not show a change
        if !edge.single || !changed.is_empty() {
            assert_eq!((changed.first(), changed.last()), (rows.first(), rows.last()), "{name}");
        }
        assert_eq!(built.rows_changed(1, 0)?.is_empty(), !edge.mixes, "{name}");
    }
    Ok(())
}

/// `Σ factor·y` of a training pass, with the gradients of the parameters.
fn pass(net: &Network, xs: &Tensor) -> Result<(f64, Vec<Option<Tensor>>)> {
    let (outputs, tape) = net.trace(&[xs], Run::train(5, 3))?;
    let ys = outputs.into_first()?;
    let factors = (0..ys.elem_count()).map(|i| ((i * 13 % 17) as f64 - 8.0) * 0.1);
    let factors = Tensor::from_iter(factors, &Device::Cpu)?.reshape(ys.shape())?;
    let factors = factors.to_dtype(ys.dtype())?;
    let sum = (&ys * &factors)?.sum_all()?.to_dtype(DType::F64)?.to_scalar()?;
    Ok((sum, tape.backward(vec![factors])?))
}

#[test]
fn gradients_agree_with_differences_and_with_candles() -> Result<()> {
    for case in cases() {
        let built = Built::new(case, DType::F64)?;
        let (name, xs) = (&built.name, built.input()?);
        let (sum, grads) = pass(&built.net, &xs)?;
        let (by_candle, candles) = pass(&built.net.clone().with_kernel(Kernel::Candle)?, &xs)?;
        assert!((sum - by_candle).abs() < 1e-5, "{name}: {sum}, by candle {by_candle}");
        // the user's operation computes in f32
        let (eps, tolerance) = if name.contains("square") { (1e-2, 2e-3) } else { (1e-5, 1e-6) };
        let all = grads.iter().zip(&candles).zip(built.net.graph().parameters());
        for ((grad, candles), parameter) in all.filter(|(_, parameter)| parameter.trained) {
            let numbers = |grad: &Option<Tensor>| match grad {
                Some(grad) => grad.flatten_all()?.to_vec1::<f64>(),
                // of a condition that is not given
                None => Ok(vec![0.0; parameter.shape.iter().product()]),
            };
            let (found, candles) = (numbers(grad)?, numbers(candles)?);
            let var = built.params.trainable().into_iter().find(|(n, _)| *n == parameter.name);
            let differences = differences(&built.net, &xs, &var.expect("a variable").1, eps)?;
            for ((found, candles), expected) in found.iter().zip(&candles).zip(&differences) {
                let name = format!("{name}: {}", parameter.name);
                assert!(
                    (found - expected).abs() < tolerance * (1. + expected.abs()),
                    "{name}: {found}, expected {expected}"
                );
                assert!(
                    (found - candles).abs() < tolerance * (1. + candles.abs()),
                    "{name}: {found}, by candle {candles}"
                );
            }
        }
    }
    Ok(())
}

fn differences(net: &Network, xs: &Tensor, var: &Var, eps: f64) -> Result<Vec<f64>> {
    let start: Vec<f64> = var.flatten_all()?.to_vec1()?;
    let at = |i: usize, by: f64| -> Result<f64> {
        let mut numbers = start.clone();
        numbers[i] += by;
        var.set(&Tensor::from_vec(numbers, var.shape(), &Device::Cpu)?)?;
        Ok(pass(net, xs)?.0)
    };
    let slopes = (0..start.len()).map(|i| Ok((at(i, eps)? - at(i, -eps)?) / (2. * eps)));
    let slopes = slopes.collect::<Result<_>>();
    var.set(&Tensor::from_slice(&start, var.shape(), &Device::Cpu)?)?;
    slopes
}

#[test]
fn steps_give_what_the_whole_sequence_gives_or_say_why_not() -> Result<()> {
    for case in cases() {
        let built = Built::new(case, DType::F32)?;
        let name = &built.name;
        let steps = match (built.net.step_net(StepDtype::F32), built.case.no_step) {
            (Ok(steps), None) => steps,
            (Err(error), Some(part)) if error.to_string().contains(part) => continue,
            (other, _) => panic!("{name}: {:?}", other.map(|_| "a step")),
        };
        let xs = built.input()?;
        let whole = built.net.forward_with(&xs, Run::eval())?.to_vec3::<f32>()?;
        let mut state = steps.init_state(BATCH)?;
        for t in 0..TIME {
            let rows = xs.narrow(1, t, 1)?.flatten_all()?;
            let ys = match built.case.takes_ids {
                true => steps.step_ids(&rows.to_vec1()?, &mut state)?,
                false => steps.step(&rows.to_vec1()?, &mut state)?,
            };
            let expected = whole.iter().flat_map(|sequence| &sequence[t]);
            for (y, expected) in ys.iter().zip(expected) {
                assert!((y - expected).abs() < 1e-5, "{name}: step {t} gives {y}, not {expected}");
            }
        }
    }
    Ok(())
}
