#!/usr/bin/env python3
"""Golden values of PyTorch's convolutions and their gradients, for tests/kernels.

    python3 -m venv venv && venv/bin/pip install torch==2.9.1 numpy safetensors
    venv/bin/python scripts/make_conv_fixtures.py

Writes tests/fixtures/conv/conv1d.safetensors and conv2d.safetensors for the sizes in cases1d.json and cases2d.json:
CASE.{input, weight, bias, output, grad_output, grad_input, grad_weight, grad_bias}, in PyTorch's layout, padding of each
side given and of zeros. The gradients are those of sum(output * grad_output). Computed in float64 from float32, cast back.
"""
import torch
import torch.nn.functional as F

from golden import FIXTURES, Drawn, read_json, write

OUT = FIXTURES / "conv"


def run(case, drawn):
    two = "height" in case
    size = (case["height"], case["width"]) if two else (case["length"],)
    kernel = tuple(case["k"]) if two else (case["k"],)
    sides = ["pad_left", "pad_right"] + (["pad_top", "pad_bottom"] if two else [])
    given = {
        "input": drawn.normal(f"{case['name']}.input", case["batch"], case["cin"], *size),
        "weight": drawn.normal(f"{case['name']}.weight", case["cout"], case["cin"] // case["groups"], *kernel),
    }
    if case["bias"]:
        given["bias"] = drawn.normal(f"{case['name']}.bias", case["cout"])
    wide = {name: tensor.double().requires_grad_() for name, tensor in given.items()}
    padded = F.pad(wide["input"], [case[side] for side in sides])
    output = (F.conv2d if two else F.conv1d)(
        padded, wide["weight"], wide.get("bias"), case["stride"], 0, case["dilation"], case["groups"])
    assert list(output.shape) == case["output_shape"], case["name"]
    grad_output = drawn.normal(f"{case['name']}.grad_output", *output.shape)
    output.backward(grad_output.double())
    result = given | {"output": output, "grad_output": grad_output}
    result |= {f"grad_{name}": tensor.grad for name, tensor in wide.items()}
    return {f"{case['name']}.{name}": tensor for name, tensor in result.items()}


for axes in ["1d", "2d"]:
    path = OUT / f"conv{axes}.safetensors"
    drawn = Drawn(path)
    tensors = {}
    for case in read_json(OUT / f"cases{axes}.json")["cases"]:
        tensors |= run(case, drawn)
    write(path, tensors)
