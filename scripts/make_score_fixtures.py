#!/usr/bin/env python3
"""Scores of sequences and of changes in them by CARP and GPN, for tests/cli/score.rs.

    python3 -m venv venv && venv/bin/pip install torch==2.9.1 multimolecule==0.2.2 transformers==5.23.0 numpy safetensors
    venv/bin/pip install --no-deps gpn==0.9.0a1
    venv/bin/python scripts/make_score_fixtures.py

Writes tests/fixtures/scores.json, computed in float64 from the weights in tests/fixtures/carp-tiny and gpn-tiny:

MODEL.sequences   {text, per_token}: ln p of each token with a mask in its place
MODEL.variants    {text, form, window, strands, score}: the sum over the places, all masked at once, of ln p(new) - ln p(old);
                  with a window of so many letters around the middle of the places, and as the mean of both strands
"""
import json
import re

import torch
from gpn.legacy import ConvNetConfig, ConvNetForMaskedLM
from multimolecule import CarpConfig, CarpForMaskedLM
from safetensors.torch import load_file

from golden import FIXTURES, same_or_written

CASES = {
    "carp-tiny": {
        "sequences": ["MANLGACDEFGHIKLMNPQRSTVWY", "M", "AC"],
        "variants": [
            ("MANLGACDEFGHIKL", "M1A", None, 1), ("MANLGACDEFGHIKL", "L15W", None, 1),
            ("MANLGACDEFGHIKL", "A2G:N3L:K14R", None, 1), ("MANLGACDEFGHIKL", "G5A", 6, 1),
        ],
    },
    "gpn-tiny": {
        "sequences": ["acgtacgtaaccggttacgattacag", "a"],
        "variants": [
            ("acgtacgtaaccggttacgattacag", "A1C", None, 1), ("acgtacgtaaccggttacgattacag", "A1C", None, 2),
            ("acgtacgtaaccggttacgattacag", "G26T", 8, 2), ("acgtacgtaaccggttacgattacag", "G13A", 9, 2),
            ("acgtacgtaaccggttacgattacag", "G13A:G14C", 8, 2), ("acgtacgtaaccggttacgattacag", "C2T", 12, 1),
        ],
    },
}


def models():
    for name, config, kind in [
        ("carp-tiny", CarpConfig, CarpForMaskedLM), ("gpn-tiny", ConvNetConfig, ConvNetForMaskedLM),
    ]:
        net = kind(config.from_pretrained(FIXTURES / name)).eval()
        net.load_state_dict(load_file(FIXTURES / name / "model.safetensors"))
        yield name, net.double()


def letters(name):
    if name == "carp-tiny":
        tokens = (FIXTURES / name / "vocab.txt").read_text().split("\n")
        return {token: i for i, token in enumerate(tokens)}, tokens.index("<mask>")
    return {letter: i for i, letter in enumerate("acgt", 3)} | {c: i for i, c in enumerate("ACGT", 3)}, 1


def log_probabilities(net, ids, places, mask):
    masked = torch.tensor([ids])
    masked[0, places] = mask
    with torch.no_grad():
        if isinstance(net, CarpForMaskedLM):
            logits = net(input_ids=masked, attention_mask=torch.ones_like(masked)).logits
        else:
            hidden = net.model.embedding(input_ids=masked).double()
            for layer in net.model.encoder:
                hidden = layer(hidden)
            logits = net.cls(hidden)
    return logits[0].log_softmax(-1)


def score(net, text, changes, vocab, mask):
    ids = [vocab[letter] for letter in text]
    places = [place for place, _ in changes]
    found = log_probabilities(net, ids, places, mask)
    return sum((found[place, vocab[new]] - found[place, ids[place]]).item() for place, new in changes)


def variant(net, text, form, window, strands, vocab, mask):
    changes = [re.fullmatch(r"(\w)(\d+)(\w)", part).groups() for part in form.split(":")]
    changes = [(int(position) - 1, new) for _, position, new in changes]
    if window:
        first, last = changes[0][0], changes[-1][0]
        middle = first + (last - first) // 2
        start, end = max(0, middle - window // 2), min(len(text), middle - window // 2 + window)
        text, changes = text[start:end], [(place - start, new) for place, new in changes]
    scores = [score(net, text, changes, vocab, mask)]
    if strands == 2:
        other = str.maketrans("acgtACGT", "tgcaTGCA")
        turned = text[::-1].translate(other)
        changes = [(len(text) - 1 - place, new.translate(other)) for place, new in changes]
        scores.append(score(net, turned, changes, vocab, mask))
    return sum(scores) / len(scores)


def main():
    results = {}
    for name, net in models():
        vocab, mask = letters(name)
        sequences, variants = [], []
        for text in CASES[name]["sequences"]:
            ids = [vocab[letter] for letter in text]
            each = [log_probabilities(net, ids, [i], mask)[i, id].item() for i, id in enumerate(ids)]
            sequences.append({"text": text, "per_token": each})
        for text, form, window, strands in CASES[name]["variants"]:
            found = variant(net, text, form, window, strands, vocab, mask)
            variants.append({"text": text, "form": form, "window": window, "strands": strands, "score": found})
        results[name] = {"sequences": sequences, "variants": variants}
    same_or_written(FIXTURES / "scores.json", json.dumps(results, indent=1) + "\n")


main()
