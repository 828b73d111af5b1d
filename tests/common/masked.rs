//! Cases of ByteNet's kind: hidden states, logits, loss, gradients.

use super::UnderTest;
use candle_core::{DType, Device, Tensor};
use candle_tcn::Result;
use candle_tcn::graph::Run;
use candle_tcn::models::ModelConfig;
use candle_tcn::nn::Params;
use candle_tcn::ops;

use super::{Tensors, assert_close, assert_gradients, load};

/// What PyTorch computed.
pub struct Golden {
    pub weights: Tensors,
    pub gradients: Tensors,
    /// By the number of the layer.
    pub hidden: Tensors,
    pub io: Tensors,
}

/// Mean cross-entropy where `target` is not −100.
pub fn loss(logits: &Tensor, target: &Tensor) -> Result<Tensor> {
    let targets: Vec<i64> = target.to_dtype(DType::I64)?.flatten_all()?.to_vec1()?;
    let scored = (0u32..).zip(&targets).filter(|(_, id)| **id != -100);
    let (rows, ids): (Vec<u32>, Vec<u32>) = scored.map(|(row, &id)| (row, id as u32)).unzip();
    let rows = Tensor::new(rows, &Device::Cpu)?;
    let scored = logits.flatten_to(1)?.index_select(&rows, 0)?;
    ops::cross_entropy(&scored, &ids)
}

/// `run` with the mask of that name, where there is one.
pub fn with_mask<'a>(run: Run<'a>, io: &Tensors, name: &str) -> Result<Run<'a>> {
    match io.get(name) {
        Some(mask) => run.with_mask(mask),
        None => Ok(run),
    }
}

/// Runs a model on `input` (with `mask`) and compares every number that there is.
pub fn check_case(what: &str, config: &ModelConfig, golden: &Golden) -> Result<()> {
    let io = &golden.io;
    let ids = io["input"].to_dtype(DType::U32)?;
    assert_eq!(golden.hidden.len(), config.graph()?.hidden_layers() + 1, "{what}");
    for (dtype, tolerance) in [(DType::F64, 1e-6), (DType::F32, 1e-5)] {
        let what = format!("{what} {dtype:?}");
        let params = Params::new(0, dtype, &Device::Cpu);
        let model = config.build(params.builder())?.under_test();
        load(&params, &golden.weights)?;
        let run = with_mask(Run::eval().recording(|_| true), io, "mask")?;
        let outputs = model.run(&[&ids], run)?;
        let logits = &outputs.values[0];
        assert_close(&format!("{what} logits"), logits, &io["logits"], tolerance)?;

        let recorded = outputs.recorded;
        assert_eq!(recorded.len(), golden.hidden.len() + 1, "{what}");
        for (name, found) in recorded {
            let expected = match name.strip_prefix("hidden.") {
                Some(layer) => &golden.hidden[layer],
                None => &io["logits"],
            };
            assert_close(&format!("{what} {name}"), &found, expected, tolerance)?;
        }

        let loss = loss(logits, &io["target"])?;
        assert_close(&format!("{what} loss"), &loss.reshape(1)?, &io["loss"], tolerance)?;
        let grads = loss.backward()?;
        assert_gradients(&what, &grads, &params, &golden.gradients, tolerance)?;

        let frozen = model.freeze()?;
        let run = with_mask(Run::eval(), io, "mask")?;
        let again = frozen.forward_with(&ids, run)?;
        assert_close(&format!("{what} frozen"), &again, logits, 1e-7)?;
    }
    Ok(())
}
