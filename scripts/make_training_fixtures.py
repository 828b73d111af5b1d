#!/usr/bin/env python3
"""Golden values made with PyTorch for the tests of training: optimizers, losses, gradients.

    python3 -m venv venv && venv/bin/pip install torch==2.9.1 numpy safetensors
    venv/bin/python scripts/make_training_fixtures.py

Writes `NAME.safetensors` and `NAME.json` into tests/fixtures for these names:

optim       parameters after each of 12 steps of every optimizer, from given gradients; float64.
            `init.P`, `grad.P` [12, ...], `lr` [12], `CASE.P` [12, ...] for each parameter P and each
            case of the JSON file, whose `optimizer` is the configuration; `clip.norm` [12] and
            `clip.P` [12, ...]: norm before, gradients after clip_grad_norm_ at each of the steps.
ten_losses  ten training losses of one small tied language model. `init.P` float32,
            `input` and `target` int64 [10, B, T], `losses.OPTIMIZER` and `losses_f32.OPTIMIZER`
            float64 [10]: the loss before each update in a float64 and in a float32 run.
blocks      residual blocks with every option. Activations are (batch, time, channels), all float64:
            `CASE.{input, coef, output, grad_input}`, `CASE.param.P`, `CASE.grad.P` of
            loss = sum(output * coef); in training mode also `CASE.updated.P`: running statistics
            after the forward pass.
wavenet     a WaveNet language model: `input`, `target` int64 (B, T), `logits` (B, T, V),
            `loss` [1], `param.P`, `grad.P`; float64.

Every network is written here in plain torch.nn.functional on a dictionary of tensors, so that each
definition can be read off in one place. Seeds are fixed: the same PyTorch writes the same files.
"""
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parent.parent / "tests" / "fixtures"


def write(name, tensors, description):
    tensors = {key: tensor.detach().contiguous() for key, tensor in tensors.items()}
    save_file(tensors, OUT / f"{name}.safetensors")
    description = {"torch": torch.__version__, **description}
    (OUT / f"{name}.json").write_text(json.dumps(description, indent=1) + "\n")
    print(f"{name}: {(OUT / f'{name}.safetensors').stat().st_size} bytes, {len(tensors)} tensors")


def decays(name, tensor):
    """The rule of the crate: no weight decay on biases, norms and gains."""
    return tensor.dim() >= 2 and not name.endswith("weight_g")


def make_optimizer(config, params, lr):
    """A torch optimizer from the crate's configuration; weight decay through parameter groups."""
    config = dict(config)
    name = config.pop("name")
    weight_decay = config.pop("weight_decay", 0.0)
    if name == "adamw":
        config["betas"] = (config.pop("beta1", 0.9), config.pop("beta2", 0.999))
    groups = [
        {"params": [p for n, p in params.items() if decays(n, p)], "weight_decay": weight_decay},
        {"params": [p for n, p in params.items() if not decays(n, p)], "weight_decay": 0.0},
    ]
    kind = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD, "rmsprop": torch.optim.RMSprop}[name]
    return kind(groups, lr=lr, **config)


class make_muon:
    """PyTorch's Muon for what decays, a matrix for each tap of a kernel, in full precision; AdamW for the rest."""

    def __init__(self, config, params):
        torch.Tensor.bfloat16 = lambda tensor: tensor
        config = dict(config)
        del config["name"]
        weight_decay, momentum = config.pop("weight_decay"), config.pop("momentum", 0.95)
        ns_steps, rate = config.pop("ns_steps", 5), config.pop("adamw_rate", 1.0)
        betas = (config.pop("beta1", 0.9), config.pop("beta2", 0.999))
        self.hidden = {name: param for name, param in params.items() if decays(name, param)}
        flat = {name: param.detach().flatten(2) if param.dim() > 2 else param.detach().unsqueeze(2)
                for name, param in self.hidden.items()}
        self.taps = {name: [tap.clone().requires_grad_() for tap in param.unbind(2)] for name, param in flat.items()}
        self.muon = torch.optim.Muon(sum(self.taps.values(), []), weight_decay=weight_decay, momentum=momentum,
                                     adjust_lr_fn="match_rms_adamw", ns_steps=ns_steps)
        rest = [param for name, param in params.items() if name not in self.hidden]
        self.adamw = torch.optim.AdamW(rest, betas=betas, weight_decay=0.0, **config)
        for group in self.adamw.param_groups:
            group["rate"] = rate
        self.param_groups = self.muon.param_groups + self.adamw.param_groups

    def step(self):
        for name, param in self.hidden.items():
            for tap, grad in zip(self.taps[name], param.grad.reshape(*param.shape[:2], -1).unbind(2)):
                tap.grad = grad.contiguous()
        self.muon.step()
        self.adamw.step()
        with torch.no_grad():
            for name, param in self.hidden.items():
                param.copy_(torch.stack(self.taps[name], 2).reshape(param.shape))


