//! The files of src as code: without comments, strings and tests, and the paths that they name.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A file of src: whole, and as code without comments, strings and tests.
pub struct File {
    /// Below src, such as `text/stream/near_end.rs`.
    pub name: String,
    pub text: String,
    /// The lines of the file; comments, contents of strings and test items are blank.
    pub code: Vec<String>,
    /// The same with the contents of strings.
    pub with_strings: Vec<String>,
}

impl File {
    pub fn room(&self) -> &str {
        let first = self.name.split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs")
    }

    /// The path of the module in the crate: `text::stream::near_end`.
    pub fn module(&self) -> String {
        let path = self.name.trim_end_matches(".rs").trim_end_matches("/mod");
        path.replace('/', "::")
    }

    pub fn is_binary(&self) -> bool {
        self.name.starts_with("bin/")
    }
}

/// All files of src but those of tests.
pub fn files() -> Vec<File> {
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
pub fn plain(text: &str, strings: bool) -> String {
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

pub fn is_word(c: char) -> bool {
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
pub fn without_tests(code: &str) -> Vec<String> {
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
pub fn end_of_item(lines: &[String], start: usize) -> usize {
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

/// Paths in the crate that a file names, `use` trees unfolded, without re-exports.
pub fn imports(file: &File) -> BTreeSet<String> {
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
pub fn unfold<'t>(before: &str, text: &'t str, paths: &mut Vec<String>) -> &'t str {
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
