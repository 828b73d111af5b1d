#!/usr/bin/env python3
"""Lines and bytes of code under src: without tests, blanks and comments, by module.

    scripts/lines_of_code.py            # of the working tree
    scripts/lines_of_code.py HEAD~3     # of a commit, formatted by the rustfmt.toml of the working tree

Tests are files called `*tests.rs`, files that only `#[cfg(test)] mod` names, and items under `#[cfg(test)]`.
Bytes are those that are not white space, so that a longer line is no gain.
"""

import collections
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

# a string, a raw string, a character, or a comment: whatever begins first counts
TOKEN = re.compile(
    r"""
    (?P<raw>b?r(?P<hashes>\#*)".*?"(?P=hashes))
    | (?P<string>b?"(?:\\.|[^"\\])*")
    | (?P<char>b?'(?:\\(?:u\{[^}]*\}|x..|.)|[^\\'])')
    | (?P<line>//[^\n]*)
    | (?P<block>/\*.*?\*/)
    """,
    re.S | re.X,
)
TEST = re.compile(r"#\[cfg\((?:test|all\(test[^\]]*)\)\]")


def without_comments(text):
    def keep(found):
        if found.group("line") or found.group("block"):
            return ""
        return found.group(0)

    return TOKEN.sub(keep, text)


def blanked(text):
    """The same text with strings and characters as spaces, to count braces in."""
    return TOKEN.sub(lambda found: re.sub(r"[^\n]", " ", found.group(0)), text)


def without_test_items(text):
    """Cuts each item under `#[cfg(test)]`; gives the names of its modules that lie in files of their own too."""
    files = {}
    while found := TEST.search(text):
        plain = blanked(text)
        depth, at = 0, found.end()
        while at < len(plain):
            letter = plain[at]
            if letter in "{[(":
                depth += 1
            elif letter in "}])":
                depth -= 1
                if depth == 0 and letter == "}":
                    break
            elif letter == ";" and depth == 0:
                break
            at += 1
        item = text[found.end() : at + 1]
        module = re.search(r"(?:#\[path = \"([^\"]+)\"\]\s*)?(?:pub(?:\([^)]*\))? )?mod (\w+);", item)
        if module:
            files[module.group(2)] = module.group(1)
        text = text[: found.start()] + text[at + 1 :]
    return text, files


def test_files(root, path, modules):
    """Files of the modules that `path` names under `#[cfg(test)]`."""
    folder = path.parent if path.name in ("mod.rs", "lib.rs", "main.rs") else path.with_suffix("")
    for name, given in modules.items():
        if given:
            yield (path.parent / given).resolve()
        else:
            yield (folder / f"{name}.rs").resolve()
            yield from ((file.resolve()) for file in (folder / name).rglob("*.rs"))


def count(root):
    src = root / "src"
    codes, tests = {}, set()
    for path in sorted(src.rglob("*.rs")):
        code, modules = without_test_items(without_comments(path.read_text()))
        codes[path] = code
        tests.update(test_files(root, path, modules))
    sizes = collections.defaultdict(lambda: [0, 0])
    for path, code in codes.items():
        if path.resolve() in tests or path.name.endswith("tests.rs"):
            continue
        parts = path.relative_to(src).parts
        module = "/".join(parts[:2]) if parts[0] == "bin" else parts[0].removesuffix(".rs")
        lines = [line for line in code.splitlines() if line.strip()]
        sizes[module][0] += len(lines)
        sizes[module][1] += sum(len("".join(line.split()).encode()) for line in lines)
    return sizes


def of_commit(commit):
    top = pathlib.Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", commit], cwd=top, check=True, capture_output=True)
        subprocess.run(["tar", "x", "-C", folder], input=archive.stdout, check=True)
        shutil.copy(top / "rustfmt.toml", folder)
        subprocess.run(["cargo", "fmt"], cwd=folder, check=True)
        return count(pathlib.Path(folder))


def main():
    top = pathlib.Path(__file__).resolve().parent.parent
    sizes = of_commit(sys.argv[1]) if len(sys.argv) > 1 else count(top)
    for module, (lines, size) in sorted(sizes.items()):
        print(f"{module:14} {lines:7,} {size:11,}")
    lines, size = (sum(numbers) for numbers in zip(*sizes.values()))
    print(f"{'total':14} {lines:7,} {size:11,}")


main()
