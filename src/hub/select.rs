//! Selection of the files of a repository that a model needs.

use crate::files::names::{CARD, CONFIG, TOKENIZER, TOKENIZER_CONFIG, VOCABULARY, WEIGHTS_FILES};

/// The files of a model but for its shards: names and the index, if there is one.
#[derive(Debug, PartialEq)]
pub struct Selection {
    /// All but the weights, the smallest first.
    pub files: Vec<&'static str>,
    /// The weights, or the index of their shards.
    pub weights: &'static str,
}

impl Selection {
    /// `true` if the weights are in several files.
    pub fn is_sharded(&self) -> bool {
        self.weights.ends_with(".index.json")
    }
}

/// Selects from a repository; `has` is true for the files that there are.
///
/// # Errors
/// Says what is missing.
pub fn select(has: impl Fn(&str) -> bool) -> Result<Selection, String> {
    if !has(CONFIG) {
        return Err(format!("there is no {CONFIG}: this is no model that can be loaded"));
    }
    let mut files = vec![CONFIG];
    match has(TOKENIZER) {
        true => files.push(TOKENIZER),
        false => files.extend([VOCABULARY, TOKENIZER_CONFIG].iter().filter(|name| has(name))),
    }
    files.extend([CARD].iter().filter(|name| has(name)));
    let weights = WEIGHTS_FILES.into_iter().find(|name| has(name));
    let weights = weights.ok_or_else(|| {
        format!("there are no weights: expected one of {}", WEIGHTS_FILES.join(", "))
    })?;
    Ok(Selection { files, weights })
}

/// A path that stays in its folder.
pub fn is_plain(path: &str) -> bool {
    let is_name = |part: &str| !matches!(part, "" | "." | "..");
    !path.contains(['\\', ':', '\0']) && path.split('/').all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[&str]) -> Result<Selection, String> {
        select(|name| files.contains(&name))
    }

    #[test]
    fn takes_the_best_of_each_and_nothing_else() {
        let all = [
            "README.md",
            "config.json",
            "model.safetensors",
            "model.safetensors.index.json",
            "optimizer.pt",
            "pytorch_model.bin",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.txt",
        ];
        let selection = of(&all).unwrap();
        assert_eq!(selection.files, ["config.json", "tokenizer.json", "README.md"]);
        assert_eq!(selection.weights, "model.safetensors");
        assert!(!selection.is_sharded());

        let old = of(&["config.json", "vocab.txt", "tokenizer_config.json", "pytorch_model.bin"]);
        let old = old.unwrap();
        assert_eq!(old.files, ["config.json", "vocab.txt", "tokenizer_config.json"]);
        assert_eq!(old.weights, "pytorch_model.bin");
        assert!(of(&["config.json", "model.safetensors.index.json"]).unwrap().is_sharded());
        assert!(of(&["model.safetensors"]).unwrap_err().contains("config.json"));
        assert!(of(&["config.json"]).unwrap_err().contains("pytorch_model.bin"));
    }

    #[test]
    fn paths_stay_in_the_repository() {
        for plain in ["config.json", "deep/er/weights.bin", "a b"] {
            assert!(is_plain(plain), "{plain}");
        }
        for bad in ["../x", "/etc/passwd", "a/../../x", "", "a//b", "a/./b", "a/", "c:\\x", "a\0"] {
            assert!(!is_plain(bad), "{bad}");
        }
    }
}
