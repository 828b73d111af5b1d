//! Which files of a repository a model needs.

use crate::weights::FILES;

/// The files of a model but for its shards: names and the index, if there is one.
#[derive(Debug, PartialEq)]
pub struct Selection {
    /// Files, the smallest first.
    pub files: Vec<&'static str>,
    /// The last of them is an index of shards.
    pub sharded: bool,
}

/// What to take from a repository in which `has` tells whether there is a file.
///
/// # Errors
/// Says what is missing.
pub fn select(has: impl Fn(&str) -> bool) -> Result<Selection, String> {
    if !has("config.json") {
        return Err("there is no config.json: this is no model that can be loaded".into());
    }
    let mut files = vec!["config.json"];
    match has("tokenizer.json") {
        true => files.push("tokenizer.json"),
        false => files.extend(["vocab.txt", "tokenizer_config.json"].iter().filter(|f| has(f))),
    }
    files.extend(["README.md"].iter().filter(|f| has(f)));
    let weights = FILES
        .into_iter()
        .find(|f| has(f))
        .ok_or_else(|| format!("there are no weights: expected one of {}", FILES.join(", ")))?;
    files.push(weights);
    Ok(Selection { files, sharded: weights.ends_with(".index.json") })
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
        assert_eq!(
            selection.files,
            ["config.json", "tokenizer.json", "README.md", "model.safetensors"]
        );
        assert!(!selection.sharded);

        let old = of(&["config.json", "vocab.txt", "tokenizer_config.json", "pytorch_model.bin"]);
        assert_eq!(
            old.unwrap().files,
            ["config.json", "vocab.txt", "tokenizer_config.json", "pytorch_model.bin"]
        );
        assert!(of(&["config.json", "model.safetensors.index.json"]).unwrap().sharded);
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
