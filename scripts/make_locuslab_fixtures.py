#!/usr/bin/env python3
"""Golden values of three networks of the reference TCN (locuslab/TCN), for tests/library/locuslab.rs.

    python3 -m venv venv && venv/bin/pip install torch==2.9.1 numpy safetensors
    git clone https://github.com/locuslab/TCN tcn && git -C tcn checkout 2f8c2b8
    venv/bin/python scripts/make_locuslab_fixtures.py tcn

Writes state_dict.safetensors and io.safetensors for the arguments in tests/fixtures/locuslab/CASE/config.json: `input`,
`target` or `loss_coef`, `output`, `loss` and `grad.*` (of the input too where it holds numbers), computed in float64
from float32 weights and cast back; `output_f32` is a float32 run. Layouts are the networks' own. The losses are those of
the clone's test programs, and sum(output * loss_coef) for the network without one.
"""
import importlib
import sys
import warnings

import torch
import torch.nn.functional as F

from golden import FIXTURES, Drawn, gradients, plain, read_json, write

CONTEXT = 8  # tokens at the start that char_cnn does not score


def text(net, args, drawn):
    ids, target = (drawn.ids(name, args["output_size"], 3, 41) for name in ["input", "target"])
    def loss(output):
        return F.cross_entropy(output[:, CONTEXT:].flatten(0, 1), target[:, CONTEXT:].flatten())
    return ids, {"target": target}, loss


def music(net, args, drawn):
    def keys(name):
        return drawn.old[name] if name in drawn.old else drawn.ids(name, 2, 1, 40, args["input_size"]).float()
    xs, target = keys("input"), keys("target")
    def loss(output):
        return F.binary_cross_entropy(output, target.double(), reduction="sum")
    return xs, {"target": target}, loss


def frames(net, args, drawn):
    xs = drawn.normal("input", 3, args["num_inputs"], 25)
    coef = drawn.normal("loss_coef", 3, args["num_channels"][-1], 25)
    return xs, {"loss_coef": coef}, lambda output: (output * coef.double()).sum()


CASES = {
    "char_cnn": ("TCN.char_cnn.model", "TCN", text),
    "poly_music": ("TCN.poly_music.model", "TCN", music),
    "tcn_k3_downsample": ("TCN.tcn", "TemporalConvNet", frames),
}


def make(name, module, class_name, data):
    case = FIXTURES / "locuslab" / name
    args = read_json(case / "config.json")["args"]
    weights, io = case / "state_dict.safetensors", case / "io.safetensors"
    drawn = Drawn(weights, io)
    net = getattr(importlib.import_module(module), class_name)(**args).eval()
    drawn.fill(net)
    write(weights, net.state_dict())

    given, others, loss_of = data(net, args, drawn)
    narrow = plain(net(given))
    net.double()
    wide = given.double().requires_grad_() if given.is_floating_point() else given
    output = net(wide)
    loss = loss_of(output)
    loss.backward()
    tensors = {"input": given, "output": output, "output_f32": narrow, "loss": loss.reshape(1)} | others | gradients(net)
    if wide.requires_grad:
        tensors["grad.input"] = wide.grad
    write(io, tensors)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=".*weight_norm.*")
    sys.path.insert(0, sys.argv[1])
    for name, case in CASES.items():
        make(name, *case)
