#!/usr/bin/env python3
"""Files of weights as people have them, for tests/cli/files_people_have.rs: wrapped, half, tied, doubled, damaged.

    python3 -m venv venv && venv/bin/pip install torch==2.9.1 pytorch-tcn==1.2.3 numpy safetensors
    git clone https://github.com/locuslab/TCN tcn && git -C tcn checkout 2f8c2b8
    venv/bin/python scripts/make_faults_fixtures.py tcn

Writes tests/fixtures/faults; its README says what each file is. The weights are those of three networks beside that folder:
char is locuslab/char_cnn, plain is locuslab/tcn_k3_downsample, ptcn is pytorch_tcn/weight_norm_causal. Nothing is
drawn. A file stays as it is where PyTorch reads the same in it, dictionaries and all.
"""
import json
import sys
import warnings
from collections import OrderedDict

import pytorch_tcn
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file, save_model
from torch import nn

from golden import FIXTURES, difference, read_json, same_or_written, write

OUT = FIXTURES / "faults"
ROUNDING = 1e-6
IMPULSE = torch.tensor([[[1.0, 0, 0, 0, 0, 0, 0, 0]]])


def state(network):
    return load_file(FIXTURES / network / "state_dict.safetensors")


def same(new, old):
    if isinstance(new, nn.Module):
        return repr(new) == repr(old) and same(dict(new.state_dict()), dict(old.state_dict()))
    if isinstance(new, torch.Tensor):
        return isinstance(old, torch.Tensor) and difference(new, old) <= ROUNDING
    if isinstance(new, dict):
        return type(new) is type(old) and list(new) == list(old) and all(same(new[key], old[key]) for key in new)
    if isinstance(new, (list, tuple)):
        return type(new) is type(old) and len(new) == len(old) and all(map(same, new, old))
    return new == old


def save(name, content):
    path = OUT / name
    # not weights_only: a whole module is read by running what the file says, and it is ours
    if path.exists() and same(content, torch.load(path, weights_only=False)):
        print(f"faults/{name}: kept")
        return
    torch.save(content, path)
    print(f"faults/{name}: written")


def prefixed(prefix, tensors):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def folded(tensors):
    """Without weight norm."""
    result = {}
    for name, tensor in tensors.items():
        if name.endswith("weight_v"):
            result[name.removesuffix("_v")] = torch._weight_norm(tensor, tensors[name[:-1] + "g"], 0)
        elif not name.endswith("weight_g"):
            result[name] = tensor.clone()
    return dict(sorted(result.items()))


def char_network():
    from TCN.char_cnn.model import TCN
    net = TCN(**read_json(FIXTURES / "locuslab/char_cnn/config.json")["args"])
    net.load_state_dict(state("locuslab/char_cnn"))
    with torch.no_grad():  # weights derived from others, which then have no past and can be copied
        net.eval()(torch.zeros(1, 1, dtype=torch.int64))
    return net


def wrapped(char, plain, ptcn):
    save("compiled.pt", torch.compile(char_network()).state_dict())
    save("swa.pt", torch.optim.swa_utils.AveragedModel(char_network()).state_dict())
    save("whole.pt", char_network())
    save("b2_net.pt", {"net": char, "optimizer": {}, "epoch": 7})
    save("pre_tcn.pt", prefixed("tcn.", plain))
    inside = OrderedDict(prefixed("model.", ptcn) | {"criterion.weight": torch.ones(2)})
    save("light.pt", {"state_dict": inside, "epoch": 3, "pytorch-lightning_version": "2.5.0"})
    save_tied(OUT / "tied.safetensors")


def content(path):
    with safe_open(path, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in sorted(file.keys())}


def save_tied(path):
    """Which tensors were left out stands in the metadata, in an order that is another each time."""
    fresh = path.with_suffix(".new")
    save_model(char_network(), fresh)
    if path.exists() and content(path)[0] == content(fresh)[0] and same(content(path)[1], content(fresh)[1]):
        fresh.unlink()
        print("faults/tied.safetensors: kept")
    else:
        fresh.replace(path)
        print("faults/tied.safetensors: written")


