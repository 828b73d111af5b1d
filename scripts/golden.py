"""What the scripts make_*_fixtures.py of other projects' networks share.

Some numbers of a golden file were drawn once: weights, inputs, coefficients of a loss. They are read back from the
committed file, or drawn anew where there is none. All others follow from them. A file whose numbers come out
the same, up to the last bits, stays as it is; another is written.
"""
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

FIXTURES = Path(__file__).resolve().parent.parent / "tests" / "fixtures"

# differences that another order of summation in float64 or float32 makes, of the largest number of a tensor
ROUNDING = 2e-6


def read_json(path):
    return json.loads(Path(path).read_text())


class Drawn:
    """Numbers that were drawn once: those of the committed files, or new ones."""

    def __init__(self, *paths, seed=0):
        self.generator = torch.Generator().manual_seed(seed)
        self.old = {}
        for path in paths:
            if path.exists():
                self.old |= load_file(path)

    def normal(self, name, *shape):
        return self._old(name, shape) if name in self.old else torch.randn(shape, generator=self.generator)

    def ids(self, name, below, *shape):
        if name in self.old:
            return self._old(name, shape)
        return torch.randint(below, shape, generator=self.generator)

    def fill(self, module):
        """The committed weights, or new ones: gains about 1, positive variances."""
        state = module.state_dict()
        if set(state) <= set(self.old):
            module.load_state_dict({name: self.old[name] for name in state})
            return
        for name, value in state.items():
            if value.is_floating_point() and value.numel() and not name.endswith("padder.buffer"):
                noise = torch.rand(value.shape, generator=self.generator) - 0.5
                positive = name.endswith(("running_var", "weight_g", "original0")) or value.dim() == 1 and "weight" in name
                value.copy_(1 + noise if positive else noise * 3 / max(value[0].numel(), 1) ** 0.5)

    def _old(self, name, shape):
        value = self.old[name]
        assert tuple(value.shape) == tuple(shape), f"{name}: {tuple(value.shape)}, not {tuple(shape)}"
        return value


def plain(tensor):
    """As it is stored: float64 as float32, contiguous, without a past."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).contiguous().clone()


def gradients(module):
    return {f"grad.{name}": p.grad for name, p in module.named_parameters() if p.grad is not None}


def difference(new, old):
    """Largest difference of two tensors, of the largest number; infinite where names, types or shapes differ."""
    if new.dtype != old.dtype or new.shape != old.shape:
        return float("inf")
    new, old = new.double(), old.double()
    both_nan = new.isnan() & old.isnan()
    gap = (new - old).masked_fill(both_nan, 0)
    return float(gap.abs().max() / old[~both_nan].abs().max().clamp_min(1e-30)) if gap.numel() else 0.0


def write(path, tensors, metadata=None):
    """Writes a file of tensors, unless the one that is there holds the same."""
    tensors = {name: plain(tensor) for name, tensor in tensors.items()}
    place = path.relative_to(FIXTURES)
    if path.exists():
        old = load_file(path)
        if set(old) == set(tensors):
            gaps = {name: difference(tensor, old[name]) for name, tensor in tensors.items()}
            worst = max(gaps, key=gaps.get)
            if gaps[worst] <= ROUNDING:
                same = sum(torch.equal(tensor, old[name]) for name, tensor in tensors.items())
                print(f"{place}: kept; {same} of {len(gaps)} tensors bit for bit, others within {gaps[worst]:.1e}")
                return
            print(f"{place}: {worst} differs by {gaps[worst]:.1e}")
        else:
            print(f"{place}: other tensors: {sorted(set(old) ^ set(tensors))}")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata)
    print(f"{place}: written")


def same_or_written(path, text):
    """Writes a text, unless the file holds it already."""
    if path.exists() and path.read_text() == text:
        print(f"{path.relative_to(FIXTURES)}: kept")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(f"{path.relative_to(FIXTURES)}: written")
