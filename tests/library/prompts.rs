//! Of a long prompt the network's field is read, and that is as if all of it had been.

use candle_core::{DType, Device};
use candle_tcn::generate::{GenerateConfig, Generator, SamplerConfig};
use candle_tcn::models::{ModelConfig, PRESETS};
use candle_tcn::nn::{Params, StepDtype};
use candle_tcn::text::{TokenStream, Tokenizer, TokenizerSpec};
use candle_tcn::{Error, Result};

use crate::common::{Tensors, Tolerance, UnderTest, assert_within, rng, scatter};

const TEXT: &str =
    "In the beginning God created the heaven and the earth; and the earth was without form. ";

fn config() -> GenerateConfig {
    GenerateConfig {
        max_tokens: 40,
        sampler: SamplerConfig {
            temperature: 0.0,
            frequency_penalty: 0.3,
            penalty_window: 100,
            ..Default::default()
        },
        ..Default::default()
    }
}

/// What a generator that has read the pieces saves, and the text that it goes on with.
fn read(
    stepper: &candle_tcn::models::Stepper,
    tokenizer: &Tokenizer,
    pieces: &[&[u32]],
) -> Result<(Tensors, String)> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("state");
    let mut generator = Generator::new(stepper, tokenizer, config())?;
    for piece in pieces {
        generator.read_tokens(piece)?;
    }
    generator.save_state(&path)?;
    let mut other = Generator::new(stepper, tokenizer, config())?;
    other.load_state(&path)?;
    let text = generator.text(0)?;
    assert_eq!(other.text(0)?, text);
    Ok((candle_core::safetensors::load(path, &Device::Cpu)?, text))
}

#[test]
fn every_network_needs_its_field_alone() -> Result<()> {
    let tokenizer = Tokenizer::from_spec(&TokenizerSpec::Char, TEXT.as_bytes())?;
    let once = tokenizer.encode(TEXT)?;
    for (name, ..) in PRESETS {
        let model = ModelConfig::preset(name)?.with_vocab_size(tokenizer.vocab_size());
        if model.require_causal().is_err() {
            // it sees both sides and continues nothing, or takes frames
            continue;
        }
        let field = model.geometry()?.receptive_field()?.total;
        let params = Params::new(3, DType::F32, &Device::Cpu);
        let network = model.build(params.builder())?.under_test();
        scatter(&params, &mut rng(4))?;
        let ids: Vec<u32> = once.iter().copied().cycle().take(2 * field + 37).collect();
        for dtype in [StepDtype::F32, StepDtype::Int8] {
            let stepper = network.stepper(dtype)?;
            // pieces that are no longer than a field are read whole
            let pieces: Vec<&[u32]> = ids.chunks(field.min(50)).collect();
            let (whole, text) = read(&stepper, &tokenizer, &pieces)?;
            let (end, short) = read(&stepper, &tokenizer, &[&ids])?;
            assert_eq!(short, text, "{name} {dtype:?}");
            for (tensor, expected) in &whole {
                let found = &end[tensor];
                if tensor == "positions" {
                    let read = found.to_vec1::<i64>()?[0] as usize;
                    assert!(read >= field && read < ids.len(), "{name}: {read}");
                    continue;
                }
                let what = format!("{name} {dtype:?} {tensor}");
                let tolerance = Tolerance { atol: 1e-5, rtol: 1e-5 };
                assert_within(
                    &what,
                    &found.to_dtype(DType::F64)?,
                    &expected.to_dtype(DType::F64)?,
                    tolerance,
                )?;
            }
        }
    }
    Ok(())
}

#[test]
fn ids_out_of_the_vocabulary_are_refused_wherever_they_stand() -> Result<()> {
    let tokenizer = Tokenizer::from_spec(&TokenizerSpec::Char, TEXT.as_bytes())?;
    let model = ModelConfig::preset("char-tiny")?.with_vocab_size(tokenizer.vocab_size());
    let params = Params::new(3, DType::F32, &Device::Cpu);
    let stepper = model.build(params.builder())?.under_test().stepper(StepDtype::F32)?;
    let mut generator = Generator::new(&stepper, &tokenizer, config())?;
    let mut ids = vec![1; 3000];
    ids[0] = 9999;
    assert!(matches!(generator.read_tokens(&ids), Err(Error::Invalid { .. })));
    Ok(())
}

/// The tokens of a stream.
fn all<R: std::io::Read>(stream: TokenStream<R>) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for piece in stream {
        ids.extend(piece?);
    }
    Ok(ids)
}

#[test]
fn the_end_of_a_file_is_the_end_of_its_tokens() -> Result<()> {
    let chinese = "天地玄黃 宇宙洪荒\n日月盈昃 辰宿列張\n";
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("text");
    for text in [TEXT.repeat(100), chinese.repeat(100), "é".repeat(2000), TEXT.into()] {
        std::fs::write(&path, &text).expect("writable");
        for spec in [TokenizerSpec::Byte, TokenizerSpec::Char, TokenizerSpec::Bpe(300)] {
            let tokenizer = Tokenizer::from_spec(&spec, text.as_bytes())?;
            let whole = tokenizer.encode(&text)?;
            for count in [1, 7, 300, 1000] {
                let end = all(TokenStream::open_near_end(&path, &tokenizer, count)?)?;
                let count = count.min(whole.len());
                assert!(end.len() >= count, "{spec}: {} of {count}", end.len());
                assert!(whole.ends_with(&end), "{spec}");
                assert!(
                    count > 300 || whole.len() < 5_000 || end.len() < whole.len() / 2,
                    "{spec}"
                );
            }
        }
    }
    Ok(())
}