# --- networks ------------------------------------------------------------------------------------

def weight_of(params, name):
    """A convolution's weight, folded from gain and direction if it is weight-normalised."""
    if f"{name}.weight" in params:
        return params[f"{name}.weight"]
    g, v = params[f"{name}.weight_g"], params[f"{name}.weight_v"]
    return g * v / torch.linalg.vector_norm(v, dim=(1, 2), keepdim=True)


def conv(params, name, x, dilation=1, causal=True):
    """Dilated convolution of x (B, C, T) that keeps the length."""
    weight = weight_of(params, name)
    total = (weight.shape[2] - 1) * dilation
    left = total if causal else total // 2
    x = F.pad(x, (left, total - left))
    return F.conv1d(x, weight, params[f"{name}.bias"], dilation=dilation)


def norm(params, name, x, case):
    kind = case["norm"]
    if kind in ("weight", "none"):
        return x
    weight, channels = params[f"{name}.weight"], x.shape[1:2]
    if kind == "batch":
        mean, var = params[f"{name}.running_mean"], params[f"{name}.running_var"]
        bias, training = params[f"{name}.bias"], case["training"]
        return F.batch_norm(x, mean, var, weight, bias, training, momentum=0.1, eps=1e-5)
    x = x.transpose(1, 2)
    if kind == "layer":
        x = F.layer_norm(x, channels, weight, params[f"{name}.bias"], eps=1e-5)
    else:
        x = F.rms_norm(x, channels, weight, eps=1e-6)
    return x.transpose(1, 2)


ACTIVATIONS = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "elu": F.elu,
    "leaky_relu": F.leaky_relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "mish": F.mish,
}


def gate(x, case):
    """What follows the first convolution: a gate over two halves of its channels, or the activation."""
    if case["gate"] == "none":
        return ACTIVATIONS[case["activation"]](x)
    first, second = x.chunk(2, dim=1)
    return (first if case["gate"] == "glu" else torch.tanh(first)) * torch.sigmoid(second)


def block(params, name, x, dilation, case):
    """One residual block, dropout 0: returns its output and its inner branch before the residual."""
    act, causal = ACTIVATIONS[case["activation"]], case["causal"]
    down = f"{name}.downsample"
    residual = conv(params, down, x) if f"{down}.weight" in params else x
    if case["pre_norm"]:
        h = conv(params, f"{name}.conv1", norm(params, f"{name}.norm1", x, case), dilation, causal)
        h = gate(h, case)
        h = conv(params, f"{name}.conv2", norm(params, f"{name}.norm2", h, case), dilation, causal)
        return residual + h, h
    h = conv(params, f"{name}.conv1", x, dilation, causal)
    h = gate(norm(params, f"{name}.norm1", h, case), case)
    h = conv(params, f"{name}.conv2", h, dilation, causal)
    h = act(norm(params, f"{name}.norm2", h, case))
    return act(h + residual), h


def network(params, x, case, prefix=""):
    """Blocks one after the other on x (B, C, T), with or without skip connections.

    Skip connections are those of pytorch-tcn 1.2.3: the last output plus the inner branch of each
    block before it, through its `downsample_skip_connection` where its width is not the last one's;
    the activation follows the sum.
    """
    skips = []
    for i, dilation in enumerate(case["dilations"]):
        x, inner = block(params, f"{prefix}network.{i}", x, dilation, case)
        name = f"{prefix}downsample_skip_connection.{i}"
        skips.append(conv(params, name, inner) if f"{name}.weight" in params else inner)
    if not case["skip_connections"]:
        return x
    return ACTIVATIONS[case["activation"]](sum(skips[:-1]) + x)


def uniform(*shape, bound):
    return (torch.rand(shape) * 2 - 1) * bound


def make_conv(params, name, c_in, c_out, kernel_size, normalised=False):
    bound = 1 / math.sqrt(c_in * kernel_size)
    weight = uniform(c_out, c_in, kernel_size, bound=bound)
    if normalised:
        length = torch.linalg.vector_norm(weight, dim=(1, 2), keepdim=True)
        # not the length itself, so that a forgotten gain shows
        params[f"{name}.weight_g"] = length * (0.75 + 0.5 * torch.rand_like(length))
        params[f"{name}.weight_v"] = weight
    else:
        params[f"{name}.weight"] = weight
    params[f"{name}.bias"] = uniform(c_out, bound=bound)


