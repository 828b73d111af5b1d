"""Checks that Python's `tokenizers` encodes and decodes a text as the Rust crate does.

    cargo run --release --example encode -- bpe:500 text.txt tokenizer.json ids.json
    python scripts/check_tokenizers.py tokenizer.json text.txt ids.json

tokenizer.json  as written by `Tokenizer::save`, or that of a model directory
text.txt        UTF-8 text
ids.json        one JSON array: the token ids that Rust made of the text

Needs: pip install tokenizers. Prints one line and exits 0 if both agree; else says where they
first differ and exits 1.

The tokenizers of this crate (char, byte, bpe:N) agree on any text. One from elsewhere may differ
at the places where the crate cuts a text longer than 64 KiB into pieces.
"""

import argparse
import json
import sys

from tokenizers import Tokenizer


def first_difference(a, b):
    """The first index at which two sequences differ, or None."""
    for i, (x, y) in enumerate(zip(a, b)):
        if x != y:
            return i
    return None if len(a) == len(b) else min(len(a), len(b))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("tokenizer", "text", "ids"):
        parser.add_argument(name)
    args = parser.parse_args()

    tokenizer = Tokenizer.from_file(args.tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # newline="" keeps CRLF as it is
    with open(args.text, encoding="utf-8", newline="") as file:
        text = file.read()
    with open(args.ids, encoding="utf-8") as file:
        rust_ids = json.load(file)

    python_ids = tokenizer.encode(text, add_special_tokens=False).ids
    at = first_difference(python_ids, rust_ids)
    if at is not None:
        around = slice(max(at - 3, 0), at + 4)
        sys.exit(
            f"encode: token {at} differs; {len(python_ids)} tokens in Python, "
            f"{len(rust_ids)} in Rust\n  Python {python_ids[around]}\n  Rust   {rust_ids[around]}"
        )

    decoded = tokenizer.decode(rust_ids)
    at = first_difference(decoded, text)
    if at is not None:
        around = slice(max(at - 20, 0), at + 20)
        sys.exit(
            f"decode: character {at} differs\n"
            f"  decoded {decoded[around]!r}\n  text    {text[around]!r}"
        )
    print(f"{len(rust_ids)} tokens, {len(text)} characters: Python and Rust agree")


if __name__ == "__main__":
    main()
