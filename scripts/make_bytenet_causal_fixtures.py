#!/usr/bin/env python3
"""Golden values of a causal ByteNetLM of protein-sequence-models, for tests/library/bytenet.rs.

    python3 -m venv venv && venv/bin/pip install torch==2.9.1 numpy safetensors sequence-models==1.8.0
    venv/bin/python scripts/make_bytenet_causal_fixtures.py

Writes state_dict.safetensors and io.safetensors for the arguments in tests/fixtures/bytenet_causal/CASE/config.json:

`input_ids`, `mask`, `target`   int64 (batch, time)
`logits`, `logits_masked`       without and with the mask, which multiplies what goes into each dilated convolution
`logits_sequential`             the package's own streaming, one token after the other
`loss`, `grad.*`                mean cross-entropy of `logits`, and its gradients

Computed in float64 from float32 weights, cast back.
"""
import torch
import torch.nn.functional as F
from sequence_models.convolutional import ByteNetLM, MaskedCausalConv1d

from golden import FIXTURES, Drawn, gradients, read_json, write

BATCH, TIME = 2, 33


def sequential(net, ids):
    for module in net.modules():
        if isinstance(module, MaskedCausalConv1d):
            module.sequential = True
            module.clear_cache()
    with torch.no_grad():
        return torch.cat([net(ids[:, t : t + 1]) for t in range(ids.shape[1])], dim=1)


for config in sorted((FIXTURES / "bytenet_causal").glob("*/config.json")):
    case = config.parent
    args = read_json(config)["args"]
    weights, io = case / "state_dict.safetensors", case / "io.safetensors"
    drawn = Drawn(weights, io)
    net = ByteNetLM(**args)
    drawn.fill(net)
    state_dict = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.double().eval()

    ids = drawn.ids("input_ids", args["n_tokens"], BATCH, TIME)
    target = drawn.ids("target", args["n_tokens"], BATCH, TIME)
    mask = drawn.ids("mask", 2, BATCH, TIME)
    logits = net(ids)
    loss = F.cross_entropy(logits.flatten(0, 1), target.flatten())
    loss.backward()
    tensors = {"input_ids": ids, "target": target, "mask": mask, "logits": logits, "loss": loss.reshape(1)}
    tensors["logits_masked"] = net(ids, input_mask=mask.unsqueeze(-1).double())
    tensors |= gradients(net)
    tensors["logits_sequential"] = sequential(net, ids)
    write(weights, state_dict)
    write(io, tensors)