def make_norm(params, name, channels, kind):
    if kind in ("weight", "none"):
        return
    params[f"{name}.weight"] = 1 + uniform(channels, bound=0.5)
    if kind in ("layer", "batch"):
        params[f"{name}.bias"] = uniform(channels, bound=0.5)
    if kind == "batch":
        params[f"{name}.running_mean"] = uniform(channels, bound=0.5)
        params[f"{name}.running_var"] = 0.5 + torch.rand(channels)


def make_network(case, prefix=""):
    params, width = {}, case["num_channels"][-1]
    c_in, k, kind = case["num_inputs"], case["kernel_size"], case["norm"]
    for i, c_out in enumerate(case["num_channels"]):
        name = f"{prefix}network.{i}"
        hidden = c_out if case["gate"] == "none" else 2 * c_out
        pre = case["pre_norm"]
        make_conv(params, f"{name}.conv1", c_in, hidden, k, normalised=kind == "weight")
        make_norm(params, f"{name}.norm1", c_in if pre else hidden, kind)
        make_conv(params, f"{name}.conv2", c_out, c_out, k, normalised=kind == "weight")
        make_norm(params, f"{name}.norm2", c_out, kind)
        if c_in != c_out:
            make_conv(params, f"{name}.downsample", c_in, c_out, 1)
        if case["skip_connections"] and c_out != width:
            make_conv(params, f"{prefix}downsample_skip_connection.{i}", c_out, width, 1)
        c_in = c_out
    return params


# --- fixtures ------------------------------------------------------------------------------------

