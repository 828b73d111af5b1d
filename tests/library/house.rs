//! The order of the house: what src may contain, and where.

mod source;

use std::collections::{BTreeMap, BTreeSet};

use source::{File, end_of_item, files, imports, is_word, plain, unfold, without_tests};

/// Rooms from top to bottom: each imports only from those before it.
const ROOMS: [&str; 17] = [
    "error",
    "geometry",
    "kernels",
    "ops",
    "graph",
    "nn",
    "files",
    "text",
    "series",
    "models",
    "plot",
    "train",
    "generate",
    "distributed",
    "hub",
    "serve",
    "bin",
];

const LONGEST_FILE: usize = 400;
const LONGEST_FUNCTION: usize = 60;

/// Fails if there are offenders, and names them.
fn expect_none(rule: &str, offenders: &[String]) {
    assert!(offenders.is_empty(), "{rule}: {}\n  {}", offenders.len(), offenders.join("\n  "));
}

#[test]
fn a_room_imports_only_from_rooms_above_it() {
    let place = |room: &str| ROOMS.iter().position(|known| *known == room);
    let mut offenders = BTreeSet::new();
    for file in files().iter().filter(|file| !file.is_binary() && file.name != "lib.rs") {
        for path in imports(file) {
            let room = path.split("::").next().unwrap_or_default();
            // a file without a room yet, such as store.rs, is below all of those it may import from
            let is_room = room.chars().all(|c| c.is_lowercase() || c == '_') && room != file.room();
            let below = match (place(file.room()), place(room)) {
                (Some(own), Some(other)) => other > own,
                (Some(_), None) => true,
                (None, _) => false,
            };
            if is_room && below {
                offenders.insert(format!("{} imports {path}", file.name));
            }
        }
    }
    expect_none("imports from a room below", &offenders.into_iter().collect::<Vec<_>>());
}

#[test]
fn no_two_files_import_each_other() {
    let files = files();
    let modules: BTreeMap<String, usize> =
        files.iter().enumerate().map(|(i, file)| (file.module(), i)).collect();
    let mut edges = BTreeSet::new();
    for (from, file) in files.iter().enumerate() {
        for path in imports(file) {
            // the longest beginning of the path that is a file
            let parts: Vec<&str> = path.split("::").collect();
            let to = (1..=parts.len()).rev().find_map(|n| modules.get(&parts[..n].join("::")));
            if let Some(&to) = to.filter(|&&to| to != from) {
                edges.insert((from, to));
            }
        }
    }
    // a file and the module that it is a part of see each other
    let is_part = |a: &str, b: &str| a.starts_with(&format!("{b}::"));
    let both = edges.iter().filter(|&&(a, b)| a < b && edges.contains(&(b, a)));
    let offenders: Vec<String> = both
        .map(|&(a, b)| (&files[a], &files[b]))
        .filter(|(a, b)| !is_part(&a.module(), &b.module()) && !is_part(&b.module(), &a.module()))
        .map(|(a, b)| format!("{} and {}", a.name, b.name))
        .collect();
    expect_none("files that import each other", &offenders);
}

#[test]
fn a_type_name_means_one_type() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files() {
        // associated types stand in the block of an impl or a trait
        let mut inner = Vec::new();
        let mut depth = 0usize;
        for line in &file.code {
            let text = line.trim_start();
            let item = ["pub(crate) ", "pub(super) ", "pub ", "unsafe "]
                .iter()
                .fold(text, |text, prefix| text.strip_prefix(prefix).unwrap_or(text));
            let kind =
                ["struct ", "enum ", "trait ", "type "].iter().find(|k| item.starts_with(**k));
            if let Some(kind) = kind
                && (*kind != "type " || inner.is_empty())
            {
                let rest = &item[kind.len()..];
                let name = &rest[..rest.find(|c: char| !is_word(c)).unwrap_or(rest.len())];
                // `$name` of a macro is none
                if name.is_empty() {
                    continue;
                }
                places.entry(name.to_string()).or_default().push(file.name.clone());
            }
            if ["impl", "trait "].iter().any(|word| item.starts_with(word)) {
                inner.push(depth);
            }
            depth += line.matches('{').count();
            depth -= line.matches('}').count();
            if line.contains('}') && inner.last() == Some(&depth) {
                inner.pop();
            }
        }
    }
    let twice = places.iter().filter(|(_, places)| places.len() > 1);
    let offenders: Vec<_> = twice.map(|(name, at)| format!("{name}: {}", at.join(", "))).collect();
    expect_none("type names defined more than once", &offenders);
}

