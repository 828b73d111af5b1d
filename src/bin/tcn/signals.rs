//! Signals that ask this process to end, on systems that have them and on others.

use std::sync::atomic::{AtomicI32, Ordering};

use crate::Interrupted;

/// The signal that asked this process to end, 0 for none yet.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Exit code of a process that saved its work and ended because of a signal: 130 for Ctrl-C, 143 for SIGTERM,
/// 129 for SIGHUP.
pub fn interrupted_code() -> u8 {
    128 + SIGNAL.load(Ordering::SeqCst) as u8
}

/// Keeps the first Ctrl-C, SIGTERM or SIGHUP for whoever asks; the second ends the program at once.
pub fn keep_signals(message: &'static str) -> anyhow::Result<()> {
    Ok(watch_signals(move |signal| {
        if SIGNAL.swap(signal, Ordering::SeqCst) != 0 {
            std::process::exit(interrupted_code().into());
        }
        if !message.is_empty() {
            say!("\n{message}; press again to leave at once");
        }
    })?)
}

/// `true` if a signal has come.
pub fn has_come() -> bool {
    SIGNAL.load(Ordering::SeqCst) != 0
}

/// Takes a signal that has come for done.
pub fn forget() {
    SIGNAL.store(0, Ordering::SeqCst);
}

/// An error if a signal has come.
pub fn expect_none() -> anyhow::Result<()> {
    match has_come() {
        true => Err(Interrupted.into()),
        false => Ok(()),
    }
}

#[cfg(unix)]
fn watch_signals(mut act: impl FnMut(i32) + Send + 'static) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = vec![SIGINT, SIGTERM];
    if !is_ignored(SIGHUP) {
        signals.push(SIGHUP);
    }
    let mut signals = signal_hook::iterator::Signals::new(signals)?;
    std::thread::spawn(move || signals.forever().for_each(&mut act));
    Ok(())
}

/// `true` if this process was started to ignore the signal, as nohup does with SIGHUP.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    use std::io::IsTerminal;
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        // nohup also takes the terminal away
        return !std::io::stdout().is_terminal() && !std::io::stderr().is_terminal();
    };
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Other systems have no thread to wait in for a signal: its flag is looked at now and then.
#[cfg(not(unix))]
fn watch_signals(mut act: impl FnMut(i32) + Send + 'static) -> std::io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::flag::register_usize;
    let came = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    for signal in [SIGINT, SIGTERM] {
        register_usize(signal, came.clone(), signal as usize)?;
    }
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(std::time::Duration::from_millis(50));
            match came.swap(0, Ordering::SeqCst) {
                0 => {}
                signal => act(signal as i32),
            }
        }
    });
    Ok(())
}

/// A reader that ends with an error after Ctrl-C: for passes that take minutes.
pub struct UntilSignal<R>(pub R);

impl<R: std::io::Read> std::io::Read for UntilSignal<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match has_come() {
            true => Err(std::io::Error::other("interrupted")),
            false => self.0.read(buffer),
        }
    }
}
