//! The `tcn` command: train, sample and measure sequence models from a terminal.
//!
//! Results go to standard output, progress and messages to standard error. Exit codes: 0 done,
//! 1 failed, 2 wrong usage; 130, 143 and 129 interrupted by SIGINT, SIGTERM and SIGHUP after saving.

/// A line on standard error; one that nobody can read is no reason to stop.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!($crate::terminal::stderr(), $($text)*);
    }};
}

mod about;
mod bench;
mod convert;
mod embed;
mod eval;
mod fill_mask;
mod flags;
mod generate;
#[cfg(feature = "hub")]
mod hub;
mod info;
mod line_ends;
mod memory;
mod model;
mod progress;
#[cfg(feature = "hub")]
mod pull;
#[cfg(feature = "hub")]
mod push;
mod receptive_field;
mod run;
mod signals;
mod terminal;
mod train;

use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{FromArgMatches, Parser, Subcommand};

/// Dilated causal convolution stacks for sequence modelling: trains on a laptop, streams with constant
/// memory.
#[derive(Parser)]
#[command(name = "tcn", bin_name = "tcn", version, after_long_help = about::ENVIRONMENT)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Threads to compute with (default: all processors); results do not depend on it
    #[arg(
        long,
        global = true,
        value_name = "N",
        allow_negative_numbers = true,
        display_order = 900
    )]
    threads: Option<usize>,
}

#[derive(Subcommand)]
enum Command {
    /// Train a language model from text files (without --data: from a built-in text)
    Train(train::Args),
    /// Write text with a model (without --model: with a built-in one)
    Generate(generate::Args),
    /// Measure a model on a text: every token but the first, with its whole left context
    Eval(eval::Args),
    /// Tell what a masked language model would put in the place of masks
    FillMask(fill_mask::Args),
    /// Compute a vector (embedding) of each sequence
    Embed(embed::Args),
    /// Apply any model to tensors of a file
    Run(run::Args),
    /// Make a model directory of another project's weights, or of a model in another form
    Convert(convert::Args),
    /// Tell what a model is
    Info(info::Args),
    /// Tell the receptive field of a stack of convolutions, layer by layer
    ReceptiveField(receptive_field::Args),
    /// Measure how fast this machine trains or runs a network
    Bench(bench::Args),
    /// Download a model from the Hugging Face Hub; prints its directory
    #[cfg(feature = "hub")]
    Pull(pull::Args),
    /// Upload a model directory to the Hugging Face Hub (needs a token with write access); prints its address
    #[cfg(feature = "hub")]
    Push(push::Args),
    /// Print a script that completes this command's names and flags in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page of `tcn`, or of one of its commands: tcn man train | man -l -
    Man {
        /// A command
        command: Option<String>,
    },
}

/// Wrong use of the command line: exit code 2.
#[derive(Debug)]
struct UsageError(String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// An error that ends the program with exit code 2.
fn usage_error(message: impl Into<String>) -> anyhow::Error {
    UsageError(message.into()).into()
}

/// The run was stopped by a signal and saved: exit code 128 and the signal's number.
#[derive(Debug)]
struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Writes a line of the result, at once.
fn print_line(line: impl std::fmt::Display) -> anyhow::Result<()> {
    let mut out = terminal::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn main() -> ExitCode {
    report_panics();
    match parse().and_then(execute) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit_code(&error),
    }
}

/// Reports panics as errors are reported: their texts may come from files too.
///
/// The tokenizers crate panics on some files that contradict themselves; the library makes errors of that.
/// Of the panic itself one line is enough.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map_or("", |location| location.file());
        if location.contains("tokenizers-") {
            let payload = panic.payload();
            let what = payload.downcast_ref::<String>().map(String::as_str);
            let what = what.or_else(|| payload.downcast_ref::<&str>().copied());
            say!("tokenizers: {}", what.unwrap_or("panicked"));
            return;
        }
        say!("tcn: {panic}");
        let trace = std::backtrace::Backtrace::capture();
        if trace.status() == std::backtrace::BacktraceStatus::Captured {
            say!("{trace}");
        }
    }));
}

/// Reads the command line. Mistakes become one line; help and version are printed as they are.
fn parse() -> anyhow::Result<Cli> {
    let matches = about::command().try_get_matches();
    let parsed = matches.and_then(|matches| Cli::from_arg_matches(&matches));
    parsed.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => error.exit(),
        _ => {
            let text = error.to_string();
            let said = text
                .split("\n\n")
                .map(str::trim)
                .take_while(|part| !part.starts_with("Usage:") && !part.starts_with("For more"));
            let said = said.collect::<Vec<_>>().join("; ");
            let message = said.trim_start_matches("error: ");
            let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
            match error.kind() {
                ErrorKind::MissingRequiredArgument => {
                    usage_error(format!("{message}; see {} --help", asked(&text)))
                }
                _ => usage_error(message),
            }
        }
    })
}

/// The command whose usage clap tells.
fn asked(text: &str) -> String {
    let usage = text.split("Usage:").nth(1).unwrap_or_default();
    let is_name = |word: &&str| {
        word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-')
    };
    usage.split_whitespace().take_while(is_name).collect::<Vec<_>>().join(" ")
}

fn execute(cli: Cli) -> anyhow::Result<()> {
    candle_tcn::kernels::memory::keep_freed_memory();
    if let Ok(name) = std::env::var("TCN_KERNEL") {
        name.parse::<candle_tcn::kernels::Kernel>()?.select()?;
    }
    if let Some(threads) = cli.threads {
        if !(1..=1024).contains(&threads) {
            return Err(usage_error(format!(
                "--threads: expected a whole number from 1 to 1024, found {threads}"
            )));
        }
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    let Some(command) = cli.command else {
        return print_line(about::FIRST_STEPS);
    };
    match command {
        Command::Train(args) => train::run(args),
        Command::Generate(args) => generate::run(args),
        Command::Eval(args) => eval::run(args),
        Command::FillMask(args) => fill_mask::run(args),
        Command::Embed(args) => embed::run(args),
        Command::Run(args) => run::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Info(args) => info::run(args),
        Command::ReceptiveField(args) => receptive_field::run(args),
        Command::Bench(args) => bench::run(args),
        #[cfg(feature = "hub")]
        Command::Pull(args) => pull::run(args),
        #[cfg(feature = "hub")]
        Command::Push(args) => push::run(args),
        Command::Completions { shell } => about::completions(shell),
        Command::Man { command } => about::manual(command.as_deref()),
    }
}

/// An error with its causes, each said once.
fn explain(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .reduce(|text, cause| match text.ends_with(&cause) {
            true => text,
            false => format!("{text}: {cause}"),
        })
        .unwrap_or_default()
}

/// Reports the error and chooses the exit code. A closed pipe is no error: whoever read had enough.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    use candle_tcn::Error;
    for cause in error.chain() {
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::BrokenPipe
        {
            return ExitCode::SUCCESS;
        }
    }
    if error.is::<Interrupted>() {
        return ExitCode::from(signals::interrupted_code());
    }
    say!("tcn: {}", explain(error));
    let usage = error.is::<UsageError>()
        || matches!(
            error.downcast_ref::<Error>(),
            Some(Error::Invalid { .. } | Error::TooLarge { .. })
        );
    ExitCode::from(if usage { 2 } else { 1 })
}
