//! Documents one after the other: each gives what it gives alone, however they are cut into windows, in training, in
//! evaluation, with a carried state and in single steps.

use candle_core::{DType, Device, Tensor};
use candle_tcn::Result;
use candle_tcn::graph::{Network, Run, Tape};
use candle_tcn::models::ModelConfig;
use candle_tcn::nn::{Params, StepDtype};
use candle_tcn::train::{Batch, evaluate, loss::CrossEntropy, loss::Loss};
use rand::RngExt;

use crate::common::{UnderTest, assert_close, bits, has_kernels, rng, scatter};

const VOCAB: u32 = 11;
/// Ends a document, and stands before the next.
const END: u32 = 4;

const CONFIGS: [&str; 4] = [
    r#"{"model_type": "tcn", "vocab_size": 11, "embedding_dim": 6, "eos_token_id": 4,
        "network": {"num_channels": [6, 8, 8], "kernel_size": 3, "norm": "layer"}}"#,
    r#"{"model_type": "tcn", "vocab_size": 11, "embedding_dim": 8, "eos_token_id": 4, "tie_weights": true,
        "network": {"num_channels": [8, 8], "kernel_size": 4, "norm": "weight", "gate": "glu", "pre_norm": true}}"#,
    r#"{"model_type": "wavenet", "vocab_size": 11, "eos_token_id": 4, "network": {"residual_channels": 6,
        "gate_channels": 5, "skip_channels": 8, "kernel_size": 2, "dilations": [1, 2, 4, 8]}}"#,
    r#"{"model_type": "bytenet", "n_tokens": 11, "eos_token_id": 4, "d_embedding": 4, "d_model": 8, "n_layers": 3,
        "kernel_size": 3, "r": 4, "causal": true}"#,
];

struct Case {
    model: Network,
    /// Each begins with `END`, and is followed by it.
    documents: Vec<Vec<u32>>,
}

fn cases(dtype: DType) -> Result<Vec<Case>> {
    let mut rng = rng(17);
    let one = |json: &str| {
        let config = ModelConfig::from_json(json, "config.json")?;
        let params = Params::new(3, dtype, &Device::Cpu);
        let model = config.build(params.builder())?.under_test();
        scatter(&params, &mut rng)?;
        let documents = [9, 1, 14, 0, 3, 22, 2, 5].map(|len| {
            let letters = (0..len).map(|_| rng.random_range(END + 1..VOCAB));
            [END].into_iter().chain(letters).collect()
        });
        Ok(Case { model, documents: documents.into() })
    };
    CONFIGS.into_iter().map(one).collect()
}

impl Case {
    /// All documents, the last one ended.
    fn text(&self) -> Vec<u32> {
        [self.documents.concat(), vec![END]].concat()
    }

    fn trace(&self, inputs: Tensor, targets: Tensor) -> Result<(Tensor, f64, Vec<Tensor>)> {
        let batch = Batch::new(vec![inputs], targets);
        let (outputs, tape): (_, Tape) = self.model.trace(&[&batch.inputs[0]], Run::train(1, 1))?;
        let loss = CrossEntropy::default().value(&outputs.values, &batch)?;
        // of the sum
        let gradients = (&loss.gradients[0] * loss.weight)?;
        let grads = tape.backward(vec![gradients])?.into_iter().flatten().collect();
        Ok((outputs.values[0].clone(), loss.mean * loss.weight, grads))
    }

    /// Loss and gradients of each document by itself, added up; and its logits.
    fn alone(&self) -> Result<(Tensor, f64, Vec<Tensor>)> {
        let (mut logits, mut nats, mut sums) = (Vec::new(), 0.0, Vec::<Tensor>::new());
        for document in &self.documents {
            let targets = [&document[1..], &[END]].concat();
            let [inputs, targets] = [document, &targets]
                .map(|ids| Tensor::new(&ids[..], &Device::Cpu).and_then(|ids| ids.unsqueeze(0)));
            let (y, loss, grads) = self.trace(inputs?, targets?)?;
            logits.push(y);
            nats += loss;
            sums = match sums.is_empty() {
                true => grads,
                false => sums
                    .iter()
                    .zip(&grads)
                    .map(|(a, b)| a + b)
                    .collect::<candle_core::Result<_>>()?,
            };
        }
        Ok((Tensor::cat(&logits, 1)?, nats, sums))
    }
}

/// Rows of a batch, windows over two texts of documents.
fn rows(text: &[u32], rows: usize) -> Result<[Tensor; 2]> {
    let len = text.len() - 1;
    let rows_of = |from: usize| {
        Tensor::new(text[from..from + len].repeat(rows), &Device::Cpu)?.reshape((rows, len))
    };
    Ok([rows_of(0)?, rows_of(1)?])
}

#[test]
fn joined_documents_train_as_each_alone() -> Result<()> {
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 2e-6)] {
        for case in cases(dtype)? {
            let (logits, nats, grads) = case.alone()?;
            // a batch of two: the second begins within a document's rows of the first
            let [inputs, targets] = rows(&case.text(), 2)?;
            let (joined, sum, joint) = case.trace(inputs, targets)?;
            let what = format!("{dtype:?} {:?}", case.model.graph().restart());
            for row in 0..2 {
                assert_close(&what, &joined.narrow(0, row, 1)?, &logits, tolerance)?;
            }
            assert!((sum / 2.0 - nats).abs() < 1e-6 * nats, "{sum} {nats}");
            assert_eq!(joint.len(), grads.len());
            for (found, expected) in joint.iter().zip(&grads) {
                assert_close(&what, &(found / 2.0)?, expected, 20.0 * tolerance)?;
            }
        }
    }
    Ok(())
}

