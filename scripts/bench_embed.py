#!/usr/bin/env python3
"""Embedding proteins with a network of CARP-38M's shape: candle-tcn beside PyTorch, in turns.

    cargo build --release
    python3 -m venv venv && venv/bin/pip install torch==2.9.1 numpy safetensors
    venv/bin/python scripts/bench_embed.py

The weights are random: 16 ByteNet layers of 1024 channels, 512 inside, kernel 5, dilations 1 to 128. All embed
the same sequences, PyTorch in inference mode and in batches of the size that is fastest for it: the network as
MultiMolecule publishes it (where `pip install multimolecule` was run), and rewritten for speed, with its
pointwise layers as matrix products and no copies between layouts but around the convolution. Of candle-tcn a
second run with one sequence tells how long it takes to start (reading the weights included), which is
subtracted; PyTorch is timed without its start. PyTorch's bf16 takes very long where the processor has no
instructions for it: `--dtypes f32` leaves it out.
"""
import argparse
import importlib.util
import json
import os
import random
import statistics
import subprocess
import tempfile
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

TOKENS = ["<pad>", "<cls>", "<eos>", "<unk>", "<mask>", "<null>", *"ACDEFGHIKLMNPQRSTVWYXZBJUO|.*-?"]
HIDDEN, INNER, LAYERS, KERNEL, EMBEDDING, MOST = 1024, 512, 16, 5, 8, 128
CONFIG = {"model_type": "carp", "vocab_size": len(TOKENS), "embedding_size": EMBEDDING, "hidden_size": HIDDEN,
          "intermediate_size": INNER, "num_hidden_layers": LAYERS, "kernel_size": KERNEL, "max_dilation": MOST,
          "hidden_act": "gelu", "slim": True, "layer_norm_eps": 1e-5, "pad_token_id": 0}


def make_weights():
    generator = torch.Generator().manual_seed(0)
    weights = {}

    def layer(name, *shape):
        fan_in = 1
        for size in shape[1:]:
            fan_in *= size
        weights[f"{name}.weight"] = (torch.rand(shape, generator=generator) * 2 - 1) / fan_in**0.5
        weights[f"{name}.bias"] = torch.zeros(shape[0])

    def norm(name, size):
        weights[f"{name}.weight"], weights[f"{name}.bias"] = torch.ones(size), torch.zeros(size)

    weights["model.embeddings.word_embeddings.weight"] = torch.rand(len(TOKENS), EMBEDDING, generator=generator)
    layer("model.embeddings.projection", HIDDEN, EMBEDDING, 1)
    for i in range(LAYERS):
        at = f"model.encoder.layer.{i}"
        norm(f"{at}.layer_norm1", HIDDEN)
        layer(f"{at}.intermediate", INNER, HIDDEN, 1)
        norm(f"{at}.layer_norm2", INNER)
        layer(f"{at}.convolution", INNER, INNER, KERNEL)
        norm(f"{at}.layer_norm3", INNER)
        layer(f"{at}.output", HIDDEN, INNER, 1)
    norm("lm_head.layer_norm", HIDDEN)
    layer("lm_head.decoder", len(TOKENS), HIDDEN)
    return weights


