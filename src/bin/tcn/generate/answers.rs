//! An answer to each line: `tcn generate --prompt-file FILE --each-line`.

use candle_tcn::generate::{BeamConfig, answers};
use candle_tcn::models::Stepper;
use candle_tcn::text::{Documents, Inputs, Tokenizer};
use serde_json::json;

use super::GenerateArgs;
use crate::{print_line, signals};

/// Lines that are answered together.
const TOGETHER: usize = 64;

pub fn run(args: &GenerateArgs, stepper: &Stepper, tokenizer: &Tokenizer) -> anyhow::Result<()> {
    let config = BeamConfig {
        beams: args.beams,
        max_tokens: args.max_tokens,
        length_penalty: args.length_penalty,
    };
    let Some(file) = &args.prompt_file else {
        bail_usage!("--each-line: expected the lines in --prompt-file FILE");
    };
    let mut lines = Documents::Lines.of(&Inputs::find(std::slice::from_ref(file))?, false);
    loop {
        let some = lines.by_ref().take(TOGETHER).collect::<candle_tcn::Result<Vec<_>>>()?;
        if some.is_empty() {
            return Ok(());
        }
        let mut prompts = Vec::new();
        for line in &some {
            let text = String::from_utf8_lossy(line).into_owned() + &args.prompt_end;
            prompts.push(args.encode(tokenizer, &text)?);
        }
        let found = answers(stepper, tokenizer, &prompts, &config)?;
        for (line, answer) in some.iter().zip(found) {
            match args.json {
                true => print_line(json!({
                    "prompt": String::from_utf8_lossy(line),
                    "text": answer.text,
                    "tokens": answer.tokens,
                    "logprob": answer.logprob,
                    "finish_reason": answer.reason,
                }))?,
                // one line for each
                false => print_line(answer.text.replace('\n', "\\n"))?,
            }
        }
        signals::expect_none()?;
    }
}
