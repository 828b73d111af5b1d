//! Memory that is free, and memory that was used.

mod limits;

use std::path::Path;

use candle_tcn::graph::{Graph, Stepper};
use candle_tcn::train::Precision;
use indicatif::HumanBytes;

/// Refuses training that cannot fit, before anything is allocated.
pub fn check_training(
    model: &Graph,
    batch_size: usize,
    seq_len: usize,
    precision: Precision,
) -> anyhow::Result<()> {
    let needed = model.training_bytes(batch_size, seq_len, precision.dtype())? as f64;
    check("training", needed, model, batch_size, seq_len)
}

/// The same of an evaluation that learns from segments.
pub fn check_dynamic(model: &Graph, segment: usize) -> anyhow::Result<()> {
    let needed = model.training_bytes(1, segment, Precision::F32.dtype())? as f64;
    check_for("--dynamic", needed, model, &format!("--segment (now {segment})"))
}

/// The same of `bytes` of text, packed or not; gives how many bytes there may be when they are unpacked.
pub fn check_text(bytes: u64) -> anyhow::Result<u64> {
    // the text and a token for each of its bytes
    const OF_BYTE: u64 = 1 + size_of::<u32>() as u64;
    let most = available_bytes().map_or(u64::MAX, |bytes| bytes / OF_BYTE);
    if bytes > most {
        bail_usage!(
            "--data: a text of {} would take about {} of memory, {} are free: train on a part of it",
            HumanBytes(bytes),
            HumanBytes(bytes.saturating_mul(OF_BYTE)),
            HumanBytes(most.saturating_mul(OF_BYTE))
        );
    }
    Ok(most)
}

/// The same of the states, logits and samplers of sequences that are generated at once.
pub fn check_generation(model: &Graph, sequences: usize, seq_len: usize) -> anyhow::Result<()> {
    // a sampler counts tokens and sorts them
    const COPIES: f64 = 6.0;
    let vocab_size = model.vocab_size().unwrap_or(0) as f64;
    let piece = seq_len.min(Stepper::prefill_len(sequences));
    let logits = COPIES * size_of::<f32>() as f64 * vocab_size;
    let states = sequences as f64 * (model.state_bytes(1)? as f64 + logits);
    let needed = states + forward_bytes(model, sequences, piece)?;
    check("generation", needed, model, sequences, seq_len)
}

/// The same of a forward pass without gradients: the weights, and the widest layer's rows a few times
/// over (what it reads, gives and adds).
pub fn check_forward(model: &Graph, batch_size: usize, seq_len: usize) -> anyhow::Result<()> {
    let needed = forward_bytes(model, batch_size, seq_len)?;
    check("a forward pass", needed, model, batch_size, seq_len)
}

fn forward_bytes(model: &Graph, batch_size: usize, seq_len: usize) -> anyhow::Result<f64> {
    const ROWS: f64 = 4.0;
    let widest = model.parameters().iter().filter_map(|parameter| parameter.shape.first()).max();
    let widest = widest.copied().unwrap_or(0);
    let rows = batch_size as f64 * seq_len as f64;
    let numbers = 2.0 * model.parameter_count()? as f64 + ROWS * rows * widest as f64;
    Ok(size_of::<f32>() as f64 * numbers)
}

fn check(
    what: &str,
    needed: f64,
    model: &Graph,
    batch_size: usize,
    seq_len: usize,
) -> anyhow::Result<()> {
    let flags = format!("--batch-size (now {batch_size}), --seq-len (now {seq_len})");
    check_for(what, needed, model, &flags)
}

/// Refuses what needs more memory than is free; `flags` are what makes it less.
fn check_for(what: &str, needed: f64, model: &Graph, flags: &str) -> anyhow::Result<()> {
    let available = available_bytes().map_or(f64::INFINITY, |bytes| bytes as f64);
    if needed > available {
        let gib = |bytes: f64| bytes / f64::from(1 << 30);
        bail_usage!(
            "{what} would take about {:.1} GiB, {:.1} GiB are free: lower {flags} or the model's channels ({} parameters)",
            gib(needed),
            gib(available),
            model.parameter_count()?
        );
    }
    Ok(())
}

/// Memory that this process may still take: what is free, or less where a limit says so; `None` where nothing is
/// known.
fn available_bytes() -> Option<u64> {
    let system = sysinfo::System::new_with_specifics(
        sysinfo::RefreshKind::nothing()
            .with_memory(sysinfo::MemoryRefreshKind::nothing().with_ram()),
    );
    let free = Some(system.available_memory()).filter(|&bytes| bytes > 0);
    free.into_iter().chain(limits::bytes_left(Path::new("/"))).min()
}

/// The most memory that this process has held, in bytes, where the system tells: on Linux.
pub fn peak_bytes() -> Option<u64> {
    limits::status_bytes(Path::new("/"), "VmHWM")
}
