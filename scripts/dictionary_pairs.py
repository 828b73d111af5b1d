#!/usr/bin/env python3
"""Pairs of words for a translator, from the German-English dictionary of Debian's package trans-de-en (Ding, GPL-2+).

    apt-get install trans-de-en
    scripts/dictionary_pairs.py /usr/share/trans/de-en pairs
    tcn train --data pairs/train.txt --documents lines --target-after '\\t' --preset char-tiny --weight-decay 0.1 --minutes 8 \\
        --out runs/de-en
    tcn generate --model runs/de-en --prompt-file pairs/test.de --each-line --prompt-end '\\t' --beams 4 > pairs/found.en
    scripts/dictionary_pairs.py --compare pairs/test.en pairs/found.en

Writes train.txt, lines of a German word, a tab and its first English translation; and of a thousand words that are not
among them test.de and, with all the translations that count, test.en. One word on either side, in the dictionary's order
of entries, shuffled by a fixed seed; a word with several entries keeps the first.
"""
import random
import re
import sys
from pathlib import Path

TEST = 1000


def plain(text):
    """Without what stands in brackets."""
    return re.sub(r"\s*(\{[^}]*\}|\[[^\]]*\]|\([^)]*\)|/[^/]*/|<[^>]*>)", "", text).strip()


def is_word(text):
    return re.fullmatch(r"[^\W\d_]+", text) is not None


def pairs(path):
    words = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if line.startswith("#") or "::" not in line:
            continue
        german, english = (side.split("|") for side in line.split("::")[:2])
        for source, target in zip(german, english):
            source = plain(source.split(";")[0])
            targets = [plain(word) for word in target.split(";")]
            targets = [word.removeprefix("to ") for word in targets]
            targets = [word for word in targets if is_word(word)]
            if is_word(source) and targets:
                words.setdefault(source, targets)
    return sorted(words.items())


def write(dictionary, folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    words = pairs(dictionary)
    random.Random(1).shuffle(words)
    test, train = words[:TEST], words[TEST:]
    for name, lines in [
        ("train.txt", (f"{source}\t{targets[0]}" for source, targets in train)),
        ("test.de", (source for source, _ in test)),
        ("test.en", ("; ".join(targets) for _, targets in test)),
    ]:
        (folder / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    print(f"{len(train)} pairs to train on, {len(test)} to test on, in {folder}")


def compare(expected, found):
    expected, found = (Path(path).read_text(encoding="utf-8").splitlines() for path in (expected, found))
    assert len(expected) == len(found), f"{len(expected)} words, {len(found)} answers"
    right = sum(answer in word.split("; ") for word, answer in zip(expected, found))
    print(f"{right} of {len(found)} exactly as in the dictionary: {100 * right / len(found):.1f}%")


if sys.argv[1] == "--compare":
    compare(*sys.argv[2:])
else:
    write(*sys.argv[1:])
