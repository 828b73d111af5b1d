//! Cases of ByteNet's kind: hidden states, logits, loss, gradients.

use candle_core::{DType, Device, Tensor};
use candle_tcn::Result;
use candle_tcn::models::{Model, ModelConfig};
use candle_tcn::nn::{Params, Pass};
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

/// `pass` with the mask of that name, where there is one.
pub fn with_mask<'a>(pass: Pass<'a>, io: &Tensors, name: &str) -> Result<Pass<'a>> {
    match io.get(name) {
        Some(mask) => pass.with_mask(mask),
        None => Ok(pass),
    }
}

/// Runs a model on `input` (with `mask`) and compares every number that there is.
pub fn check_case(what: &str, config: &ModelConfig, golden: &Golden) -> Result<()> {
    let io = &golden.io;
    let ids = io["input"].to_dtype(DType::U32)?;
    assert_eq!(golden.hidden.len(), config.hidden_layers() + 1, "{what}");
    for (dtype, tolerance) in [(DType::F64, 1e-6), (DType::F32, 1e-5)] {
        let what = format!("{what} {dtype:?}");
        let params = Params::new(0, dtype, &Device::Cpu);
        let model = Model::new(config, params.builder())?;
        load(&params, &golden.weights)?;
        let mut pass = with_mask(Pass::eval().recording(|_| true), io, "mask")?;
        let logits = model.forward(&ids, &mut pass)?;
        assert_close(&format!("{what} logits"), &logits, &io["logits"], tolerance)?;

        let recorded = pass.take_recorded();
        assert_eq!(recorded.len(), golden.hidden.len() + 1, "{what}");
        for (name, found) in recorded {
            let expected = match name.strip_prefix("hidden.") {
                Some(layer) => &golden.hidden[layer],
                None => &io["logits"],
            };
            assert_close(&format!("{what} {name}"), &found, expected, tolerance)?;
        }

        let loss = loss(&logits, &io["target"])?;
        assert_close(&format!("{what} loss"), &loss.reshape(1)?, &io["loss"], tolerance)?;
        let grads = loss.backward()?;
        assert_gradients(&what, &grads, &params, &golden.gradients, tolerance)?;

        let frozen = model.freeze()?;
        let mut pass = with_mask(Pass::eval(), io, "mask")?;
        let again = frozen.forward(&ids, &mut pass)?;
        assert_close(&format!("{what} frozen"), &again, &logits, 1e-7)?;
    }
    Ok(())
}
