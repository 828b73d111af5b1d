#!/usr/bin/env python3
"""Golden cases of pytorch-tcn 1.2.3 (every option of TCN, and its layers alone) and of transposed convolutions.

    pip install torch==2.9.1 pytorch-tcn==1.2.3 numpy safetensors
    scripts/make_pytorch_tcn_fixtures.py

Writes tests/fixtures/pytorch_tcn_options.{json,safetensors}. The json lists the cases: name, class, arguments,
the blocks of a stream and the precision a float32 run reaches. Tensors are named CASE.KIND: state.* (the state
dict as saved), input, embedding.N, output, grad_output, grad.* (of every parameter, `input` and `embedding.N`,
for the sum of output * grad_output), streaming_output (row by row, buffers reset before each, as the package
streams single sequences only), train_output and train.* (batch statistics, and the running ones after it).
Layouts are the package's own. Weights are float32; all is computed in float64 and cast back.

Writes tests/fixtures/conv_transpose1d.{json,safetensors} too: torch.nn.ConvTranspose1d at awkward sizes, in
(batch, channels, time): CASE.{input, weight, bias, output, grad_output, grad_input, grad_weight, grad_bias}.
"""

import json
from pathlib import Path

import torch
from pytorch_tcn import TCN, TemporalConv1d, TemporalConvTranspose1d
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "pytorch_tcn_options"
ACTIVATIONS = ["relu", "tanh", "leaky_relu", "sigmoid", "elu", "gelu", "selu", "softmax", "log_softmax"]
MODES = ["zeros", "reflect", "replicate", "circular"]
BATCH = 2


def networks():
    """(name, arguments, shapes of the embeddings that are passed)"""
    small = dict(num_inputs=3, num_channels=[4, 4, 5], kernel_size=3)
    for norm in ["weight_norm", "batch_norm", "layer_norm", None]:
        for gate in [False, True]:
            yield f"norm_{norm}{'_gate' if gate else ''}", dict(small, use_norm=norm, use_gate=gate), []
    for activation in ACTIVATIONS:
        yield f"activation_{activation}", dict(
            small, activation=activation, use_skip_connections=True, kernel_initializer="normal"), []
        yield f"output_{activation}", dict(small, output_projection=2, output_activation=activation), []
    yield "output_activation_alone", dict(small, output_activation="sigmoid"), []
    yield "projection_alone", dict(small, output_projection=7, input_shape="NLC"), []
    yield "dilations", dict(small, dilations=[3, 1, 2]), []
    for reset in [1, 2, 3, 12]:
        yield f"dilation_reset_{reset}", dict(small, num_channels=[3] * 6, dilation_reset=reset), []
    yield "dilations_before_reset", dict(small, dilations=[1, 5, 1], dilation_reset=1), []
    for kernel_size in [1, 2, 4, 5]:
        for causal in [True, False]:
            yield f"kernel_{kernel_size}_{'causal' if causal else 'centred'}", dict(
                small, kernel_size=kernel_size, causal=causal, activation="tanh"), []
    yield "defaults", dict(num_inputs=2, num_channels=[4, 3]), []
    yield "skip_one_block", dict(small, num_channels=[4], use_skip_connections=True), []
    yield "skip_widths", dict(small, num_channels=[4, 6, 4], use_skip_connections=True, activation="elu"), []
    yield "skip_gate_centred", dict(
        small, use_skip_connections=True, use_gate=True, causal=False, use_norm="layer_norm"), []
    for mode in ["add", "concat"]:
        yield f"global_{mode}", dict(small, embedding_shapes=[[3]], embedding_mode=mode), [(3,)]
        yield f"local_{mode}", dict(small, embedding_shapes=[[2, 1]], embedding_mode=mode), [(2, None)]
        yield f"both_{mode}_gate_batch_norm", dict(
            small, embedding_shapes=[[2], [3, None]], embedding_mode=mode, use_gate=True,
            use_norm="batch_norm"), [(2,), (3, None)]
        yield f"left_out_{mode}", dict(small, embedding_shapes=[[3]], embedding_mode=mode), []
        yield f"local_{mode}_nlc_skip", dict(
            small, embedding_shapes=[[2, 1]], embedding_mode=mode, input_shape="NLC", use_norm="layer_norm",
            use_skip_connections=True, output_projection=2, output_activation="softmax"), [(2, None)]


