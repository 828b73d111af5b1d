#!/usr/bin/env python3
"""Golden values made with PyTorch for tests/library/bytenet.rs.

    python3 -m venv venv && venv/bin/pip install torch==2.9.1 numpy safetensors
    venv/bin/python scripts/make_bytenet_fixtures.py

Writes tests/fixtures/bytenet/CASE.safetensors for each of the CASES below and `cases.json`: their names,
their config.json and the dilations of their layers. All numbers are float64:

`param.P`           the weights, named as on disk
`input`, `target`   int64 (B, T); a target of -100 is not scored
`mask`              int64 (B, T), in some cases: factors of what goes into each dilated convolution
`hidden.I`          what goes into the first layer (0) and comes out of layer I
`logits`, `loss`    the loss is the mean cross-entropy of the scored targets
`grad.P`            its gradient by every weight

Every network is written here in plain torch.nn.functional on a dictionary of tensors, so that each
definition can be read off in one place: ByteNet (Kalchbrenner et al. 2016) as in CARP (Yang et al. 2022), and
GPN's ConvNet (Benegas et al. 2023). Seeds are fixed: the same PyTorch writes the same files.
"""
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "bytenet"
ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}


class Weights:
    """Makes each weight when it is first asked for; a prefix leads to those within."""

    def __init__(self, generator, tensors=None, prefix=""):
        self.generator, self.prefix = generator, prefix
        self.tensors = {} if tensors is None else tensors

    def pp(self, name):
        return Weights(self.generator, self.tensors, f"{self.prefix}{name}.")

    def get(self, name, *shape):
        name = self.prefix + name
        if name not in self.tensors:
            noise = torch.rand(shape, generator=self.generator, dtype=torch.float64) * 2 - 1
            fan_in = math.prod(shape[1:])
            value = 1 + 0.5 * noise if name.endswith("norm.weight") else noise * 1.5 / math.sqrt(fan_in)
            self.tensors[name] = value.requires_grad_()
        assert tuple(self.tensors[name].shape) == shape, name
        return self.tensors[name]


def layer_norm(x, w, eps=1e-5):
    n = x.shape[-1]
    return F.layer_norm(x, (n,), w.get("weight", n), w.get("bias", n), eps)


def linear(x, out, w):
    return F.linear(x, w.get("weight", out, x.shape[-1]), w.get("bias", out))


def conv(x, out, kernel, dilation, left, right, w):
    """A dilated convolution of (B, T, C) with so many zeros before and after."""
    weight, bias = w.get("weight", out, x.shape[-1], kernel), w.get("bias", out)
    x = F.pad(x.transpose(1, 2), (left, right))
    return F.conv1d(x, weight, bias, dilation=dilation).transpose(1, 2)


def pointwise(x, out, w):
    return conv(x, out, 1, 1, 0, 0, w)


def byte_net_layer(x, w, names, inner, kernel, dilation, causal, act, eps, mask):
    norm1, narrow, norm2, dilated, norm3, widen = (w.pp(name) for name in names)
    h = pointwise(act(layer_norm(x, norm1, eps)), inner, narrow)
    h = act(layer_norm(h, norm2, eps))
    if mask is not None:
        h = h * mask[..., None].to(h)
    span = (kernel - 1) * dilation
    left = span if causal else span // 2
    h = conv(h, inner, kernel, dilation, left, span - left, dilated)
    return x + pointwise(act(layer_norm(h, norm3, eps)), x.shape[-1], widen)


