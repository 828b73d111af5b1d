//! How much arithmetic a network is.

use candle_tcn::models::ModelConfig;

/// Floating-point operations of a forward pass, for each token: two (a multiplication and an addition)
/// for each weight of a convolution or matrix that a token passes, `2·in/groups·out·kernel_size`.
///
/// A training step is counted as three times that: the output, the input gradient and the weight
/// gradient of each layer are as large a product. (The first layer's input gradient is counted too.)
/// Biases, norms, activations and the embedding, which is looked up, count nothing.
pub fn forward_flops(config: &ModelConfig) -> candle_tcn::Result<f64> {
    let tied = config.tied_name().is_some();
    let weights = config
        .tensors()?
        .into_iter()
        // the gain of a weight norm has a weight's rank, but is no product
        .filter(|(name, dims)| dims.len() >= 2 && !name.ends_with("weight_g"))
        // a tied embedding is also the matrix of the softmax
        .filter(|(name, _)| tied || Some(name.as_str()) != config.embedding_name())
        .map(|(_, dims)| dims.iter().map(|&n| n as f64).product::<f64>());
    Ok(2.0 * weights.sum::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_model_counted_by_hand() {
        let config = ModelConfig::preset("char-ptb").unwrap().with_vocab_size(50);
        let dilated = 3 * (100 * 450 + 3 * 450 * 450 + 450 * 100 + 100 * 100);
        let pointwise = 100 * 450 + 450 * 100;
        let softmax = 100 * 50;
        let expected = f64::from(2 * (dilated + pointwise + softmax));
        assert_eq!(forward_flops(&config).unwrap(), expected);
        // 13.3 MFLOP for a token of training
        assert_eq!(3.0 * expected, 13_305_000.0);
    }
}