def doubled(char, plain):
    convolution = {name.removeprefix("tcn."): tensor for name, tensor in char.items()
                   if name.startswith("tcn.network.0.conv")}
    moments = {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3)}}
    save("two_dicts.pt", {
        "net": convolution,
        "ema": {"model": plain, "decay": 0.99},
        "optimizer": {"state": moments, "param_groups": [{"lr": 0.1}]},
        "epoch": 3,
    })
    newer = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    others = {name.replace(old, new): tensor + 1 for name, tensor in char.items()
              for old, new in newer.items() if name.endswith(old)}
    save("b5_both.pt", char | others)
    twin = "tcn.network.0.net.0.weight_v"
    save("b5_netdiff.pt", char | {twin: char[twin] + 1})


def lightning(plain):
    parameters = [nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))]
    adam = torch.optim.Adam(parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    adam.step()
    path = OUT / "lightning.ckpt"
    random = torch.load(path, weights_only=True)["rng"]["cpu"] if path.exists() else torch.get_rng_state()[:16]
    best, current = torch.tensor(0.1), torch.tensor(0.2)
    save("lightning.ckpt", {
        "epoch": 3,
        "global_step": 10,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": prefixed("net.", plain),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {
            "monitor": "val", "best_model_score": best, "best_model_path": "x.ckpt", "current_score": current,
            "kth_value": best, "dirpath": "d"}},
        "optimizer_states": [adam.state_dict()],
        "adam": adam.state_dict(),
        "lr_schedulers": [],
        "rng": {"cpu": random},
        "hyper_parameters": {"lr": 0.1, "class_weights": torch.ones(3), "name": "x"},
    })


def ones(net, bias):
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.fill_(bias if name.endswith("bias") else 1.0)
    return net.eval()


def small():
    """Two networks whose dilation of 3 the shapes of their weights do not tell, and what they make of an impulse."""
    from TCN.tcn import TemporalConvNet
    net = ones(TemporalConvNet(1, [1], 2, dropout=0.0), 0.0)
    save("lmini.pt", net.state_dict())
    block = net.network[0]
    for conv, chomp in [(block.conv1, block.chomp1), (block.conv2, block.chomp2)]:
        conv.dilation, conv.padding, chomp.chomp_size = (3,), (3,), 3
    write(OUT / "lmini_io.safetensors", {"input": IMPULSE, "output": net(IMPULSE)})

    kwargs = {"num_inputs": 1, "num_channels": [1], "kernel_size": 2, "use_norm": None}
    net = ones(pytorch_tcn.TCN(**kwargs, dilations=[3]), 1.0)
    same_or_written(OUT / "mini.json", json.dumps(kwargs))
    save("mini.pt", net.state_dict())
    write(OUT / "mini_io.safetensors", {"input": IMPULSE, "output": net(IMPULSE)})


def damaged(char):
    tensors = folded(char)
    for layer in ["conv1", "net.0"]:
        tensors[f"tcn.network.0.{layer}.weight"][0, 0, 0] = float("nan")
    save("nanw.pt", tensors)
    half = {name: tensor.half() for name, tensor in char.items()}
    path = OUT / "b8_f16.safetensors"
    if path.exists() and same(dict(sorted(half.items())), dict(sorted(load_file(path).items()))):
        print("faults/b8_f16.safetensors: kept")
    else:
        save_file(half, path)
        print("faults/b8_f16.safetensors: written")


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    sys.path.insert(0, sys.argv[1])
    char, plain, ptcn = map(state, ["locuslab/char_cnn", "locuslab/tcn_k3_downsample", "pytorch_tcn/weight_norm_causal"])
    wrapped(char, plain, ptcn)
    doubled(char, plain)
    lightning(plain)
    small()
    damaged(char)
