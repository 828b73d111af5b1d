//! The examples run.

#[allow(dead_code)]
#[path = "../../examples/candle_layers.rs"]
mod candle_layers;
#[allow(dead_code)]
#[path = "../../examples/own_network.rs"]
mod own_network;

#[test]
fn our_layers_among_candles() -> candle_tcn::Result<()> {
    candle_layers::main()
}

#[test]
fn a_network_of_ones_own() -> candle_tcn::Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    own_network::run(&folder.path().join("run").to_string_lossy(), 30)
}
