//! Which files of a repository a model needs.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};

/// Where weights may be, best first; an index names the shards beside it.
const WEIGHTS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// An index of 64 MiB names the tensors of far more than any model here.
pub const MAX_INDEX_BYTES: u64 = 64 << 20;

const MAX_SHARDS: usize = 10_000;

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
        false => files.extend(
            ["vocab.txt", "tokenizer_config.json"]
                .iter()
                .filter(|f| has(f)),
        ),
    }
    files.extend(["README.md"].iter().filter(|f| has(f)));
    let weights = WEIGHTS.into_iter().find(|f| has(f)).ok_or_else(|| {
        format!(
            "there are no weights: expected one of {}",
            WEIGHTS.join(", ")
        )
    })?;
    files.push(weights);
    Ok(Selection {
        files,
        sharded: weights.ends_with(".index.json"),
    })
}

/// The files that an index of shards names, each a plain path within the repository.
pub fn shards(index: &[u8]) -> Result<BTreeSet<String>, String> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: Files,
    }
    let index: Index = serde_json::from_slice(index).map_err(|error| error.to_string())?;
    let files = index.weight_map.0;
    if files.is_empty() {
        return Err("weight_map: expected tensors and their files, found none".into());
    }
    if let Some(file) = files.iter().find(|file| !is_plain(file)) {
        return Err(format!(
            "weight_map: expected names of files in the repository, found {file:?}"
        ));
    }
    Ok(files)
}

/// A path that stays in its folder.
pub fn is_plain(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\\', ':', '\0'])
        && Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

/// The distinct values of a map; a million tensors have few files.
struct Files(BTreeSet<String>);

impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Files;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map of tensors to files")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Files, A::Error> {
                let mut files = BTreeSet::new();
                while let Some((IgnoredAny, file)) = map.next_entry::<IgnoredAny, String>()? {
                    files.insert(file);
                    if files.len() > MAX_SHARDS {
                        return Err(serde::de::Error::custom(format_args!(
                            "more than {MAX_SHARDS} files"
                        )));
                    }
                }
                Ok(Files(files))
            }
        }
        deserializer.deserialize_map(Collect)
    }
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
            [
                "config.json",
                "tokenizer.json",
                "README.md",
                "model.safetensors"
            ]
        );
        assert!(!selection.sharded);

        let old = of(&[
            "config.json",
            "vocab.txt",
            "tokenizer_config.json",
            "pytorch_model.bin",
        ]);
        assert_eq!(
            old.unwrap().files,
            [
                "config.json",
                "vocab.txt",
                "tokenizer_config.json",
                "pytorch_model.bin"
            ]
        );
        assert!(
            of(&["config.json", "model.safetensors.index.json"])
                .unwrap()
                .sharded
        );
        assert!(
            of(&["model.safetensors"])
                .unwrap_err()
                .contains("config.json")
        );
        assert!(
            of(&["config.json"])
                .unwrap_err()
                .contains("pytorch_model.bin")
        );
    }

    #[test]
    fn an_index_names_plain_files_only() {
        let index = br#"{"metadata":{"total_size":9},"weight_map":{"a":"m-2.safetensors","b":"m-1.safetensors","c":"m-2.safetensors"}}"#;
        let files: Vec<_> = shards(index).unwrap().into_iter().collect();
        assert_eq!(files, ["m-1.safetensors", "m-2.safetensors"]);
        for bad in ["../x", "/etc/passwd", "a/../../x", "", "c:\\\\x"] {
            let index = format!(r#"{{"weight_map":{{"a":"{bad}"}}}}"#);
            assert!(shards(index.as_bytes()).is_err(), "{bad}");
        }
        assert!(shards(br#"{"weight_map":{}}"#).is_err());
        assert!(shards(b"{").is_err());
        let entries: Vec<_> = (0..MAX_SHARDS + 1)
            .map(|i| format!("\"t{i}\":\"f{i}\""))
            .collect();
        let index = format!("{{\"weight_map\":{{{}}}}}", entries.join(","));
        assert!(shards(index.as_bytes()).unwrap_err().contains("10000"));
    }
}