#[test]
fn the_library_names_no_flag() {
    let is_flag = |line: &str| {
        let mut parts = line.split("--").skip(1);
        let first = |part: &str| part.starts_with(|c: char| c.is_ascii_lowercase());
        let mut before = line.split("--").map(|part| !part.ends_with(is_word));
        line.contains('"') && parts.any(|part| before.next() == Some(true) && first(part))
    };
    let lines = lines(|file| !file.is_binary(), |file, at| is_flag(&file.with_strings[at]));
    expect_none("lines of the library that name a flag", &lines);
}

/// The lines that `matches`, in these files.
fn lines(of: impl Fn(&File) -> bool, matches: impl Fn(&File, usize) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for file in files().iter().filter(|file| of(file)) {
        for (at, line) in file.text.lines().enumerate() {
            if at < file.code.len() && at < file.with_strings.len() && matches(file, at) {
                found.push(format!("{}:{}: {}", file.name, at + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn a_doc_comment_begins_with_what_the_thing_is() {
    const WORDS: [&str; 5] = ["What", "Whether", "How", "Where", "Which"];
    let mut offenders = Vec::new();
    for file in files() {
        let mut before = "";
        for (at, line) in file.text.lines().enumerate() {
            let line = line.trim();
            for sign in ["///", "//!"] {
                let Some(text) = line.strip_prefix(sign) else { continue };
                let first = text.trim().split(' ').next().unwrap_or_default();
                if !before.starts_with(sign) && WORDS.contains(&first.trim_end_matches([',', ':']))
                {
                    offenders.push(format!("{}:{}: {line}", file.name, at + 1));
                }
            }
            before = line;
        }
    }
    expect_none("doc comments that begin with a question word", &offenders);
}

#[test]
fn a_file_and_a_function_are_short() {
    let mut long_files = Vec::new();
    let mut long_functions = Vec::new();
    for file in files() {
        let count = file.text.lines().count();
        if count > LONGEST_FILE {
            long_files.push(format!("{}: {count} lines", file.name));
        }
        for (at, line) in file.code.iter().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let Some(name) = words.iter().position(|word| *word == "fn") else { continue };
            let modifiers =
                ["pub", "pub(crate)", "pub(super)", "const", "unsafe", "async", "extern"];
            if !words[..name]
                .iter()
                .all(|word| modifiers.contains(word) || word.starts_with("pub("))
            {
                continue;
            }
            let length = end_of_item(&file.code, at) - at;
            if length > LONGEST_FUNCTION {
                let name = words.get(name + 1).copied().unwrap_or_default();
                long_functions.push(format!("{}:{}: {name} has {length} lines", file.name, at + 1));
            }
        }
    }
    expect_none("files over 400 lines", &long_files);
    expect_none("functions over 60 lines", &long_functions);
}

#[test]
fn unsafe_code_is_in_the_kernels() {
    let is_unsafe = |file: &File, at: usize| {
        let words = file.code[at].split(|c: char| !is_word(c));
        words.into_iter().any(|word| word == "unsafe")
    };
    let offenders = lines(|file| !file.name.starts_with("kernels/"), is_unsafe);
    expect_none("lines of unsafe code outside src/kernels", &offenders);
}

#[test]
fn the_library_leaves_process_and_terminal_alone() {
    const USES: [&str; 7] =
        ["env::var", "println!", "print!", "eprintln!", "eprint!", "process::exit", "build_global"];
    let used = |file: &File, at: usize| USES.iter().any(|name| file.code[at].contains(name));
    let offenders = lines(|file| !file.is_binary(), used);
    expect_none("uses of the environment or of standard streams in the library", &offenders);
}

#[test]
fn the_scanner_sees_code_only() {
    let text = "a(\"// {\"); // b {\nlet c = '\"'; let d: &'a str = r#\"\"{\"#;\n/* e { */ f\n";
    let code = plain(text, false);
    assert_eq!(code.matches(['{', 'b', 'e']).count(), 1 + 1, "{code}");
    assert!(plain(text, true).contains("\"// {\""));
    let code = "#[cfg(test)]\nmod tests {\n  x\n}\nfn y() {}\n#[cfg(test)]\nmod z;\n";
    let lines = without_tests(code);
    assert_eq!(lines.concat(), "fn y() {}");
    let mut paths = Vec::new();
    unfold("", "crate::{a::{B, c as d}, e};", &mut paths);
    assert_eq!(paths, ["crate::a::B", "crate::a::c", "crate::e"]);
}
