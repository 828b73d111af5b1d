#!/usr/bin/env python3
"""Golden values of torchvision's ASPP, for tests/library/conv2d_blocks.rs.

    python3 -m venv venv && venv/bin/pip install torch==2.9.1 torchvision==0.24.1 numpy safetensors
    venv/bin/python scripts/make_aspp_fixtures.py

Writes state_dict.safetensors and io.safetensors for the arguments in tests/fixtures/aspp/CASE/config.json: `input`
(batch, channels, height, width), `loss_coef`, `output`, and `grad.*` of sum(output * loss_coef) by the input and by every
parameter. In eval mode: running statistics, no dropout. Computed in float64 from float32 weights, cast back.
"""
from torchvision.models.segmentation.deeplabv3 import ASPP

from golden import FIXTURES, Drawn, gradients, read_json, write

for config in sorted((FIXTURES / "aspp").glob("*/config.json")):
    case = config.parent
    args = read_json(config)["args"]
    weights, io = case / "state_dict.safetensors", case / "io.safetensors"
    drawn = Drawn(weights, io)
    net = ASPP(**args)
    drawn.fill(net)
    state_dict = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.double().eval()

    xs = drawn.normal("input", 1, args["in_channels"], 20, 33)
    coef = drawn.normal("loss_coef", 1, args["out_channels"], 20, 33)
    wide = xs.double().requires_grad_()
    output = net(wide)
    (output * coef.double()).sum().backward()
    io_tensors = {"input": xs, "loss_coef": coef, "output": output, "grad.input": wide.grad} | gradients(net)
    write(weights, state_dict)
    write(io, io_tensors)
