//! Texts about the program: first steps, version, completions, manual pages.

use std::any::TypeId;

use candle_tcn::kernels::Kernel;
use clap::CommandFactory;

use crate::receptive_field::Size;
use crate::{Cli, kernel, print_line, usage_error};

/// Output of `tcn` alone.
pub const FIRST_STEPS: &str = "\
tcn generate --prompt \"And God said\"              write with the built-in model
tcn train --data TEXT --minutes 3                 train on a text of your own
tcn receptive-field --levels 6 --kernel-size 3    what a stack of convolutions sees
tcn bench train                                   how fast this machine trains
tcn --help, tcn COMMAND --help                    everything else";

/// The end of the long help.
pub const ENVIRONMENT: &str = "\
Environment:
  TCN_KERNEL               the kernel: amx, avx512, avx2, portable, reference or candle (default: the fastest)
  HF_TOKEN                 access token of the Hub, also in the file that HF_TOKEN_PATH names
  HF_HOME, HF_HUB_CACHE    where models of the Hub are kept
  HF_ENDPOINT              another address of the Hub
  HF_HUB_OFFLINE           1: use the kept models only
  HF_HUB_DOWNLOAD_TIMEOUT  seconds that a server may be silent
  TCN_HUB_INSECURE         1: send the token over plain http
  SSL_CERT_FILE            certificates to check servers by

Exit codes:
  0 done; 1 failed; 2 wrong usage; 130, 143, 129 interrupted by SIGINT, SIGTERM, SIGHUP after saving";

/// The command line, with a version that tells what it runs with.
pub fn command() -> clap::Command {
    // it lives as long as the program
    let command = Cli::command().long_version(&*version().leak());
    // a negative number is a wrong value, not an unknown flag
    let signed = |argument: clap::Arg| match is_number(&argument) {
        true => argument.allow_negative_numbers(true),
        false => argument,
    };
    command.mut_args(signed).mut_subcommands(|command| command.mut_args(signed))
}

/// `true` if the value of an argument is a number or a size.
fn is_number(argument: &clap::Arg) -> bool {
    let kind = argument.get_value_parser().type_id();
    let numbers =
        [TypeId::of::<usize>(), TypeId::of::<u64>(), TypeId::of::<f64>(), TypeId::of::<Size>()];
    argument.get_action().takes_values() && numbers.iter().any(|number| kind == *number)
}

fn version() -> String {
    let commit = match option_env!("TCN_COMMIT") {
        Some(commit) => format!(" ({commit})"),
        None => String::new(),
    };
    macro_rules! features {
        ($($name:tt)*) => { [$(($name, cfg!(feature = $name))),*] };
    }
    let features = features!["cli" "hub" "cuda" "metal" "mkl" "accelerate"];
    let features = names(features.into_iter());
    let kernels = names(Kernel::ALL.into_iter().map(|k| (k.name(), k.is_available())));
    format!(
        "{}{commit}\nfeatures: {features}\nkernel: {}, of {kernels}\nprocessor: {}, {}",
        env!("CARGO_PKG_VERSION"),
        kernel::chosen().name(),
        std::env::consts::ARCH,
        names(processor().into_iter()),
    )
}

fn names<'a>(named: impl Iterator<Item = (&'a str, bool)>) -> String {
    let there = named.filter(|(_, there)| *there).map(|(name, _)| name);
    there.collect::<Vec<_>>().join(" ")
}

/// Features of the processor that the kernels use.
#[cfg(target_arch = "x86_64")]
fn processor() -> Vec<(&'static str, bool)> {
    // the standard macro takes literals only
    macro_rules! features {
        ($($name:tt)*) => {
            vec![$(($name, std::arch::is_x86_feature_detected!($name)),)* ("amx", Kernel::Amx.is_available())]
        };
    }
    features!["avx2" "fma" "avx512f" "avx512bw" "avx512dq" "avx512vl" "avx512bf16" "avx512vnni"]
}

#[cfg(not(target_arch = "x86_64"))]
fn processor() -> Vec<(&'static str, bool)> {
    Vec::new()
}

/// Prints the script for a shell.
pub fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tcn", &mut script);
    print_line(String::from_utf8(script)?.trim_end())
}

/// Prints the manual page of the program or of a command, in roff.
pub fn manual(name: Option<&str>) -> anyhow::Result<()> {
    let mut command = Cli::command();
    command.build();
    if let Some(name) = name {
        let found = command.get_subcommands().find(|command| command.get_name() == name);
        let names: Vec<_> = command.get_subcommands().map(clap::Command::get_name).collect();
        let wrong = || usage_error(format!("expected one of {}, found {name}", names.join(", ")));
        command = found.ok_or_else(wrong)?.clone().display_name(format!("tcn-{name}"));
    }
    let mut page = Vec::new();
    let version = concat!("tcn ", env!("CARGO_PKG_VERSION"));
    let manual = clap_mangen::Man::new(command).source(version);
    manual.render(&mut page)?;
    print_line(String::from_utf8(page)?.trim_end())
}
