#!/usr/bin/env python3
"""Unpacks piano rolls for `tcn train --task multilabel`.

Input: safetensors with SPLIT.packed, u8 (steps, bytes), key k being bit k % 8 of byte k // 8, and SPLIT.lengths, i32 per
piece. Output: SPLIT.safetensors with `inputs`, u8 (steps of all pieces, keys), and `lengths`. Python alone, no packages.

    scripts/unpack_rolls.py rolls.safetensors FOLDER
"""

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


def main(source, folder):
    tensors = read(source)
    Path(folder).mkdir(parents=True, exist_ok=True)
    bits = [bytes(byte >> bit & 1 for bit in range(8)) for byte in range(256)]
    for split in ("train", "valid", "test"):
        (steps, width), packed = tensors[f"{split}.packed"]
        _, lengths = tensors[f"{split}.lengths"]
        rows = (packed[row * width : (row + 1) * width] for row in range(steps))
        inputs = b"".join(b"".join(bits[byte] for byte in row)[:KEYS] for row in rows)
        write(Path(folder) / f"{split}.safetensors", inputs, steps, lengths)


if __name__ == "__main__":
    main(*sys.argv[1:3])
