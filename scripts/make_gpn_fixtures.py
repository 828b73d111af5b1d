#!/usr/bin/env python3
"""A model directory of GPN as the Hub has it, with golden values, for tests/library/gpn.rs.

    python3 -m venv venv && venv/bin/pip install torch==2.9.1 transformers==5.23.0 tokenizers==0.23.3 numpy safetensors
    venv/bin/pip install --no-deps gpn==0.9.0a1
    venv/bin/python scripts/make_gpn_fixtures.py

Writes into tests/fixtures/gpn-tiny, for its config.json and the sequences in its reference.json:

model.safetensors, pytorch_model.bin    the same weights as `save_pretrained` and as torch.save write them
tokenizer.json, tokenizer_config.json   letters a, c, g, t; the ids of `tokenizer_cases` in reference.json are checked
reference.safetensors   `input_ids` (sequences filled up with [PAD]), `logits`, `last_hidden_state`, both also as `*_f32` of a
                        float32 run; `row0.hidden_states.I` of the first sequence; `single.N.*` of each by itself

All but `*_f32` is computed in float64 from float32 weights and cast back. The network knows no mask: [PAD] is an input
like any other.
"""
import tempfile
from pathlib import Path

import torch
from gpn.legacy import ConvNetConfig, ConvNetForMaskedLM
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from golden import FIXTURES, Drawn, difference, plain, read_json, same_or_written, write

OUT = FIXTURES / "gpn-tiny"
SPECIAL = ["[PAD]", "[MASK]", "[UNK]"]


def tokenizer():
    vocab = {token: i for i, token in enumerate(SPECIAL + list("acgt"))}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="[UNK]", fuse_unk=False))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    inner.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", mask_token="[MASK]", unk_token="[UNK]")


def hidden_states(net, ids):
    """What goes into the first layer, and what comes out of each."""
    states = [net.model.embedding(input_ids=ids).to(net.cls.decoder[0].weight.dtype)]
    for layer in net.model.encoder:
        states.append(layer(states[-1]))
    return states


def run(net, ids):
    output = net.model(input_ids=ids)
    return output.last_hidden_state, net.cls(output.last_hidden_state)


def write_bin(path, state_dict):
    """The older format of the Hub; kept where PyTorch reads the same tensors in it."""
    if path.exists():
        old = torch.load(path, weights_only=True)
        if list(old) == list(state_dict) and all(torch.equal(old[name], state_dict[name]) for name in old):
            print(f"{path.relative_to(FIXTURES)}: kept; {len(old)} tensors bit for bit")
            return
    torch.save(state_dict, path)
    print(f"{path.relative_to(FIXTURES)}: written")


def main():
    described = read_json(OUT / "reference.json")
    reference, weights = OUT / "reference.safetensors", OUT / "model.safetensors"
    drawn = Drawn(reference, weights)
    net = ConvNetForMaskedLM(ConvNetConfig.from_pretrained(OUT)).eval()
    drawn.fill(net)
    encode = tokenizer()
    with tempfile.TemporaryDirectory() as saved:
        net.save_pretrained(saved)
        encode.save_pretrained(saved)
        write(weights, load_file(Path(saved) / "model.safetensors"), {"format": "pt"})
        for name in ["config.json", "tokenizer.json", "tokenizer_config.json"]:
            same_or_written(OUT / name, (Path(saved) / name).read_text())
    write_bin(OUT / "pytorch_model.bin", {name: plain(tensor) for name, tensor in net.state_dict().items()})
    for case in described["tokenizer_cases"]:
        assert encode(case["text"])["input_ids"] == case["ids"], case["text"]

    rows = [encode(text)["input_ids"] for text in described["sequences"]]
    assert [len(row) for row in rows] == described["lengths"]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    tensors = {"input_ids": ids}
    with torch.no_grad():
        last, logits = run(net, ids)
        tensors |= {"last_hidden_state_f32": plain(last), "logits_f32": plain(logits)}
        net.double()
        # the package gives the network float32 ones and zeros
        net.model.embedding.register_forward_hook(lambda module, inputs, output: output.double())
        tensors["last_hidden_state"], tensors["logits"] = run(net, ids)
        states = hidden_states(net, ids[:1])
        assert difference(states[-1], tensors["last_hidden_state"][:1]) < 1e-12
        tensors |= {f"row0.hidden_states.{i}": state for i, state in enumerate(states)}
        for i, row in enumerate(rows):
            alone = torch.tensor([row])
            last, logits = run(net, alone)
            tensors |= {f"single.{i}.input_ids": alone, f"single.{i}.last_hidden_state": last,
                        f"single.{i}.logits": logits}
    write(reference, tensors)


main()
