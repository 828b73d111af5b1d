use std::sync::{Arc, Mutex};

use candle_core::{Device, Var};

use super::super::check::{assert_close, random};
use super::super::{DropoutKind, activate, add, add_relu, dropout};
use super::*;
use crate::kernels::dropout::MaskKey;
use crate::nn::Activation;

fn vars(shapes: &[&[usize]]) -> Vec<Var> {
    let var = |(i, shape): (usize, &&[usize])| Var::from_tensor(&random(i as u64, shape)).unwrap();
    shapes.iter().enumerate().map(var).collect()
}

/// The mean of the squares, by an operation of ours, so that a tape can begin with it.
fn loss(xs: &Tensor) -> crate::Result<Tensor> {
    Ok(apply1(xs, MeanSquare, Keep::Inputs)?)
}

struct MeanSquare;

impl CustomOp1 for MeanSquare {
    fn name(&self) -> &'static str {
        "mean-square"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = super::super::slice::<f64>((storage, layout))?;
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        Ok((CpuStorage::F64(vec![mean]), ().into()))
    }

    fn bwd(&self, xs: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let scale = 2.0 * dy.to_scalar::<f64>()? / xs.elem_count() as f64;
        Ok(Some((xs.detach() * scale)?))
    }
}

/// Compares the tape's gradients with candle's.
fn agree(vars: &[Var], f: impl Fn() -> crate::Result<Tensor>) {
    let (value, tape) = Tape::record(&f).unwrap();
    let ours = tape.backward(value, vars.iter().map(|v| &**v)).unwrap();
    let plain = f().unwrap().backward().unwrap();
    for (var, grad) in vars.iter().zip(&ours) {
        match plain.get(var) {
            Some(plain) => assert_close(grad.as_ref().unwrap(), plain, 1e-14),
            None => assert!(grad.is_none()),
        }
    }
}

#[test]
fn gradients_that_meet_are_added_whoever_owns_their_buffers() {
    let vars = vars(&[&[2, 3, 4], &[2, 3, 4], &[2, 3, 4]]);
    let [a, b, unused] = &vars[..] else { return };
    agree(&vars, || loss(&add(a, a)?));
    agree(&vars, || loss(&add(&add(a, b)?, &add(a, b)?)?));
    agree(&vars, || loss(&add_relu(&add(a, b)?, a)?));
    agree(&vars, || {
        // a residual path past an operation with a gradient of its own, twice
        let hs = add(&activate(a, Activation::Silu)?, a)?;
        let ys = add(&activate(&hs, Activation::Tanh)?, &hs)?;
        loss(&add(&ys, &reshape(&reshape(b, 24)?, (2, 3, 4))?)?)
    });
    agree(&vars, || {
        // every partial sum is used once more
        let one = add(a, b)?;
        let two = add(&one, a)?;
        let three = add(&two, &one)?;
        loss(&add(&add(&three, &two)?, &one)?)
    });
    agree(&vars, || {
        let key = MaskKey { seed: 1, stream: 2 };
        let hs = dropout(&add(a, b)?, 0.5, DropoutKind::Element, key)?;
        let _no_part_in_the_loss = add(&hs, unused)?;
        loss(&add_relu(&hs, &hs)?)
    });
}

#[test]
fn two_parameters_never_share_a_gradient() {
    let vars = vars(&[&[5], &[5]]);
    let (value, tape) = Tape::record(|| loss(&add(&vars[0], &vars[1])?)).unwrap();
    let grads = tape.backward(value, vars.iter().map(|v| &**v)).unwrap();
    let [a, b] = [0, 1].map(|i| grads[i].as_ref().unwrap());
    super::super::sum::add_assign(a, &a.copy().unwrap()).unwrap();
    assert_close(&(b * 2.0).unwrap(), a, 0.0);
}

#[test]
fn a_gradient_that_would_get_lost_is_an_error() {
    let vars = vars(&[&[4]]);
    let refused = |f: &dyn Fn(&Tensor) -> crate::Result<Tensor>| {
        let error = Tape::record(|| f(&vars[0])).err().unwrap().to_string();
        assert!(error.contains("no recorded gradient"), "{error}");
        error
    };
    let native = |x: &Tensor| -> crate::Result<Tensor> { Ok((x * 2.0)?) };
    assert!(refused(&|x| activate(&native(x)?, Activation::Tanh)).starts_with("activation"));
    assert!(
        refused(&|x| loss(&native(&activate(x, Activation::Tanh)?)?)).starts_with("mean-square")
    );
    assert!(refused(&|x| Ok(reshape(&native(x)?, (2, 2))?)).starts_with("reshape"));
    // constants may go through anything
    agree(&vars, || loss(&add(&vars[0], &native(&vars[0].detach())?)?));

    let (value, tape) = Tape::record(|| native(&loss(&vars[0])?)).unwrap();
    let error = tape.backward(value, [&*vars[0]]).unwrap_err().to_string();
    assert!(error.contains("the loss is not the result"), "{error}");
}