def convolutions():
    for mode in MODES:
        for causal in [True, False]:
            name = f"conv_{mode}_{'causal' if causal else 'centred'}"
            yield name, dict(in_channels=3, out_channels=4, kernel_size=4, dilation=3, padding_mode=mode,
                             causal=causal)
            yield f"{name}_stride", dict(in_channels=4, out_channels=6, kernel_size=3, stride=2, groups=2,
                                         padding_mode=mode, causal=causal, bias=False)
    yield "conv_depthwise", dict(in_channels=4, out_channels=8, kernel_size=2, dilation=5, groups=4)
    yield "conv_one_tap_stride", dict(in_channels=3, out_channels=2, kernel_size=1, stride=3)
    yield "conv_stride_dilation", dict(in_channels=3, out_channels=2, kernel_size=3, stride=3, dilation=2)


def transposed():
    for stride in [1, 2, 3, 4]:
        for causal in [True, False]:
            yield f"transposed_{stride}_{'causal' if causal else 'centred'}", dict(
                in_channels=3, out_channels=4, kernel_size=2 * stride, stride=stride, causal=causal)
    for mode in MODES[1:]:
        yield f"transposed_{mode}", dict(in_channels=4, out_channels=2, kernel_size=6, stride=3, groups=2,
                                         bias=False, padding_mode=mode)
    yield "transposed_depthwise_centred", dict(in_channels=4, out_channels=4, kernel_size=10, stride=5, groups=4,
                                               causal=False, padding_mode="replicate")


def scatter(model):
    """Moves weights and statistics off their initial values, which hide mistakes."""
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var") or name.endswith("original0"):
            tensor.copy_(0.5 + torch.rand_like(tensor))
        elif tensor.is_floating_point() and not name.endswith("buffer"):
            tensor.copy_(0.5 * torch.randn_like(tensor))


def with_older_names(state):
    """As PyTorch before 2.0 and pytorch-tcn before 1.2.2 name them."""
    renamed = {}
    for name, tensor in state.items():
        name = name.replace("parametrizations.weight.original0", "weight_g")
        name = name.replace("parametrizations.weight.original1", "weight_v")
        renamed[name.replace("padder.buffer", "buffer")] = tensor
    return renamed


def time_axis(kwargs):
    return 1 if kwargs.get("input_shape") == "NLC" else 2


def stream(model, kwargs, xs, embeddings, blocks, is_network):
    axis, rows = time_axis(kwargs), []
    for row in range(BATCH):
        model.reset_buffers() if is_network else model.reset_buffer()
        start, pieces = 0, []
        for block in blocks:
            piece = xs[row : row + 1].narrow(axis, start, block)
            extra = [e[row : row + 1] if e.dim() == 2 else e[row : row + 1, :, start : start + block]
                     for e in embeddings]
            call = dict(embeddings=extra) if extra else {}
            pieces.append(model(piece, inference=True, **call))
            start += block
        rows.append(torch.cat(pieces, axis))
    return torch.cat(rows)


def case(seed, name, cls, kwargs, shapes, time, blocks, tensors):
    torch.manual_seed(seed)
    is_network = cls is TCN
    model = cls(**dict(kwargs, dropout=0.0) if is_network else kwargs).eval()
    scatter(model)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    state = with_older_names(state) if name == "defaults" else state
    channels = kwargs["num_inputs"] if is_network else kwargs["in_channels"]
    nlc = time_axis(kwargs) == 1
    xs = torch.randn(BATCH, *((time, channels) if nlc else (channels, time)))
    embeddings = [torch.randn(BATCH, *((s[0],) if len(s) == 1 else (s[0], time))) for s in shapes]

    def call(model, xs, embeddings):
        return model(xs, embeddings=embeddings) if embeddings else model(xs)

    with torch.no_grad():
        single = call(model, xs, embeddings).double()
    model = model.double()
    inputs = [t.double().requires_grad_() for t in [xs, *embeddings]]
    ys = call(model, inputs[0], inputs[1:])
    error = ((ys - single).abs().max() / ys.abs().max()).item()
    grad_output = torch.randn_like(ys).float()
    (ys * grad_output.double()).sum().backward()

    found = {f"state.{k}": v for k, v in state.items()}
    found |= {"input": xs, "output": ys, "grad_output": grad_output, "grad.input": inputs[0].grad}
    for i, (embedding, leaf) in enumerate(zip(embeddings, inputs[1:])):
        found |= {f"embedding.{i}": embedding, f"grad.embedding.{i}": leaf.grad}
    found |= {f"grad.{k}": p.grad for k, p in model.named_parameters() if p.grad is not None}
    with torch.no_grad():
        if blocks:
            found["streaming_output"] = stream(
                model, kwargs, xs.double(), [e.double() for e in embeddings], blocks, is_network)
        if kwargs.get("use_norm") == "batch_norm":
            found["train_output"] = call(model.train(), xs.double(), [e.double() for e in embeddings])
            found |= {f"train.{k}": v for k, v in model.state_dict().items() if "running" in k}
    for kind, tensor in found.items():
        tensor = tensor.detach()
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        tensors[f"{name}.{kind}"] = tensor.contiguous()
    listed = dict(name=name, module=f"pytorch_tcn.{cls.__name__}", kwargs=kwargs, f32_error=error)
    return dict(listed, streaming_blocks=blocks) if blocks else listed


