#!/usr/bin/env python3
"""Weights as PyTorch writes them, for the tests of reading them.

    python3 -m venv venv && venv/bin/pip install torch==2.9.1 numpy safetensors
    venv/bin/python scripts/make_weights_fixtures.py

Writes into tests/fixtures/weights:

CASE.pt, CASE.bin     files of torch.save: the archive and the older format, protocols 2 to 5, every type of
                      numbers, parameters, tied and transposed tensors, checkpoints with the state dict inside
sharded/, sharded_bin/
                      one state dict in several files, with their index as transformers writes it
expected.safetensors  `CASE/TENSOR` for all of these, as PyTorch itself reads them; booleans as bytes
refused_*.pt          what must not be read: whole modules, complex numbers, a compressed archive

The seed is fixed: the same PyTorch writes the same tensors.
"""
import argparse
import io
import json
import struct
import warnings
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import numpy
import torch
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "weights"
EXPECTED = {}


def case(name, content, state_dict=None, **how):
    torch.save(content, OUT / name, **how)
    expect(name, content if state_dict is None else state_dict)


def expect(name, state_dict):
    for key, tensor in state_dict.items():
        if isinstance(tensor, torch.Tensor):
            tensor = tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor
            EXPECTED[f"{name}/{key}"] = tensor.detach().clone().contiguous()


def kinds():
    numbers = torch.randn(2, 3)
    whole = torch.tensor([[-3, 0, 7], [100, -100, 1]])
    tensors = {str(t).split(".")[1]: numbers.to(t) for t in [torch.float32, torch.float64, torch.float16, torch.bfloat16]}
    tensors |= {str(t).split(".")[1]: whole.to(t) for t in [torch.int64, torch.int32, torch.int16]}
    tensors["uint8"] = torch.tensor([0, 1, 255], dtype=torch.uint8)
    tensors["bool"] = torch.tensor([True, False, True])
    tensors["scalar"] = torch.tensor(3.5)
    tensors["empty"] = torch.zeros(0, 4)
    return tensors


def views():
    base = torch.arange(24.0).reshape(2, 3, 4)
    linear = torch.nn.Linear(3, 2)
    return {
        "base": base,
        "tied": base,
        "transposed": base.transpose(0, 2),
        "permuted": base.permute(1, 2, 0),
        "narrow": base[1, 1:],
        "every_second": base[:, :, ::2],
        "column": base[:, 1, 3],
        "expanded": torch.tensor([[5.0], [6.0]]).expand(2, 3),
        "one": base[1:, :1, 2:3].transpose(0, 1),
        "parameter": linear.weight,
        "parameter_t": torch.nn.Parameter(linear.weight.detach().t()),
    }


def checkpoint():
    """What training scripts keep, everything harmless that stands beside the tensors included."""
    net = torch.nn.Sequential(OrderedDict(conv=torch.nn.Conv1d(2, 3, 2), norm=torch.nn.BatchNorm1d(3)))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    net(torch.randn(2, 2, 5)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2])
    beside = {
        "epoch": 3,
        "best": 1.5,
        "name": "tcn",
        "args": argparse.Namespace(lr=0.1, levels=[1, 2], where=Path("a/b")),
        "optimizer_state_dict": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "seen": {1, 2},
        "counts": Counter("abca"),
        "scalar": numpy.float64(0.25),
        "array": numpy.arange(3),
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "big": 1 << 80,
        "negative": -70000,
        "none": None,
        "rng": torch.get_rng_state()[:8].clone(),
    }
    return net.state_dict(), beside




def typed():
    """Tensors with attributes of their own are rebuilt through `_rebuild_from_type_v2`."""
    tensor = torch.arange(3.0)
    tensor.note = "kept by Python"
    parameter = torch.nn.Parameter(torch.arange(2.0))
    parameter.note = [1]
    return {"tensor": tensor, "parameter": parameter, "buffer": torch.nn.Buffer(torch.ones(2))}


