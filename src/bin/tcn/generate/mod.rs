//! `tcn generate`: text, as it is made.

mod args;
mod interactive;
mod output;

pub use args::Args;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_tcn::generate::Generator;
use candle_tcn::text::{TokenStream, Tokenizer};

use crate::flags::refuse_existing;
use crate::model::{self, unknown_tokens, warn_of_unknown};
use crate::progress::{on_signals, read_through};
use crate::{Interrupted, usage_error};

/// The name of standard input.
const STANDARD_INPUT: &str = "-";

pub fn run(args: Args) -> anyhow::Result<()> {
    check(&args)?;
    let interrupted = on_signals("")?;
    let loaded = model::load(args.model.as_deref())?;
    let tokenizer = loaded.tokenizer()?;
    let config = args.config(tokenizer)?;
    let seed = config.sampler.seed;
    let stepper = loaded.model.stepper(args.dtype.step_of(&loaded))?;
    let mut generator = Generator::new(&stepper, tokenizer, config)?;
    if let Some(path) = &args.load_state {
        generator.load_state(path)?;
    }
    read_prompt(&args, &mut generator, tokenizer, &interrupted)?;
    if args.is_unseeded() {
        say!("seed {seed}");
    }
    let done = match args.interactive {
        true => interactive::run(&mut generator, tokenizer, &interrupted),
        false => write(&args, &mut generator, tokenizer, &interrupted),
    };
    // after Ctrl-C or a closed pipe too, but not after a failure of the model
    let failed = matches!(&done, Err(error) if error.is::<candle_tcn::Error>());
    if let Some(path) = args.save_state.as_ref().filter(|_| !failed) {
        generator.save_state(path)?;
    }
    done
}

fn check(args: &Args) -> anyhow::Result<()> {
    if args.save_state.is_some() && args.num_samples != 1 {
        return Err(usage_error(format!(
            "--save-state: keeps the state of a single text, found --num-samples {}; save the prompt's with --max-tokens 0, then load it for several",
            args.num_samples
        )));
    }
    if let Some(path) = &args.save_state {
        // going on with one's own state replaces it
        let real = |path: &Path| std::fs::canonicalize(path).ok();
        let own = args
            .load_state
            .as_ref()
            .is_some_and(|loaded| real(loaded) == real(path));
        refuse_existing("--save-state", path, args.force || own)?;
    }
    if args.interactive && reads_standard_input(args) {
        return Err(usage_error(
            "--interactive: reads standard input itself, expected the prompt from --prompt or a file",
        ));
    }
    Ok(())
}

fn reads_standard_input(args: &Args) -> bool {
    let file = args.prompt_file.as_deref();
    args.prompt == STANDARD_INPUT || file == Some(Path::new(STANDARD_INPUT))
}

fn read_prompt(
    args: &Args,
    generator: &mut Generator,
    tokenizer: &Tokenizer,
    interrupted: &AtomicBool,
) -> anyhow::Result<()> {
    let mut unknown = 0;
    let mut read = |tokens: &[u32]| -> anyhow::Result<bool> {
        unknown += unknown_tokens(tokenizer, tokens);
        generator.read_tokens(tokens)?;
        Ok(!interrupted.load(Ordering::SeqCst))
    };
    if reads_standard_input(args) {
        let mut stream = TokenStream::new(std::io::stdin().lock(), tokenizer);
        read_through(&mut stream, "reading", 0, read)?;
        warn_of_unknown(&"standard input", unknown);
    } else if let Some(path) = &args.prompt_file {
        let len = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        // an empty file is an empty prompt
        let mut stream = TokenStream::open(path, tokenizer)?.or_empty();
        read_through(&mut stream, "reading", len, &mut read)?;
        warn_of_unknown(&path.display(), unknown);
    } else {
        read(&tokenizer.encode(&args.prompt)?)?;
        warn_of_unknown(&"--prompt", unknown);
    }
    match interrupted.load(Ordering::SeqCst) {
        true => Err(Interrupted.into()),
        false => Ok(()),
    }
}

/// Writes the samples; the generator then is where a single one ended.
fn write(
    args: &Args,
    generator: &mut Generator,
    tokenizer: &Tokenizer,
    interrupted: &AtomicBool,
) -> anyhow::Result<()> {
    let mut generation = generator.samples(0..args.num_samples)?;
    let written = if args.json {
        output::json_lines(&mut generation, tokenizer, interrupted)
    } else {
        let prompt = if reads_standard_input(args) {
            ""
        } else {
            &args.prompt
        };
        output::texts(&mut generation, args.num_samples, prompt, interrupted)
    };
    let went_on = match args.save_state {
        Some(_) => generator.go_on(generation),
        None => Ok(()),
    };
    written?;
    went_on?;
    match interrupted.load(Ordering::SeqCst) {
        true => Err(Interrupted.into()),
        false => Ok(()),
    }
}