def plain_transposed():
    """(in_channels, out_channels, kernel_size, the rest) of torch.nn.ConvTranspose1d"""
    yield 3, 2, 3, dict()
    yield 3, 5, 4, dict(stride=2, padding=1)
    yield 4, 6, 3, dict(stride=3, padding=2, output_padding=2, groups=2)
    yield 2, 2, 3, dict(stride=2, dilation=3, output_padding=2, groups=2)
    yield 1, 3, 1, dict(stride=4, output_padding=3)
    yield 5, 1, 2, dict(dilation=4, padding=3)
    yield 17, 33, 6, dict(stride=2, padding=3, output_padding=1)


def write_plain_transposed():
    tensors, listed = {}, []
    for i, (c_in, c_out, kernel_size, rest) in enumerate(plain_transposed()):
        for batch, time in [(1, 1), (3, 7)]:
            name = f"{len(listed)}"
            torch.manual_seed(1000 + len(listed))
            layer = torch.nn.ConvTranspose1d(c_in, c_out, kernel_size, bias=i % 3 != 2, **rest)
            xs = torch.randn(batch, c_in, time).double().requires_grad_()
            try:
                ys = layer.double()(xs)
            except RuntimeError:  # too short for its padding
                continue
            grad_output = torch.randn_like(ys).float()
            (ys * grad_output.double()).sum().backward()
            found = {"input": xs, "output": ys, "grad_output": grad_output, "grad_input": xs.grad}
            for kind, p in layer.named_parameters():
                found |= {kind: p, f"grad_{kind}": p.grad}
            tensors |= {f"{name}.{k}": v.detach().float().contiguous() for k, v in found.items()}
            listed.append(dict(name=name, in_channels=c_in, out_channels=c_out, kernel_size=kernel_size, **rest))
    out = OUT.with_name("conv_transpose1d")
    save_file(tensors, out.with_suffix(".safetensors"))
    out.with_suffix(".json").write_text("[\n" + ",\n".join(map(json.dumps, listed)) + "\n]\n")
    print(f"{len(listed)} transposed convolutions")


def main():
    write_plain_transposed()
    tensors, listed = {}, []

    def add(name, cls, kwargs, shapes=(), time=13, blocks=(5, 1, 4, 3)):
        # streaming is for causal layers, and broken at one tap
        streams = kwargs.get("causal", True) and kwargs.get("kernel_size", 4) > 1
        listed.append(case(len(listed), name, cls, kwargs, shapes, time, list(blocks) if streams else None, tensors))

    for name, kwargs, shapes in networks():
        add(name, TCN, kwargs, shapes)
    for name, kwargs in convolutions():
        add(name, TemporalConv1d, kwargs)
    for name, kwargs in transposed():
        add(name, TemporalConvTranspose1d, kwargs, time=6, blocks=(1, 3, 2))
    save_file(tensors, OUT.with_suffix(".safetensors"))
    OUT.with_suffix(".json").write_text("[\n" + ",\n".join(map(json.dumps, listed)) + "\n]\n")
    worst = max(listed, key=lambda c: c["f32_error"])
    print(f"{len(listed)} cases; largest error of a float32 run: {worst['f32_error']:.1e} in {worst['name']}")


if __name__ == "__main__":
    main()
