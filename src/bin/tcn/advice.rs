//! Errors for a user of this program: the library names fields and facts, here they become flags and advice.

use candle_tcn::{Error, Occupant};
use clap::ArgMatches;
use clap::parser::ValueSource;

/// Fields that a network's own configuration has too: they mean a flag only where that was given.
const OF_NETWORKS: [&str; 7] =
    ["base", "dilations", "dropout", "kernel_size", "levels", "stacks", "vocab_size"];

/// Advice on an invalid field; it is given where the command has all flags that it names.
const OF_FIELDS: [(&str, &str); 4] = [
    ("clip", "--clip 0 sets no limit"),
    ("data position", "resume with the same --data, --tokenizer, --batch-size and --seq-len"),
    ("logit_bias", "to forbid a text use --ban"),
    ("text", "lower --batch-size or --seq-len, or give more text"),
];

/// Advice on a message that says this of a file or of the Hub; it is given as that of fields is.
const OF_MESSAGES: [(&str, &str); 3] = [
    ("expected one dict of tensors", "--key chooses one"),
    ("found JSON", "a configuration belongs to --arguments"),
    ("expected a private", "or leave out --private"),
];

/// The flags of the command that runs.
#[derive(Default)]
pub struct Advice(Vec<Flag>);

struct Flag {
    field: String,
    name: String,
    is_given: bool,
}

impl Advice {
    /// Reads the flags of the command that `matches` chose.
    pub fn new(program: &clap::Command, matches: &ArgMatches) -> Self {
        let Some((name, matches)) = matches.subcommand() else {
            return Self::default();
        };
        let arguments = program.find_subcommand(name).into_iter().flat_map(|c| c.get_arguments());
        let flag = |argument: &clap::Arg| {
            let (id, long) = (argument.get_id(), argument.get_long()?);
            let set = matches.ids().find(|set| *set == id);
            let source = set.and_then(|id| matches.value_source(id.as_str()));
            Some(Flag {
                field: id.to_string(),
                name: format!("--{long}"),
                is_given: source == Some(ValueSource::CommandLine),
            })
        };
        Self(arguments.filter_map(flag).collect())
    }

    /// The error with its causes, each said once.
    pub fn explain(&self, error: &anyhow::Error) -> String {
        let texts = error.chain().map(|cause| match cause.downcast_ref::<Error>() {
            Some(error) => self.explain_own(error),
            None => cause.to_string(),
        });
        texts
            .filter(|text| !text.is_empty())
            .reduce(|text, cause| match text.ends_with(&cause) {
                true => text,
                false => format!("{text}: {cause}"),
            })
            .unwrap_or_default()
    }

    fn explain_own(&self, error: &Error) -> String {
        let facts = match error {
            Error::Invalid { field, expected, found } => {
                let fields = field.split(" with ").map(|name| self.flag(name).unwrap_or(name));
                let fields = fields.collect::<Vec<_>>().join(" with ");
                Error::invalid(fields, self.with_flags(expected), found).to_string()
            }
            Error::TooLarge { what, detail } => {
                Error::too_large(what, self.with_flags(detail)).to_string()
            }
            other => other.to_string(),
        };
        match advice(error).filter(|advice| self.has_all_of(advice)) {
            Some(advice) => format!("{facts}; {advice}"),
            None => facts,
        }
    }

    fn flag(&self, field: &str) -> Option<&str> {
        let flag = self.0.iter().find(|flag| flag.field == field)?;
        (flag.is_given || !OF_NETWORKS.contains(&field)).then_some(&flag.name)
    }

    /// The text with names of fields, such as `seq_len`, as flags. Plain words may be no names and stay.
    fn with_flags(&self, text: &str) -> String {
        let is_end = |c: char| !c.is_alphanumeric() && c != '_';
        let parts = text.split_inclusive(is_end).map(|part| {
            let name = part.trim_end_matches(is_end);
            match self.flag(name).filter(|_| name.contains('_')) {
                Some(flag) => part.replacen(name, flag, 1),
                None => part.to_string(),
            }
        });
        parts.collect()
    }

