#!/usr/bin/env python3
"""Unpacks piano rolls for `tcn train --task multilabel`.

Input: safetensors with SPLIT.packed, u8 (steps, bytes), key k being bit k % 8 of byte k // 8, and SPLIT.lengths, i32 per
piece. Output: SPLIT.safetensors with `inputs`, u8 (steps of all pieces, keys), and `lengths`. With `--transpose N` the
training part also holds every piece in the N semitones below and above it. Python alone, no packages.

    scripts/unpack_rolls.py rolls.safetensors FOLDER [--transpose N]
"""

import argparse
import json
import struct
import sys
from pathlib import Path

KEYS = 88


def read(path):
    data = Path(path).read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    tensors = {}
    for name, info in header.items():
        start, end = info["data_offsets"]
        tensors[name] = (info["shape"], data[8 + size + start : 8 + size + end])
    return tensors


def write(path, inputs, steps, lengths):
    count = len(lengths) // 4
    header = json.dumps(
        {
            "inputs": {"dtype": "U8", "shape": [steps, KEYS], "data_offsets": [0, len(inputs)]},
            "lengths": {"dtype": "I32", "shape": [count], "data_offsets": [len(inputs), len(inputs) + len(lengths)]},
        }
    ).encode()
    header += b" " * (-len(header) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(header)) + header + inputs + lengths)


def shifted(row, semitones):
    """A row of keys, each `semitones` higher; what leaves the keyboard falls silent."""
    silence = bytes(abs(semitones))
    return silence + row[: KEYS - semitones] if semitones >= 0 else row[-semitones:] + silence


def main(source, folder, transpose):
    tensors = read(source)
    Path(folder).mkdir(parents=True, exist_ok=True)
    bits = [bytes(byte >> bit & 1 for bit in range(8)) for byte in range(256)]
    for split in ("train", "valid", "test"):
        (steps, width), packed = tensors[f"{split}.packed"]
        _, lengths = tensors[f"{split}.lengths"]
        rows = (packed[row * width : (row + 1) * width] for row in range(steps))
        rows = [b"".join(bits[byte] for byte in row)[:KEYS] for row in rows]
        shifts = range(-transpose, transpose + 1) if split == "train" else [0]
        inputs = b"".join(shifted(row, semitones) for semitones in shifts for row in rows)
        write(Path(folder) / f"{split}.safetensors", inputs, steps * len(shifts), lengths * len(shifts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("folder")
    parser.add_argument("--transpose", type=int, default=0, metavar="N")
    args = parser.parse_args()
    main(args.source, args.folder, args.transpose)
