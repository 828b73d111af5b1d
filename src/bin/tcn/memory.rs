//! How much memory there is, and how much was used.

use candle_tcn::models::ModelConfig;
use candle_tcn::train::Precision;

use crate::usage_error;

/// Refuses training that cannot fit, before anything is allocated.
pub fn check_training(
    model: &ModelConfig,
    batch_size: usize,
    seq_len: usize,
    precision: Precision,
) -> anyhow::Result<()> {
    let needed = model.training_bytes(batch_size, seq_len, precision.dtype())? as f64;
    check("training", needed, model, batch_size, seq_len)
}

/// The same of a forward pass without gradients: the weights, and the widest layer's rows a few times
/// over (what it reads, gives and adds).
pub fn check_forward(model: &ModelConfig, batch_size: usize, seq_len: usize) -> anyhow::Result<()> {
    const ROWS: f64 = 4.0;
    let tensors = model.tensors()?;
    let widest = tensors.iter().filter_map(|(_, dims)| dims.first()).max();
    let widest = widest.copied().unwrap_or(0);
    let rows = batch_size as f64 * seq_len as f64;
    let numbers = 2.0 * model.parameters()? as f64 + ROWS * rows * widest as f64;
    let needed = size_of::<f32>() as f64 * numbers;
    check("a forward pass", needed, model, batch_size, seq_len)
}

fn check(
    what: &str,
    needed: f64,
    model: &ModelConfig,
    batch_size: usize,
    seq_len: usize,
) -> anyhow::Result<()> {
    let system = sysinfo::System::new_with_specifics(
        sysinfo::RefreshKind::nothing()
            .with_memory(sysinfo::MemoryRefreshKind::nothing().with_ram()),
    );
    let available = system.available_memory() as f64;
    if available > 0.0 && needed > available {
        let gib = |bytes: f64| bytes / f64::from(1 << 30);
        return Err(usage_error(format!(
            "{what} would take about {:.1} GiB, {:.1} GiB are free: lower --batch-size (now {batch_size}), \
             --seq-len (now {seq_len}) or the model's channels ({} parameters)",
            gib(needed),
            gib(available),
            model.parameters()?
        )));
    }
    Ok(())
}

/// The most memory that this process has held, in bytes, where the system tells: on Linux.
pub fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}