    fn has_all_of(&self, advice: &str) -> bool {
        let words = advice.split([' ', ',', ';']).filter(|word| word.starts_with("--"));
        words.into_iter().all(|word| self.0.iter().any(|flag| flag.name == word))
    }
}

/// A way to mend an error, in flags.
fn advice(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::Invalid { found, .. } if found.contains("masked language model") => {
            "use tcn fill-mask"
        }
        Error::TooLarge { what, .. } if what == "int8" => "take --dtype bf16",
        Error::Invalid { expected, .. } if expected == "no missing values" => {
            "--missing last takes the last value, --missing mask also says so to the network"
        }
        Error::Invalid { expected, .. } if expected == "two different values at the least" => {
            "leave the column out by --ignore"
        }
        Error::Invalid { field, .. } => OF_FIELDS.iter().find(|(name, _)| name == field)?.1,
        Error::File { message, .. } | Error::Hub { message, .. } => {
            OF_MESSAGES.iter().find(|(fact, _)| message.contains(fact))?.1
        }
        Error::NotFinite { .. } => {
            "lower --lr or --clip and start again with --force, or, where there is a checkpoint, go on from it with --resume"
        }
        Error::NotText { .. } => "--tokenizer byte accepts any bytes",
        Error::TokenBytes => "leave out --ban, --allow and --min-tokens",
        Error::NoCheckpoint { .. } => "start anew with --force instead of --resume",
        Error::Occupied { by, .. } => match by {
            Occupant::Run => {
                "continue it with --resume, replace it with --force, or choose another --out"
            }
            Occupant::UnsavedRun => "replace it with --force, or choose another --out",
            Occupant::Others => "nothing was removed; choose another --out",
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(arguments: &str, error: Error) -> String {
        let mut program = crate::about::command();
        let matches = program.try_get_matches_from_mut(arguments.split(' ')).unwrap();
        Advice::new(&program, &matches).explain(&error.into())
    }

    #[test]
    fn a_field_that_is_an_argument_becomes_its_flag() {
        let short = || Error::invalid("text", "9 tokens (batch_size 3, seq_len 3)", 8);
        assert_eq!(
            explained("tcn train", short()),
            "text: expected 9 tokens (--batch-size 3, --seq-len 3), found 8; lower --batch-size or --seq-len, or give more text"
        );
        assert_eq!(explained("tcn pull a/b", short()), short().to_string());
        let both = Error::invalid("ban with min_tokens", "a token", "none");
        assert!(explained("tcn generate", both).starts_with("--ban with --min-tokens: "));
    }

    #[test]
    fn a_field_of_a_configuration_is_no_flag() {
        let error = || Error::invalid("dropout", "less", 2);
        assert_eq!(explained("tcn train", error()), "dropout: expected less, found 2");
        assert!(explained("tcn train --dropout 2", error()).starts_with("--dropout: "));
    }

    #[test]
    fn advice_names_only_flags_that_there_are() {
        let error = || Error::NotText { path: Some("a".into()), message: "no text".into() };
        assert_eq!(
            explained("tcn train", error()),
            "a: no text; --tokenizer byte accepts any bytes"
        );
        assert_eq!(explained("tcn eval --data a", error()), "a: no text");
    }

    #[test]
    fn a_sum_too_deep_for_int8_has_a_way_out() {
        let error = || Error::too_large("int8", "more than are supported");
        let text = explained("tcn generate --model a", error());
        assert_eq!(text, "int8 is too large: more than are supported; take --dtype bf16");
        assert_eq!(explained("tcn pull a/b", error()), error().to_string());
    }

    #[test]
    fn every_flag_in_an_advice_exists() {
        let program = crate::about::command();
        let texts = OF_FIELDS.map(|(_, text)| text);
        for text in texts {
            let fits = program.get_subcommands().any(|command| {
                let flags = command.get_arguments().filter_map(|a| a.get_long());
                let flags: Vec<_> = flags.map(|long| format!("--{long}")).collect();
                text.split([' ', ','])
                    .filter(|w| w.starts_with("--"))
                    .all(|w| flags.iter().any(|f| f == w))
            });
            assert!(fits, "{text}");
        }
    }
}
