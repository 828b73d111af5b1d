//! `tcn generate`: text, as it is made.

mod answers;
mod args;
mod interactive;
mod output;

pub use args::GenerateArgs;

use std::path::Path;

use candle_tcn::files::is_standard_input;
use candle_tcn::generate::Generator;
use candle_tcn::text::{TokenStream, Tokenizer};

use crate::flags::{first_of, refuse_existing, with_code_points};
use crate::model::{self, unknown_tokens, warn_of_unknown};
use crate::progress::read_through;
use crate::{line_ends, signals};

pub fn run(args: GenerateArgs) -> anyhow::Result<()> {
    check(&args)?;
    signals::keep_signals("")?;
    let loaded = model::load(args.model.as_deref())?;
    let tokenizer = loaded.tokenizer()?;
    let config = args.config(tokenizer, loaded.model.graph().restart())?;
    let seed = config.sampler.seed;
    let stepper = loaded.model.stepper(args.dtype.step_of(&loaded))?;
    if args.each_line {
        return answers::run(&args, &stepper, tokenizer);
    }
    let mut generator = Generator::new(&stepper, tokenizer, config)?;
    if let Some(path) = &args.load_state {
        generator.load_state(path)?;
    }
    read_prompt(&args, &mut generator, tokenizer)?;
    if args.is_unseeded() {
        say!("seed {seed}");
    }
    let done = match args.interactive {
        true => interactive::run(&mut generator, tokenizer),
        false => write(&args, seed, &mut generator, tokenizer),
    };
    // after Ctrl-C or a closed pipe too, but not after a failure of the model
    let failed = matches!(&done, Err(error) if error.is::<candle_tcn::Error>());
    if let Some(path) = args.save_state.as_ref().filter(|_| !failed) {
        generator.save_state(path)?;
    }
    done
}

fn check(args: &GenerateArgs) -> anyhow::Result<()> {
    args.check_effects()?;
    if args.save_state.is_some() && args.num_samples != 1 {
        bail_usage!(
            "--save-state: keeps the state of a single text, found --num-samples {}; save the prompt's with --max-tokens 0, then load it for several",
            args.num_samples
        );
    }
    if let Some(path) = &args.save_state {
        // going on with one's own state replaces it
        let real = |path: &Path| std::fs::canonicalize(path).ok();
        let own = args.load_state.as_ref().is_some_and(|loaded| real(loaded) == real(path));
        refuse_existing("--save-state", path, args.force || own)?;
    }
    if args.interactive && args.prompt_source().is_some_and(is_standard_input) {
        bail_usage!(
            "--interactive: reads standard input itself, expected the prompt from --prompt or a file"
        );
    }
    Ok(())
}

fn read_prompt(
    args: &GenerateArgs,
    generator: &mut Generator,
    tokenizer: &Tokenizer,
) -> anyhow::Result<()> {
    // what stands before them does not matter
    let needed = generator.prompt_len();
    let mut last = Vec::new();
    let mut read = |tokens: &[u32]| -> anyhow::Result<bool> {
        last.extend_from_slice(tokens);
        last.drain(..last.len().saturating_sub(needed));
        Ok(!signals::has_come())
    };
    match args.prompt_source() {
        Some(path) => {
            // an empty file is an empty prompt
            let mut stream = TokenStream::open_near_end(path, tokenizer, needed)?.or_empty();
            read_through(&mut stream, "reading", None, read)?;
            let name = match is_standard_input(path) {
                true => "standard input".to_string(),
                false => path.display().to_string(),
            };
            warn_of_unknown(&name, unknown_tokens(tokenizer, &last), "");
            line_ends::compare_with_model(&name, stream.start(), tokenizer);
        }
        None => {
            read(&args.encode(tokenizer, &args.prompt)?)?;
            tell_unknown(&args.prompt, tokenizer);
        }
    }
    generator.read_tokens(&last)?;
    signals::expect_none()
}

/// Names the characters of a prompt that the tokenizer has no token for.
fn tell_unknown(prompt: &str, tokenizer: &Tokenizer) {
    if tokenizer.unknown_id().is_none() {
        return;
    }
    let unknown = tokenizer.unknown_chars(prompt);
    if !unknown.is_empty() {
        let names = unknown.iter().map(|c| with_code_points(&c.to_string()));
        say!("--prompt: the model does not know {}", first_of(names, 5));
    }
}

/// Writes the samples; the generator then is where a single one ended.
fn write(
    args: &GenerateArgs,
    seed: u64,
    generator: &mut Generator,
    tokenizer: &Tokenizer,
) -> anyhow::Result<()> {
    let mut generation = generator.samples(0..args.num_samples)?;
    let prompt = args.shown_prompt();
    let written = match args.json {
        true => output::json_lines(&mut generation, tokenizer, seed, prompt),
        false => output::texts(&mut generation, args.num_samples, prompt.unwrap_or_default()),
    };
    let went_on = match args.save_state {
        Some(_) => generator.go_on(generation),
        None => Ok(()),
    };
    written?;
    went_on?;
    signals::expect_none()
}