#[test]
fn nothing_that_came_before_is_seen() -> Result<()> {
    for case in cases(DType::F32)? {
        let text = case.text();
        let ids = Tensor::new(&text[..], &Device::Cpu)?.unsqueeze(0)?;
        let before = case.model.forward_with(&ids, Run::eval())?;
        let mut changed = text.clone();
        let end = 1 + changed[1..].iter().position(|&id| id == END).unwrap();
        changed[1..end].fill(END + 1);
        let ids = Tensor::new(&changed[..], &Device::Cpu)?.unsqueeze(0)?;
        let after = case.model.forward_with(&ids, Run::eval())?;
        let rest = |y: &Tensor| bits(&y.narrow(1, end, text.len() - end)?);
        assert_eq!(rest(&before)?, rest(&after)?);
    }
    Ok(())
}

#[test]
fn any_window_cut_gives_the_loss_of_each_alone() -> Result<()> {
    for case in cases(DType::F32)? {
        let (_, nats, _) = case.alone()?;
        let text = case.text();
        let model = case.model.freeze()?;
        for chunk in 1..text.len() {
            let found = evaluate(&model, &text, chunk)?;
            assert!((found.nats - nats).abs() < 1e-6 * nats, "{chunk}: {} {nats}", found.nats);
        }
    }
    Ok(())
}

#[test]
fn a_carried_window_trains_as_the_whole() -> Result<()> {
    for case in cases(DType::F32)? {
        let [inputs, _] = rows(&case.text(), 2)?;
        let whole = case.model.forward_with(&inputs, Run::eval())?;
        for window in [1, 2, 5, 13, 30] {
            let mut state = case.model.init_state(2)?;
            let mut parts = Vec::new();
            for start in (0..inputs.dim(1)?).step_by(window) {
                let len = window.min(inputs.dim(1)? - start);
                let run = Run::train(1, 1).with_state(&mut state);
                let (outputs, _) = case.model.trace(&[&inputs.narrow(1, start, len)?], run)?;
                parts.extend(outputs.values);
            }
            assert_close(&format!("windows of {window}"), &Tensor::cat(&parts, 1)?, &whole, 2e-6)?;
            // steps since the last document began
            let last = case.documents.last().map_or(0, Vec::len) as u64;
            assert_eq!(state.positions(), [last; 2]);
        }
    }
    Ok(())
}

#[test]
fn steps_begin_anew_too() -> Result<()> {
    for case in cases(DType::F32)? {
        let text = case.text();
        let steps = case.model.step_net(StepDtype::F32)?;
        // the second sequence is shifted: their documents end at different steps
        let len = text.len() - 3;
        let sequences = [&text[..len], &text[3..]];
        let ids = Tensor::new(sequences.map(<[u32]>::to_vec).concat(), &Device::Cpu)?
            .reshape((2, len))?;
        let whole = case.model.forward_with(&ids, Run::eval())?;
        let tolerance =
            if has_kernels("steps equal the whole to 1e-5; to 1e-4 they do") { 1e-5 } else { 1e-4 };
        for block in [1, 4, len] {
            let mut state = steps.init_state(2)?;
            let mut parts = Vec::new();
            for start in (0..len).step_by(block) {
                let frames = block.min(len - start);
                let ids = sequences.map(|ids| &ids[start..start + frames]).concat();
                let logits = steps.step_ids(&ids, &mut state)?;
                parts.push(Tensor::from_slice(logits, (2, frames, VOCAB as usize), &Device::Cpu)?);
            }
            assert_close(
                &format!("blocks of {block}"),
                &Tensor::cat(&parts, 1)?,
                &whole,
                tolerance,
            )?;
        }
        // what came before leaves no trace: as from the beginning, bit for bit
        let mut fresh = steps.init_state(1)?;
        let mut used = steps.init_state(1)?;
        steps.step_ids(&text[..20], &mut used)?;
        for id in [END, 7, 8, 9, 5, 6] {
            let expected = steps.step_ids(&[id], &mut fresh)?.to_vec();
            assert_eq!(steps.step_ids(&[id], &mut used)?, expected);
        }
    }
    Ok(())
}

#[test]
fn only_architectures_with_documents_have_an_end_token() -> Result<()> {
    let carp = ModelConfig::from_json(r#"{"model_type": "carp"}"#, "config.json")?;
    assert!(
        carp.with_end_token(Some(2)).unwrap_err().to_string().contains("tcn, wavenet, bytenet")
    );
    let tcn = ModelConfig::from_json(CONFIGS[0], "config.json")?;
    assert_eq!(tcn.end_token(), Some(4));
    let beyond = tcn.with_end_token(Some(11))?;
    assert!(beyond.graph().unwrap_err().to_string().contains("below 11"));
    // a preset has no vocabulary yet
    let preset = ModelConfig::preset("char-tiny")?.with_end_token(Some(60))?;
    assert!(preset.geometry().is_ok());
    Ok(())
}
