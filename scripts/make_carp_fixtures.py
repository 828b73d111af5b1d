#!/usr/bin/env python3
"""A model directory of CARP as multimolecule saves it, with golden values, for tests/library/carp.rs.

    python3 -m venv venv && venv/bin/pip install torch==2.9.1 multimolecule==0.2.2 transformers==5.23.0 numpy safetensors
    venv/bin/python scripts/make_carp_fixtures.py

Writes into tests/fixtures/carp-tiny, for its config.json and the sequences in its reference.json:

model.safetensors, vocab.txt, tokenizer_config.json   as `save_pretrained` does
reference.safetensors        `input_ids`, `attention_mask`, `labels` (-100 is not scored), and with that mask
                             `hidden_states.I`, `logits`, `loss`, `pooler_output`; with `mask_holes.attention_mask` its
                             logits and last hidden state; `nomask.logits` with a mask of ones; `single.N.logits` of each
                             sequence by itself; `*_f32` of a float32 run
reference_grads.safetensors  gradients of the loss

All but `*_f32` is computed in float64 from float32 weights and cast back. Writes tests/fixtures/carp-configs too: the
config.json of the four published sizes, from the class's defaults and the sizes in its documentation.
"""
import json
import tempfile
from pathlib import Path

import torch
from multimolecule import CarpConfig, CarpForMaskedLM, ProteinTokenizer

from safetensors.torch import load_file

from golden import FIXTURES, Drawn, plain, read_json, same_or_written, write

OUT = FIXTURES / "carp-tiny"
# name: hidden_size, num_hidden_layers, slim
SIZES = {"600k": (128, 16, True), "38m": (1024, 16, True), "76m": (1024, 32, True), "640m": (1280, 56, False)}
NOTE = ("EXPECTED values (CarpConfig defaults + convert_checkpoint._build_config + README table + evodiff configs); "
        "not downloaded from the Hub")
SCORED = 0.15  # share of the positions that the loss counts


def configs():
    for name, (hidden_size, layers, slim) in SIZES.items():
        config = CarpConfig(hidden_size=hidden_size, num_hidden_layers=layers, slim=slim,
                            architectures=["CarpForPreTraining"])
        described = json.loads(json.dumps(config.to_dict(), sort_keys=True))
        text = json.dumps({"_NOTE": NOTE} | described, indent=1)
        same_or_written(FIXTURES / "carp-configs" / f"carp-{name}.expected.json", text)


def run(net, ids, mask, labels=None):
    return net(input_ids=ids, attention_mask=mask, labels=labels, output_hidden_states=True)


def model():
    sequences = read_json(OUT / "reference.json")["sequences"]
    config = CarpConfig.from_pretrained(OUT)
    reference, weights = OUT / "reference.safetensors", OUT / "model.safetensors"
    drawn = Drawn(reference, weights)
    net = CarpForMaskedLM(config).eval()
    drawn.fill(net)
    # as the published models: nothing is put around a sequence
    tokenizer = ProteinTokenizer(bos_token=None, eos_token=None, sep_token=None)
    with tempfile.TemporaryDirectory() as saved:
        net.save_pretrained(saved)
        tokenizer.save_pretrained(saved)
        write(weights, load_file(Path(saved) / "model.safetensors"), {"format": "pt"})
        for name in ["config.json", "vocab.txt", "tokenizer_config.json"]:
            same_or_written(OUT / name, (Path(saved) / name).read_text())

    batch = tokenizer(sequences, padding=True, return_tensors="pt")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    scored = (torch.rand(ids.shape, generator=drawn.generator) < SCORED) & mask.bool()
    labels = drawn.old.get("labels", ids.masked_fill(~scored, -100))
    gaps = torch.rand(ids.shape, generator=drawn.generator) < 0.8
    holes = drawn.old.get("mask_holes.attention_mask", mask * gaps)
    tensors = {"input_ids": ids, "attention_mask": mask, "labels": labels, "mask_holes.attention_mask": holes}

    with torch.no_grad():
        narrow = run(net, ids, mask)
    tensors["logits_f32"] = narrow.logits
    tensors |= {f"hidden_states.{i}_f32": hidden for i, hidden in enumerate(narrow.hidden_states)}
    net.double()
    whole = run(net, ids, mask, labels)
    whole.loss.backward()
    tensors |= {"logits": whole.logits, "loss": whole.loss.reshape(1)}
    tensors |= {f"hidden_states.{i}": hidden for i, hidden in enumerate(whole.hidden_states)}
    factors = mask.unsqueeze(-1).double()
    tensors["pooler_output"] = (whole.hidden_states[-1] * factors).sum(1) / factors.sum(1)
    with torch.no_grad():
        broken = run(net, ids, holes)
        tensors |= {"mask_holes.logits": broken.logits, "mask_holes.last_hidden_state": broken.hidden_states[-1]}
        tensors["nomask.logits"] = run(net, ids, torch.ones_like(mask)).logits
        for i, row in enumerate(ids):
            row = row[mask[i].bool()].unsqueeze(0)
            tensors[f"single.{i}.logits"] = run(net, row, torch.ones_like(row)).logits
    write(reference, tensors)
    # the row of the padding index gets no gradient
    write(OUT / "reference_grads.safetensors", {name: plain(p.grad) for name, p in net.named_parameters()})


configs()
model()