def bytenet(c, w, ids, mask):
    embedding = w.get("embedder.embedder.weight", c["n_tokens"], c["d_embedding"])
    x = F.embedding(ids, embedding, padding_idx=c.get("padding_idx"))
    if c.get("down_embed", True):
        x = pointwise(x, c["d_model"], w.pp("embedder.up_embedder.conv"))
    cycle = int(math.log2(c["r"])) + 1
    dilations = [2 ** (i % cycle) for i in range(c["n_layers"])]
    causal = c.get("causal", False)
    names = ["sequence1.0", "sequence1.2.conv", "sequence1.3", "conv.conv" if causal else "conv"]
    names += ["sequence2.0", "sequence2.2.conv"]
    inner = c["d_model"] // 2 if c.get("slim", True) else c["d_model"]
    act = ACTIVATIONS[c.get("activation", "relu")]
    hidden = [x]
    for i, d in enumerate(dilations):
        layer = w.pp(f"embedder.layers.{i}")
        x = byte_net_layer(x, layer, names, inner, c["kernel_size"], d, causal, act, 1e-5, mask)
        hidden.append(x)
    if c.get("final_ln", False):
        x = layer_norm(x, w.pp("last_norm"))
    if c.get("tie_weights", False):
        return dilations, hidden, F.linear(x, embedding)
    return dilations, hidden, pointwise(x, c["n_tokens"], w.pp("decoder.conv"))