def torch_hidden(w, ids):
    """(batch, time) to (batch, time, HIDDEN); no sequence is padded."""
    def pointwise(x, name):
        weight = w[f"{name}.weight"]
        return F.linear(x, weight.reshape(weight.shape[0], -1), w[f"{name}.bias"])

    def norm_gelu(x, name):
        return F.gelu(F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5))

    x = pointwise(F.embedding(ids, w["model.embeddings.word_embeddings.weight"]), "model.embeddings.projection")
    for i in range(LAYERS):
        at, dilation = f"model.encoder.layer.{i}", 2 ** (i % 8)
        h = norm_gelu(pointwise(norm_gelu(x, f"{at}.layer_norm1"), f"{at}.intermediate"), f"{at}.layer_norm2")
        h = F.conv1d(h.transpose(1, 2), w[f"{at}.convolution.weight"], w[f"{at}.convolution.bias"],
                     padding=dilation * (KERNEL - 1) // 2, dilation=dilation).transpose(1, 2)
        x = x + pointwise(norm_gelu(h, f"{at}.layer_norm3"), f"{at}.output")
    return x


def rewritten(weights, dtype):
    w = {name: tensor.to(dtype) for name, tensor in weights.items()}
    return lambda ids: torch_hidden(w, ids)


def published(weights, dtype):
    from multimolecule import CarpConfig, CarpModel
    model = CarpModel(CarpConfig(**{name: value for name, value in CONFIG.items() if name != "model_type"}))
    prefix = "model."
    model.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in weights.items()
                           if name.startswith(prefix)})
    model = model.eval().to(dtype)
    return lambda ids: model(ids).last_hidden_state


def torch_seconds(network, ids, batch):
    with torch.inference_mode():
        network(ids[:batch])
        start = time.perf_counter()
        means = [network(part).float().mean(1) for part in ids.split(batch)]
        return time.perf_counter() - start, torch.cat(means)


def tcn_seconds(options, folder, name, dtype):
    out = os.path.join(folder, "out.safetensors")
    start = time.perf_counter()
    subprocess.run([options.tcn, "embed", "--model", folder, "--input", os.path.join(folder, name), "--output", out,
                    "--force", "--dtype", dtype, "--threads", str(options.threads), "--json"], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start, out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tcn", default="target/release/tcn")
    parser.add_argument("--sequences", type=int, default=256)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtypes", default="f32,bf16")
    options = parser.parse_args()
    networks = {"PyTorch, rewritten": rewritten}
    if importlib.util.find_spec("multimolecule"):
        networks["PyTorch, MultiMolecule"] = published
    torch.set_num_threads(options.threads)
    weights = make_weights()
    random.seed(0)
    texts = ["".join(random.choices("ACDEFGHIKLMNPQRSTVWY", k=options.length)) for _ in range(options.sequences)]
    ids = torch.tensor([[TOKENS.index(c) for c in text] for text in texts])
    with tempfile.TemporaryDirectory() as folder:
        save_file(weights, os.path.join(folder, "model.safetensors"))
        files = {"config.json": json.dumps(CONFIG), "vocab.txt": "\n".join(TOKENS) + "\n",
                 "all.txt": "\n".join(texts) + "\n", "one.txt": texts[0] + "\n"}
        for name, text in files.items():
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(text)
        for name in options.dtypes.split(","):
            dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[name]
            peers = {peer: make(weights, dtype) for peer, make in networks.items()}
            few = ids[:min(len(ids), 16)]
            batches = {peer: min((4, 8, 16), key=lambda size: torch_seconds(network, few, size)[0])
                       for peer, network in peers.items()}
            ours, starts, theirs = [], [], {peer: [] for peer in peers}
            for _ in range(options.rounds):
                starts.append(tcn_seconds(options, folder, "one.txt", name)[0])
                seconds, out = tcn_seconds(options, folder, "all.txt", name)
                ours.append(seconds - starts[-1])
                for peer, network in peers.items():
                    seconds, means = torch_seconds(network, ids, batches[peer])
                    theirs[peer].append(seconds)
            found = load_file(out)["embeddings"]
            error = ((found - means).abs().max() / means.abs().max()).item()
            print(f"{name}: candle-tcn {statistics.median(ours):.2f} s after a start of "
                  f"{statistics.median(starts):.2f} s; largest difference {error:.1e}")
            for peer, seconds in theirs.items():
                ratio = statistics.median(b / a for a, b in zip(ours, seconds))
                print(f"{name}: {peer} {statistics.median(seconds):.2f} s (batches of {batches[peer]}): {ratio:.2f}x",
                      flush=True)


if __name__ == "__main__":
    main()
