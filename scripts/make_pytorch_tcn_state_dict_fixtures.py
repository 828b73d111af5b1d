#!/usr/bin/env python3
"""Networks and layers of pytorch-tcn 1.2.3 as state dicts with their outputs, for tests/library/pytorch_tcn and the program.

    python3 -m venv venv && venv/bin/pip install torch==2.9.1 pytorch-tcn==1.2.3 numpy safetensors
    venv/bin/python scripts/make_pytorch_tcn_state_dict_fixtures.py

Writes state_dict.safetensors and io.safetensors for the module and the arguments in
tests/fixtures/pytorch_tcn/CASE/config.json. Every option in small is in make_pytorch_tcn_fixtures.py; these are files as
people have them:

`input`, `embedding.N`, `loss_coef`   (batch, channels, time); an embedding may be (batch, channels)
`output`, `loss`, `grad.*`            loss = sum(output * loss_coef), its gradients by the input and every parameter
`output_f32`                          a float32 run, of networks
`streaming_output`                    in the blocks of `streaming_blocks`, each sequence by itself from empty buffers;
                                      of a layer the first sequence alone
`streaming_final_buffer.*`            a network's buffers after the last sequence
`train_output`, `train_updated.*`     batch statistics, and the running ones after it

Computed in float64 from float32 weights, cast back.
"""
import pytorch_tcn
import torch

from golden import FIXTURES, Drawn, gradients, plain, read_json, write

# batch and time of each case
SIZES = {
    "batch_norm_skip": (3, 37),
    "conv_depthwise_causal": (2, 26),
    "conv_groups_causal": (2, 26),
    "conv_pad_reflect_causal": (2, 20),
    "conv_pad_replicate_causal": (2, 20),
    "conv_stride2_noncausal": (2, 31),
    "gate_embed_concat_proj": (2, 24),
    "noncausal_even_kernel_skip": (2, 31),
    "weight_norm_causal": (2, 40),
}


def call(net, xs, embeddings, **options):
    return net(xs, embeddings=embeddings, **options) if embeddings else net(xs, **options)


def stream(net, xs, embeddings, blocks, is_network):
    rows = []
    for row in range(len(xs) if is_network else 1):
        net.reset_buffers() if is_network else net.reset_buffer()
        pieces = [xs[row : row + 1].split(blocks, dim=2)]
        pieces += [[e[row : row + 1]] * len(blocks) if e.dim() == 2 else e[row : row + 1].split(blocks, dim=2)
                   for e in embeddings]
        rows.append(torch.cat([call(net, x, list(e), inference=True) for x, *e in zip(*pieces)], dim=2))
    return torch.cat(rows)


def make(case, batch, time):
    described = read_json(case / "config.json")
    name, kwargs = described["module"].removeprefix("pytorch_tcn."), described["kwargs"]
    weights, io = case / "state_dict.safetensors", case / "io.safetensors"
    drawn = Drawn(weights, io)
    net, is_network = getattr(pytorch_tcn, name)(**kwargs).eval(), name == "TCN"
    drawn.fill(net)
    write(weights, net.state_dict())

    xs = drawn.normal("input", batch, kwargs["num_inputs" if is_network else "in_channels"], time)
    embeddings = [drawn.normal(f"embedding.{i}", batch, *shape)
                  for i, shape in enumerate(kwargs.get("embedding_shapes", []))]
    tensors = {"input": xs} | {f"embedding.{i}": embedding for i, embedding in enumerate(embeddings)}
    if is_network:
        tensors["output_f32"] = plain(call(net, xs, embeddings))

    net.double()
    wide, embeddings = xs.double().requires_grad_(), [e.double() for e in embeddings]
    output = call(net, wide, embeddings)
    coef = drawn.normal("loss_coef", *output.shape)
    loss = (output * coef.double()).sum()
    loss.backward()
    tensors |= {"output": output, "loss_coef": coef, "loss": loss.reshape(1), "grad.input": wide.grad} | gradients(net)
    with torch.no_grad():
        if blocks := described.get("streaming_blocks"):
            tensors["streaming_output"] = stream(net, xs.double(), embeddings, blocks, is_network)
            if is_network:
                buffers = {k: plain(v) for k, v in net.state_dict().items() if k.endswith("padder.buffer")}
                tensors |= {f"streaming_final_buffer.{k}": v for k, v in buffers.items()}
        if kwargs.get("use_norm") == "batch_norm":
            tensors["train_output"] = call(net.train(), xs.double(), embeddings)
            tensors |= {f"train_updated.{k}": v for k, v in net.state_dict().items() if "running" in k}
    write(io, tensors)


for name, (batch, time) in SIZES.items():
    make(FIXTURES / "pytorch_tcn" / name, batch, time)
