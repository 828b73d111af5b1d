//! The order of the house: what src may contain, and where.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

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

/// A file of src: whole, and as code without comments, strings and tests.
struct File {
    /// Below src, such as `text/stream/near_end.rs`.
    name: String,
    text: String,
    /// The lines of the file; comments, contents of strings and test items are blank.
    code: Vec<String>,
    /// The same with the contents of strings.
    with_strings: Vec<String>,
}

impl File {
    fn room(&self) -> &str {
        let first = self.name.split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs")
    }

    /// The path of the module in the crate: `text::stream::near_end`.
    fn module(&self) -> String {
        let path = self.name.trim_end_matches(".rs").trim_end_matches("/mod");
        path.replace('/', "::")
    }

    fn is_binary(&self) -> bool {
        self.name.starts_with("bin/")
    }
}

/// All files of src but those of tests.
fn files() -> Vec<File> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&src, &mut paths);
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let name = path.strip_prefix(&src).expect("below src").to_string_lossy().replace('\\', "/");
        if name.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a source file");
        let code = without_tests(&plain(&text, false));
        let with_strings: Vec<String> = plain(&text, true)
            .lines()
            .zip(&code)
            .map(|(line, code)| if code.trim().is_empty() { String::new() } else { line.into() })
            .collect();
        files.push(File { name, text, code, with_strings });
    }
    files
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            paths.push(path);
        }
    }
}

/// The text with comments as spaces and, unless they are kept, the contents of strings and characters too.
fn plain(text: &str, strings: bool) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
    let mut at = 0;
    while at < chars.len() {
        let (end, is_string) = token(&chars[at..], at > 0 && is_word(chars[at - 1]));
        for (i, &c) in chars[at..at + end].iter().enumerate() {
            let kept = match is_string {
                None => end == 1,
                Some(true) => strings || i == 0 || i + 1 == end,
                Some(false) => false,
            };
            out.push(if kept { c } else { blank(c) });
        }
        at += end;
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Length of the token that begins here: a string (`Some(true)`), a comment (`Some(false)`), or one character.
fn token(chars: &[char], in_word: bool) -> (usize, Option<bool>) {
    let starts = |text: &str| text.chars().enumerate().all(|(i, c)| chars.get(i) == Some(&c));
    let until = |from: usize, end: &str| {
        let end: Vec<char> = end.chars().collect();
        let at = (from..chars.len()).find(|&i| chars[i..].starts_with(&end));
        at.map_or(chars.len(), |at| at + end.len())
    };
    if starts("//") {
        return (chars.iter().position(|&c| c == '\n').unwrap_or(chars.len()), Some(false));
    }
    if starts("/*") {
        return (until(2, "*/"), Some(false));
    }
    if starts("r") && !in_word {
        let hashes = chars[1..].iter().take_while(|&&c| c == '#').count();
        if chars.get(1 + hashes) == Some(&'"') {
            return (until(2 + hashes, &format!("\"{}", "#".repeat(hashes))), Some(true));
        }
    }
    let quoted = |quote: char| {
        let mut at = 1;
        while at < chars.len() && chars[at] != quote {
            at += if chars[at] == '\\' { 2 } else { 1 };
        }
        (at + 1).min(chars.len())
    };
    match chars[0] {
        '"' => (quoted('"'), Some(true)),
        // a lifetime has no second quote
        '\'' if chars.get(1) == Some(&'\\') || chars.get(2) == Some(&'\'') => {
            (quoted('\''), Some(true))
        }
        _ => (1, None),
    }
}

/// The lines of code; items under `#[cfg(test)]` are blank.
fn without_tests(code: &str) -> Vec<String> {
    let mut lines: Vec<String> = code.lines().map(String::from).collect();
    let mut at = 0;
    while at < lines.len() {
        let attribute = lines[at].trim_start();
        if attribute.starts_with("#[cfg(test)]") || attribute.starts_with("#[cfg(all(test") {
            let end = end_of_item(&lines, at + 1);
            lines[at..end].iter_mut().for_each(String::clear);
            at = end;
        }
        at += 1;
    }
    lines
}

/// The line after the item that begins at `start`: it ends with its closing brace, or with a semicolon.
fn end_of_item(lines: &[String], start: usize) -> usize {
    let mut depth = 0;
    for (at, line) in lines.iter().enumerate().skip(start) {
        for c in line.chars() {
            match c {
                '{' | '(' | '[' => depth += 1,
                '}' | ')' | ']' => depth -= 1,
                _ => {}
            }
            if depth == 0 && (c == '}' || c == ';') {
                return at + 1;
            }
        }
    }
    lines.len()
}

/// Fails if there are offenders, and names them.
fn expect_none(rule: &str, offenders: &[String]) {
    assert!(offenders.is_empty(), "{rule}: {}\n  {}", offenders.len(), offenders.join("\n  "));
}

/// Paths in the crate that a file names, `use` trees unfolded, without re-exports.
fn imports(file: &File) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let code = file.code.join("\n");
    for root in ["crate::", "super::"] {
        let mut from = 0;
        while let Some(at) = code[from..].find(root) {
            let start = from + at;
            from = start + root.len();
            if code[..start].ends_with(|c: char| is_word(c) || c == ':') {
                continue;
            }
            let line = code[..start].rfind(['\n', ';']).map_or(0, |end| end + 1);
            if code[line..start].trim_start().starts_with("pub")
                && code[line..start].contains("use")
            {
                continue;
            }
            let mut paths = Vec::new();
            unfold("", &code[start..], &mut paths);
            found.extend(paths.iter().map(|path| absolute(file, path)));
        }
    }
    found
}

/// The paths of a `use` tree, or the path itself; gives what follows.
fn unfold<'t>(before: &str, text: &'t str, paths: &mut Vec<String>) -> &'t str {
    let end = text.find(|c: char| !is_word(c) && c != ':').unwrap_or(text.len());
    let path = format!("{before}{}", &text[..end]);
    let mut rest = &text[end..];
    if !(path.ends_with("::") && rest.starts_with('{')) {
        paths.push(path.trim_end_matches(':').to_string());
        return rest;
    }
    loop {
        rest = unfold(&path, rest[1..].trim_start(), paths).trim_start();
        if let Some(after) = rest.strip_prefix("as ") {
            rest = after.trim_start_matches(is_word).trim_start();
        }
        if !rest.starts_with(',') {
            return rest.strip_prefix('}').unwrap_or(rest);
        }
        if rest[1..].trim_start().starts_with('}') {
            return &rest[1..].trim_start()[1..];
        }
    }
}

/// `super::…` and `crate::…` as a path from the root of the crate.
fn absolute(file: &File, path: &str) -> String {
    let mut module: Vec<String> = file.module().split("::").map(String::from).collect();
    if let Some(rest) = path.strip_prefix("crate::") {
        let binary = file.is_binary().then_some("bin::tcn::");
        return format!("{}{rest}", binary.unwrap_or_default());
    }
    let mut rest = path;
    while let Some(after) = rest.strip_prefix("super").map(|text| text.trim_start_matches("::")) {
        module.pop();
        rest = after;
    }
    module.push(rest.to_string());
    module.join("::")
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