def optim():
    torch.manual_seed(1)
    steps, max_norm = 12, 2.5
    shapes = {"a.bias": (5,), "a.weight": (3, 4), "b.weight_g": (2, 1, 1), "b.weight_v": (2, 3, 2)}
    init = {name: torch.randn(shape) for name, shape in shapes.items()}
    grads = {name: torch.randn(steps, *shape) for name, shape in shapes.items()}
    lr = torch.tensor([0.05 * (1 + 0.5 * math.sin(step)) for step in range(steps)])
    cases = {
        "adamw": {"name": "adamw", "weight_decay": 0.1},
        "adamw_betas": {"name": "adamw", "beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "weight_decay": 0.0},
        "muon": {"name": "muon", "weight_decay": 0.1},
        "muon_momentum": {"name": "muon", "momentum": 0.8, "beta2": 0.95, "weight_decay": 0.0},
        "muon_rate": {"name": "muon", "ns_steps": 3, "adamw_rate": 0.3, "weight_decay": 0.1},
        "sgd": {"name": "sgd"},
        "sgd_momentum": {"name": "sgd", "momentum": 0.9},
        "sgd_nesterov": {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        "rmsprop": {"name": "rmsprop"},
        "rmsprop_momentum": {
            "name": "rmsprop", "alpha": 0.9, "eps": 1e-3, "momentum": 0.5, "weight_decay": 0.1,
        },
    }
    tensors = {f"init.{n}": t for n, t in init.items()} | {f"grad.{n}": t for n, t in grads.items()}
    tensors["lr"] = lr
    for case, config in cases.items():
        params = {name: tensor.clone().requires_grad_() for name, tensor in init.items()}
        optimizer = make_muon(config, params) if config["name"] == "muon" else make_optimizer(config, params, lr=1.0)
        history = {name: [] for name in params}
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = lr[step].item() * group.get("rate", 1.0)
            for name, param in params.items():
                param.grad = grads[name][step].clone()
            optimizer.step()
            for name, param in params.items():
                history[name].append(param.detach().clone())
        tensors |= {f"{case}.{name}": torch.stack(values) for name, values in history.items()}
    norms, clipped = [], {name: [] for name in shapes}
    for step in range(steps):
        params = {name: torch.zeros(shape, requires_grad=True) for name, shape in shapes.items()}
        for name, param in params.items():
            # from half the limit to twice the limit: some steps are clipped, some not
            param.grad = grads[name][step] * (0.1 + 0.15 * step)
        norms.append(torch.nn.utils.clip_grad_norm_(params.values(), max_norm))
        for name, param in params.items():
            clipped[name].append(param.grad)
    tensors["clip.norm"] = torch.stack(norms)
    tensors |= {f"clip.{name}": torch.stack(values) for name, values in clipped.items()}
    write("optim", tensors, {
        "parameters": list(shapes),
        "steps": steps,
        "cases": [{"name": n, "optimizer": c} for n, c in cases.items()],
        "clip": {"max_norm": max_norm, "grad_scale": "0.1 + 0.15 * step, step from 0"},
    })


def ten_losses():
    torch.manual_seed(2)
    vocab, embedding, steps, batch, time, clip = 20, 12, 10, 3, 24, 0.5
    case = {
        "norm": "weight", "activation": "relu", "gate": "none", "pre_norm": False, "causal": True,
        "skip_connections": False, "kernel_size": 3, "dilations": [1, 2, 4],
        "num_inputs": embedding, "num_channels": [16, 16, 12], "training": True,
    }
    init = {"encoder.weight": uniform(vocab, embedding, bound=1.0)}
    init |= make_network(case, prefix="tcn.")
    init["decoder.bias"] = uniform(vocab, bound=0.1)
    init = {name: tensor.float() for name, tensor in init.items()}
    inputs = torch.randint(0, vocab, (steps, batch, time))
    # something that can be learned, so that the losses depend on every update before them
    targets = (7 * inputs + 3) % vocab
    optimizers = {
        "sgd": ({"name": "sgd", "momentum": 0.9}, 0.5),
        "adamw": ({"name": "adamw", "weight_decay": 0.01}, 2e-3),
        "rmsprop": ({"name": "rmsprop"}, 1e-3),
    }

    def loss_of(params, step):
        x = F.embedding(inputs[step], params["encoder.weight"]).transpose(1, 2)
        y = network(params, x, case, prefix="tcn.").transpose(1, 2)
        logits = F.linear(y, params["encoder.weight"], params["decoder.bias"])
        return F.cross_entropy(logits.reshape(-1, vocab), targets[step].reshape(-1))

    def run(config, lr, dtype):
        params = {n: t.to(dtype).clone().requires_grad_() for n, t in init.items()}
        optimizer, losses, norms = make_optimizer(config, params, lr), [], []
        for step in range(steps):
            optimizer.zero_grad()
            loss = loss_of(params, step)
            loss.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(params.values(), clip).item())
            optimizer.step()
            losses.append(loss.item())
        # else neither clipping nor its absence would be tested
        assert min(norms) < clip < max(norms), norms
        return torch.tensor(losses, dtype=torch.float64)

    tensors = {f"init.{name}": tensor for name, tensor in init.items()}
    tensors |= {"input": inputs, "target": targets}
    for name, (config, lr) in optimizers.items():
        tensors[f"losses.{name}"] = run(config, lr, torch.float64)
        tensors[f"losses_f32.{name}"] = run(config, lr, torch.float32)
    write("ten_losses", tensors, {
        "vocab_size": vocab, "embedding_dim": embedding, "tied": True, "dropout": 0.0, "clip": clip,
        "network": case,
        "runs": [{"name": n, "optimizer": c, "lr": lr} for n, (c, lr) in optimizers.items()],
    })


def block_cases():
    base = {
        "norm": "weight", "activation": "relu", "gate": "none", "pre_norm": False, "causal": True,
        "skip_connections": False, "kernel_size": 3, "dilations": [1, 2],
        "num_inputs": 4, "num_channels": [6, 5], "training": True, "batch": 3, "time": 11,
    }

    def case(name, **options):
        return {"name": name, **base, **options}

    for norm_kind in ("weight", "layer", "batch", "rms", "none"):
        yield case(f"post_{norm_kind}", norm=norm_kind)
        yield case(f"post_{norm_kind}_glu", norm=norm_kind, gate="glu", kernel_size=2)
        yield case(f"pre_{norm_kind}", norm=norm_kind, pre_norm=True, activation="gelu")
        yield case(f"pre_{norm_kind}_glu", norm=norm_kind, pre_norm=True, gate="glu", kernel_size=2)
    yield case("post_batch_eval", norm="batch", training=False)
    yield case("pre_batch_eval", norm="batch", pre_norm=True, activation="silu", training=False)
    for activation in ACTIVATIONS:
        if activation != "relu":
            yield case(f"post_weight_{activation}", activation=activation, kernel_size=2)
    yield case("post_weight_tanh_sigmoid", gate="tanh_sigmoid")
    yield case("post_layer_tanh_sigmoid", norm="layer", gate="tanh_sigmoid", activation="elu")
    yield case("pre_rms_tanh_sigmoid", norm="rms", gate="tanh_sigmoid", pre_norm=True)
    yield case("centred_k3", causal=False)
    yield case("centred_k2", causal=False, kernel_size=2)
    yield case("centred_k4_pre_layer", causal=False, kernel_size=4, norm="layer", pre_norm=True)
    yield case("same_width", num_channels=[4, 4])
    yield case("one_step", time=1)
    yield case("one_sequence", batch=1, norm="none", gate="glu")
    yield case("skip", skip_connections=True)
    yield case("skip_same_width", skip_connections=True, num_channels=[5, 5], kernel_size=2)
    yield case("skip_pre_rms_glu", skip_connections=True, norm="rms", pre_norm=True, gate="glu",
               activation="tanh", num_channels=[6, 6, 5], dilations=[1, 2, 4], kernel_size=2)


def blocks():
    torch.manual_seed(5)
    tensors, cases = {}, list(block_cases())
    for case in cases:
        name, params = case["name"], make_network(case)
        tensors |= {f"{name}.param.{n}": t.clone() for n, t in params.items()}
        for n, tensor in params.items():
            tensor.requires_grad_("running" not in n)
        x = torch.randn(case["batch"], case["time"], case["num_inputs"], requires_grad=True)
        y = network(params, x.transpose(1, 2), case).transpose(1, 2)
        coef = torch.randn(y.shape)
        (y * coef).sum().backward()
        for n, tensor in params.items():
            # a bias before a batch norm in training has no effect; anything else zero tests nothing
            exempt = name.startswith("post_batch") and case["training"] and n.endswith("bias")
            assert "running" in n or exempt or tensor.grad.abs().max() > 1e-6, (name, n)
        tensors |= {f"{name}.input": x, f"{name}.coef": coef, f"{name}.output": y}
        tensors[f"{name}.grad_input"] = x.grad
        tensors |= {f"{name}.grad.{n}": t.grad for n, t in params.items() if t.requires_grad}
        if case["training"]:
            tensors |= {f"{name}.updated.{n}": t for n, t in params.items() if "running" in n}
    write("blocks", tensors, {"cases": cases})


def wavenet():
    torch.manual_seed(4)
    vocab, residual, dilated, skip_width, k = 11, 6, 5, 7, 2
    dilations, batch, time = [1, 2, 4, 1, 2, 4], 3, 20
    params = {"encoder.weight": torch.randn(vocab, residual)}
    for i in range(len(dilations)):
        make_conv(params, f"layers.{i}.conv", residual, 2 * dilated, k)
        make_conv(params, f"layers.{i}.skip", dilated, skip_width, 1)
        if i + 1 < len(dilations):
            make_conv(params, f"layers.{i}.residual", dilated, residual, 1)
    make_conv(params, "output.0", skip_width, skip_width, 1)
    make_conv(params, "output.1", skip_width, vocab, 1)
    for tensor in params.values():
        tensor.requires_grad_()
    ids = torch.randint(0, vocab, (batch, time + 1))
    inputs, targets = ids[:, :-1], ids[:, 1:]

    x = F.embedding(inputs, params["encoder.weight"]).transpose(1, 2)
    total = 0
    for i, dilation in enumerate(dilations):
        first, second = conv(params, f"layers.{i}.conv", x, dilation).chunk(2, dim=1)
        h = torch.tanh(first) * torch.sigmoid(second)
        total = total + conv(params, f"layers.{i}.skip", h)
        if i + 1 < len(dilations):
            x = x + conv(params, f"layers.{i}.residual", h)
    y = F.relu(conv(params, "output.0", F.relu(total)))
    logits = conv(params, "output.1", y).transpose(1, 2)
    loss = F.cross_entropy(logits.reshape(-1, vocab), targets.reshape(-1))
    loss.backward()

    tensors = {"input": inputs, "target": targets, "logits": logits, "loss": loss.reshape(1)}
    tensors |= {f"param.{n}": t for n, t in params.items()}
    tensors |= {f"grad.{n}": t.grad for n, t in params.items()}
    write("wavenet", tensors, {
        "vocab_size": vocab, "residual_channels": residual, "dilated_channels": dilated,
        "skip_channels": skip_width, "kernel_size": k, "dilations": dilations,
    })


def main():
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    OUT.mkdir(parents=True, exist_ok=True)
    print(f"torch {torch.__version__}")
    optim()
    ten_losses()
    blocks()
    wavenet()


if __name__ == "__main__":
    main()
