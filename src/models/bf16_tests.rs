//! Models over activations of bf16 beside the same over f32.

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::Result;
use crate::graph::Run;
use crate::nn::Params;
use crate::nn::{NormKind, TcnConfig};
use crate::ops::check::assert_close;

#[test]
fn evaluation_in_bf16_is_near_that_in_f32_under_every_norm() -> Result<()> {
    use NormKind::{Batch, Layer, None as Without, Rms, Weight};
    for norm in [Weight, Layer, Batch, Rms, Without] {
        for pre_norm in [false, true] {
            let config = ModelConfig::Tcn(TcnLmConfig {
                eos_token_id: None,
                vocab_size: 7,
                embedding_dim: 8,
                tie_weights: false,
                embedding_dropout: 0.0,
                network: TcnConfig { norm, pre_norm, ..TcnConfig::new(vec![8, 8], 3) },
            });
            let params = Params::new(1, DType::F32, &Device::Cpu);
            let model = config.build(params.builder())?;
            let ids: Vec<u32> = (0..32).map(|i| (i * i + 1) % 7).collect();
            let ids = Tensor::from_vec(ids, (2, 16), &Device::Cpu)?;
            // moments other than those of the start
            model.forward_with(&ids, Run::train(1, 1))?;
            let exact = model.forward_with(&ids, Run::eval())?;
            let rounded = model.forward_with(&ids, Run::eval().with_dtype(DType::BF16))?;
            assert_eq!(rounded.dtype(), DType::F32);
            assert_close(&rounded, &exact, 0.03);
        }
    }
    Ok(())
}