def as_zip64(content):
    """The same archive with every number of its table of contents in 64 bits."""
    end = content.rindex(b"PK\5\6")
    count, length, start = struct.unpack_from("<HII", content, end + 10)
    entries, at = b"", start
    while at < start + length:
        head = bytearray(content[at : at + 46])
        packed, size = struct.unpack_from("<II", head, 20)
        name, extra, comment = struct.unpack_from("<HHH", head, 28)
        (offset,) = struct.unpack_from("<I", head, 42)
        wide = struct.pack("<HHQQQ", 1, 24, size, packed, offset)
        struct.pack_into("<II", head, 20, 0xFFFFFFFF, 0xFFFFFFFF)
        struct.pack_into("<HH", head, 28, name, len(wide))
        struct.pack_into("<I", head, 42, 0xFFFFFFFF)
        entries += bytes(head) + content[at + 46 : at + 46 + name] + wide
        at += 46 + name + extra + comment
    end64 = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(entries), start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, start + len(entries), 1)
    end32 = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return content[:start] + entries + end64 + locator + end32


def compressed(content):
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    return packed.getvalue()


def sharded(folder, ending, save):
    """Three tensors in two files."""
    state = {f"layer.{i}.weight": torch.randn(2, 2) for i in range(3)}
    stem = {"safetensors": "model", "bin": "pytorch_model"}[ending]
    files = [f"{stem}-0000{i + 1}-of-00002.{ending}" for i in range(2)]
    where = {name: files[i // 2] for i, name in enumerate(state)}
    (OUT / folder).mkdir(exist_ok=True)
    for file in files:
        save({name: tensor for name, tensor in state.items() if where[name] == file}, OUT / folder / file)
    index = {"metadata": {"total_size": 48}, "weight_map": where}
    (OUT / folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index, indent=2) + "\n")
    expect(folder, state)


def main():
    warnings.simplefilter("ignore")
    torch.manual_seed(1)
    OUT.mkdir(parents=True, exist_ok=True)
    for protocol in range(2, 6):
        case(f"kinds_{protocol}.pt", kinds(), pickle_protocol=protocol)
    older = {"_use_new_zipfile_serialization": False}
    for protocol in (2, 4):
        case(f"older_kinds_{protocol}.pt", kinds(), pickle_protocol=protocol, **older)
    case("views.bin", views())
    case("older_views.bin", views(), **older)
    case("typed.pt", typed())
    state, beside = checkpoint()
    case("bare.pth", state)
    for name in ("state_dict", "model", "model_state_dict"):
        case(f"under_{name}.pt", {**beside, name: state}, state, pickle_protocol=2)
    case("older_checkpoint.pt", {**beside, "model": state}, state, pickle_protocol=5, **older)
    int8 = {"weight": torch.tensor([[1, -2, 127], [-128, 0, 5]], dtype=torch.int8), "weight_scale": torch.tensor([0.5, 2.0])}
    case("int8.pt", int8, {"weight": int8["weight"] * int8["weight_scale"][:, None]})
    buffer = io.BytesIO()
    torch.save(kinds(), buffer)
    (OUT / "zip64.pt").write_bytes(as_zip64(buffer.getvalue()))
    expect("zip64.pt", torch.load(OUT / "zip64.pt", weights_only=True))
    sharded("sharded", "safetensors", save_file)
    sharded("sharded_bin", "bin", torch.save)
    save_file(EXPECTED, OUT / "expected.safetensors")

    torch.save(torch.nn.Linear(2, 2), OUT / "refused_module.pt")
    torch.save(torch.nn.Linear(2, 2), OUT / "refused_older_module.pt", **older)
    torch.save({"x": torch.ones(2, dtype=torch.complex64)}, OUT / "refused_complex.pt")
    torch.save([torch.ones(2)], OUT / "refused_list.pt")
    buffer = io.BytesIO()
    torch.save({"x": torch.ones(2)}, buffer)
    (OUT / "refused_compressed.pt").write_bytes(compressed(buffer.getvalue()))


if __name__ == "__main__":
    main()