#[test]
fn a_failure_ends_the_recording() {
    let vars = vars(&[&[4], &[3]]);
    assert!(Tape::record(|| add(&vars[0], &vars[1])).is_err());
    assert!(!is_recording());
    agree(&vars, || {
        let _inner = Tape::record(|| loss(&vars[1]))?;
        loss(&vars[0])
    });
}

/// Does what a thread of the pool may do while it waits: operations of somebody else, which may fail.
struct Distracted {
    ends: fn() -> Result<()>,
}

impl CustomOp1 for Distracted {
    fn name(&self) -> &'static str {
        "distracted"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        assert!(!is_recording());
        let vars = vars(&[&[3]]);
        add(&vars[0], &vars[0]).unwrap();
        (self.ends)()?;
        let x = super::super::slice::<f64>((storage, layout))?;
        Ok((CpuStorage::F64(x.to_vec()), layout.shape().clone()))
    }
}

#[test]
fn nothing_records_while_an_operation_runs() {
    let vars = vars(&[&[4]]);
    let noted = |ends: fn() -> Result<()>| {
        let run = || {
            let run = || apply1(&vars[0], Distracted { ends }, Keep::Nothing);
            let _ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
            assert!(is_recording());
            activate(&vars[0], Activation::Tanh)
        };
        let (_, tape) = Tape::record(run).unwrap();
        assert!(!is_recording());
        tape.nodes.iter().map(Node::name).collect::<Vec<_>>()
    };
    assert_eq!(noted(|| Ok(())), ["distracted", "activation"]);
    assert_eq!(noted(|| bail!("no")), ["activation"]);
    assert_eq!(noted(|| panic!("as intended")), ["activation"]);
}

/// Passes its input on, and writes down when it runs and when it and what it kept are dropped.
struct Logged {
    number: usize,
    log: Arc<Mutex<Vec<String>>>,
    reads_input: bool,
}

impl Logged {
    fn write(&self, what: &str) {
        let mut log = self.log.lock().unwrap();
        log.push(format!("{what} {}", self.number));
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        self.write("free");
    }
}

impl CustomOp1 for Logged {
    fn name(&self) -> &'static str {
        "logged"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = super::super::slice::<f64>((storage, layout))?;
        Ok((CpuStorage::F64(x.to_vec()), layout.shape().clone()))
    }

    fn bwd(&self, xs: &Tensor, ys: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        assert_eq!(xs.is_contiguous(), self.reads_input);
        assert!(!ys.is_contiguous(), "the result is kept");
        self.write("gradient");
        Ok(Some(dy.clone()))
    }
}

#[test]
fn what_a_gradient_has_read_is_freed_before_the_next() {
    let vars = vars(&[&[4]]);
    let log = Arc::new(Mutex::new(Vec::new()));
    let (value, tape) = Tape::record(|| {
        let mut xs = vars[0].as_tensor().clone();
        for (number, keep) in [(1, Keep::Nothing), (2, Keep::Inputs)] {
            let op = Logged { number, log: log.clone(), reads_input: keep == Keep::Inputs };
            xs = apply1(&xs, op, keep)?;
        }
        loss(&xs)
    })
    .unwrap();
    assert!(log.lock().unwrap().is_empty());
    tape.backward(value, [&*vars[0]]).unwrap();
    let expected = ["gradient 2", "free 2", "gradient 1", "free 1"];
    assert_eq!(*log.lock().unwrap(), expected);
}

#[test]
fn a_hollow_tensor_cannot_be_read_unnoticed() {
    for dtype in [DType::F32, DType::BF16] {
        let x = Tensor::ones((2, 3), dtype, &Device::Cpu).unwrap();
        let hollow = hollow(&x).unwrap();
        assert_eq!((hollow.shape(), hollow.dtype()), (x.shape(), dtype));
        assert!(!hollow.is_contiguous());
        let sum = hollow.sum_all().unwrap().to_dtype(DType::F32).unwrap();
        assert!(sum.to_scalar::<f32>().unwrap().is_nan());
    }
}
