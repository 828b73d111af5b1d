//! The `tcn` command: train, sample and measure sequence models from a terminal.
//!
//! Results go to standard output, progress and messages to standard error. Exit codes: 0 done,
//! 1 failed, 2 wrong usage; 130, 143 and 129 interrupted by SIGINT, SIGTERM and SIGHUP after saving.

/// Writes a line on standard error. An error of that is ignored.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!($crate::terminal::stderr(), $($text)*);
    }};
}

/// Ends a function with wrong use of the command line.
macro_rules! bail_usage {
    ($($text:tt)*) => {
        return Err($crate::usage_error(format!($($text)*)))
    };
}

mod about;
mod advice;
mod bench;
mod convert;
mod documents;
mod embed;
mod eval;
mod fill_mask;
mod flags;
mod generate;
#[cfg(feature = "hub")]
mod hub;
mod info;
mod kernel;
mod line_ends;
mod memory;
mod model;
mod optimizer;
mod predict;
mod progress;
mod receptive_field;
mod run;
mod score;
mod sequences;
mod series_files;
mod series_report;
#[cfg(feature = "serve")]
mod serve;
mod signals;
mod terminal;
mod train;

use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{FromArgMatches, Parser, Subcommand};

use advice::Advice;

/// Dilated causal convolution stacks for sequence modelling: trains on a laptop, streams with constant
/// memory.
#[derive(Parser)]
#[command(name = "tcn", bin_name = "tcn", version, after_long_help = about::ENVIRONMENT)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Threads to compute with (default: all processors); results do not depend on it
    #[arg(long, global = true, value_name = "N", display_order = 900)]
    threads: Option<usize>,
}

#[derive(Subcommand)]
enum Command {
    /// Train a language model from text files (without --data: from a built-in text), or a network on series
    Train(Box<train::TrainArgs>),
    /// Write text with a model (without --model: with a built-in one)
    Generate(generate::GenerateArgs),
    /// Measure a model on a text: every token but the first, with its whole left context; or one of series on series
    Eval(eval::EvalArgs),
    /// Fill in the masks of a sequence with a masked language model
    FillMask(fill_mask::FillMaskArgs),
    /// Score sequences, and changes in them such as mutations and variants, by their log-probability
    Score(score::ScoreArgs),
    /// Compute a vector (embedding) of each sequence
    Embed(embed::EmbedArgs),
    /// Forecast series, or label and classify them, with a network that was trained on series
    Predict(predict::PredictArgs),
    /// Serve models over HTTP, as OpenAI's clients ask for them, with a page to write on
    #[cfg(feature = "serve")]
    Serve(serve::ServeArgs),
    /// Apply any model to tensors of a file
    Run(run::RunArgs),
    /// Convert another project's weights, or a model in another form, into a model directory
    Convert(convert::ConvertArgs),
    /// Describe a model
    Info(info::InfoArgs),
    /// Compute the receptive field of a stack of convolutions, layer by layer
    ReceptiveField(receptive_field::ReceptiveFieldArgs),
    /// Measure how fast this machine trains or runs a network
    Bench(bench::BenchArgs),
    /// Download a model from the Hugging Face Hub; prints its directory
    #[cfg(feature = "hub")]
    Pull(hub::PullArgs),
    /// Upload a model directory to the Hugging Face Hub (needs a token with write access); prints its address
    #[cfg(feature = "hub")]
    Push(hub::PushArgs),
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

/// Wrong use of the command line: exit code 2. The text is empty where the causes say all.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// An error that ends the program with exit code 2.
fn usage_error(message: impl Into<String>) -> anyhow::Error {
    UsageError(message.into()).into()
}

/// The run was stopped by a signal and saved: exit code 128 and the signal's number.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
struct Interrupted;

/// Writes a line of the result, at once.
fn print_line(line: impl std::fmt::Display) -> anyhow::Result<()> {
    let mut out = terminal::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Writes the result, as one JSON object or as text.
fn print_result(
    as_json: bool,
    facts: serde_json::Value,
    text: impl std::fmt::Display,
) -> anyhow::Result<()> {
    match as_json {
        true => print_line(facts),
        false => print_line(text),
    }
}

fn main() -> ExitCode {
    report_panics();
    let mut advice = Advice::default();
    let done = parse().and_then(|(cli, of_command)| {
        advice = of_command;
        execute(cli)
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit_code(&error, &advice),
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
            say!("tokenizers: {}", panic.payload_as_str().unwrap_or("panicked"));
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
fn parse() -> anyhow::Result<(Cli, Advice)> {
    let mut command = about::command();
    let parsed = command.try_get_matches_from_mut(std::env::args_os()).and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches)?;
        Ok((cli, Advice::new(&command, &matches)))
    });
    parsed.map_err(|error| {
        if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            error.exit();
        }
        let text = error.to_string();
        let said = text
            .split("\n\n")
            .map(str::trim)
            .take_while(|part| !part.starts_with("Usage:") && !part.starts_with("For more"));
        let said = said.collect::<Vec<_>>().join("; ");
        let words = said.trim_start_matches("error: ").split_whitespace();
        let mut message = words.collect::<Vec<_>>().join(" ");
        if error.kind() == ErrorKind::MissingRequiredArgument {
            message += &format!("; see {} --help", asked(&text));
        }
        usage_error(message)
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
    // a wrong one is told before any work
    kernel::from_environment()?;
    if let Some(threads) = cli.threads {
        if !(1..=1024).contains(&threads) {
            bail_usage!("--threads: expected a whole number from 1 to 1024, found {threads}");
        }
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    let Some(command) = cli.command else {
        return print_line(about::FIRST_STEPS);
    };
    match command {
        Command::Train(args) => train::run(*args),
        Command::Generate(args) => generate::run(args),
        Command::Eval(args) => eval::run(args),
        Command::FillMask(args) => fill_mask::run(args),
        Command::Score(args) => score::run(args),
        Command::Embed(args) => embed::run(args),
        Command::Predict(args) => predict::run(args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(args),
        Command::Run(args) => run::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Info(args) => info::run(args),
        Command::ReceptiveField(args) => receptive_field::run(args),
        Command::Bench(args) => bench::run(args),
        #[cfg(feature = "hub")]
        Command::Pull(args) => hub::run_pull(args),
        #[cfg(feature = "hub")]
        Command::Push(args) => hub::run_push(args),
        Command::Completions { shell } => about::completions(shell),
        Command::Man { command } => about::manual(command.as_deref()),
    }
}

/// Reports the error and chooses the exit code. A closed pipe is no error: whoever read had enough.
fn exit_code(error: &anyhow::Error, advice: &Advice) -> ExitCode {
    use candle_tcn::Error;
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    if causes.any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    if error.is::<Interrupted>() {
        return ExitCode::from(signals::interrupted_code());
    }
    say!("tcn: {}", advice.explain(error));
    let usage = error.is::<UsageError>()
        || matches!(
            error.downcast_ref::<Error>(),
            Some(Error::Invalid { .. } | Error::TooLarge { .. })
        );
    ExitCode::from(if usage { 2 } else { 1 })
}