def carp(c, w, ids, mask):
    hidden_size, eps = c["hidden_size"], c.get("layer_norm_eps", 1e-5)
    embedding = w.get("model.embeddings.word_embeddings.weight", c["vocab_size"], c["embedding_size"])
    x = F.embedding(ids, embedding, padding_idx=c.get("mask_token_id", 4))
    x = pointwise(x, hidden_size, w.pp("model.embeddings.projection"))
    if mask is None and c.get("pad_token_id", 0) is not None:
        mask = ids != c.get("pad_token_id", 0)
    cycle = [2**n for n in range(64) if 2**n < c["max_dilation"]] + [c["max_dilation"]]
    dilations = [cycle[i % len(cycle)] for i in range(c["num_hidden_layers"])]
    inner = c.get("intermediate_size") or (hidden_size // 2 if c.get("slim", True) else hidden_size)
    names = ["layer_norm1", "intermediate", "layer_norm2", "convolution", "layer_norm3", "output"]
    act = ACTIVATIONS[c.get("hidden_act", "gelu").lower()]
    hidden = [x]
    for i, d in enumerate(dilations):
        layer = w.pp(f"model.encoder.layer.{i}")
        x = byte_net_layer(x, layer, names, inner, c["kernel_size"], d, False, act, eps, mask)
        hidden.append(x)
    x = layer_norm(x, w.pp("lm_head.layer_norm"), eps)
    if not c.get("tie_word_embeddings", False):
        return dilations, hidden, linear(x, c["vocab_size"], w.pp("lm_head.decoder"))
    bias = w.get("lm_head.decoder.bias", c["vocab_size"])
    return dilations, hidden, F.linear(x, embedding, bias)


def conv_net(c, w, ids, mask):
    n, k = c["hidden_size"], c["kernel_size"]
    x = F.one_hot(ids, n).double()
    dilations = [
        min(
            c.get("dilation_max", 32),
            c.get("dilation_base", 2) ** ((i % c["dilation_cycle"]) // c["dilation_double_every"]),
        )
        for i in range(c["n_layers"])
    ]
    hidden = [x]
    for i, d in enumerate(dilations):
        layer = w.pp(f"model.encoder.{i}")
        span = (k - 1) * d
        h = conv(x, n, k, d, span // 2, span - span // 2, layer.pp("conv.1"))
        x = x + layer_norm(F.gelu(h), layer.pp("conv.4"))
        x = x + layer_norm(F.gelu(linear(x, n, layer.pp("ffn.0"))), layer.pp("ffn.2"))
        hidden.append(x)
    head = w.pp("cls.decoder")
    x = layer_norm(F.gelu(linear(x, n, head.pp("0"))), head.pp("2"))
    return dilations, hidden, linear(x, c["vocab_size"], head.pp("3"))


NETWORKS = {"bytenet": bytenet, "carp": carp, "ConvNet": conv_net}

CAUSAL = {"model_type": "bytenet", "n_tokens": 11, "causal": True}
CENTRED = {"model_type": "bytenet", "n_tokens": 11}
CARP = {"model_type": "carp", "vocab_size": 13}
GPN = {"model_type": "ConvNet"}

# name: (configuration, time steps, is there a mask)
CASES = {
    "bytenet_centred": (
        CENTRED | {"d_embedding": 5, "d_model": 6, "n_layers": 4, "kernel_size": 5, "r": 6,
                   "padding_idx": 2, "final_ln": True, "slim": False, "activation": "gelu"}, 17, True),
    "bytenet_tied": (
        CAUSAL | {"d_embedding": 8, "d_model": 8, "n_layers": 3, "kernel_size": 3, "r": 2,
                  "tie_weights": True}, 9, True),
    "bytenet_even_kernel": (
        CAUSAL | {"d_embedding": 13, "d_model": 13, "n_layers": 3, "kernel_size": 2, "r": 1,
                  "down_embed": False, "final_ln": True, "activation": "silu"}, 6, False),
    "bytenet_one_step": (
        CAUSAL | {"d_embedding": 3, "d_model": 16, "n_layers": 2, "kernel_size": 3, "r": 128,
                  "activation": "gelu"}, 1, False),
    "carp_dilation_6": (
        CARP | {"embedding_size": 3, "hidden_size": 6, "intermediate_size": None, "slim": False,
                "num_hidden_layers": 5, "kernel_size": 3, "max_dilation": 6, "hidden_act": "RELU",
                "layer_norm_eps": 1e-3, "dtype": None, "torch_dtype": "float32"}, 19, True),
    "carp_tied": (
        CARP | {"embedding_size": 12, "hidden_size": 12, "num_hidden_layers": 3, "kernel_size": 5,
                "max_dilation": 1, "tie_word_embeddings": True}, 8, False),
    "carp_dilation_12": (
        CARP | {"embedding_size": 4, "hidden_size": 8, "intermediate_size": 5, "num_hidden_layers": 6,
                "kernel_size": 1, "max_dilation": 12, "pad_token_id": None, "mask_token_id": 7}, 7, False),
    "gpn_even_kernel": (
        GPN | {"vocab_size": 7, "hidden_size": 9, "n_layers": 6, "kernel_size": 4, "dilation_cycle": 5,
               "dilation_double_every": 2, "dilation_base": 3, "dilation_max": 5, "n_aux_features": 2},
        13, False),
    "gpn_defaults": (
        GPN | {"vocab_size": 6, "hidden_size": 8, "n_layers": 4, "kernel_size": 3, "dilation_cycle": 3,
               "dilation_double_every": 2}, 10, False),
}


def make(name, config, time, masked, seed):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda most: torch.randint(0, most, (3, time), generator=generator)
    vocab = config.get("n_tokens") or config["vocab_size"]
    ids, target = draw(vocab), draw(vocab)
    target[draw(4) == 0] = -100
    target[0, 0] = 1
    tensors = {"input": ids}
    mask = None
    if masked:
        mask = (draw(4) > 0).long()
        mask[0] = 1
        tensors["mask"] = mask
    elif config.get("pad_token_id", 0) == 0 and time > 2:
        ids[1, -2:] = 0
    weights = Weights(generator)
    dilations, hidden, logits = NETWORKS[config["model_type"]](config, weights, ids, mask)
    loss = F.cross_entropy(logits.flatten(0, 1), target.flatten())
    loss.backward()
    tensors |= {"target": target, "logits": logits, "loss": loss.reshape(1)}
    tensors |= {f"hidden.{i}": h for i, h in enumerate(hidden)}
    for parameter, value in weights.tensors.items():
        tensors[f"param.{parameter}"] = value
        tensors[f"grad.{parameter}"] = value.grad
    tensors = {key: tensor.detach().contiguous().clone() for key, tensor in tensors.items()}
    save_file(tensors, OUT / f"{name}.safetensors")
    return {"name": name, "config": config, "dilations": dilations}


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    cases = [make(name, *case, seed) for seed, (name, case) in enumerate(CASES.items(), 1)]
    text = json.dumps({"torch": torch.__version__, "cases": cases}, indent=1)
    (OUT / "cases.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
