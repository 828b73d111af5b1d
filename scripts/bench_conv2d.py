#!/usr/bin/env python3
"""One convolution in PyTorch, in candle and here, forward and backward, in turns.

    cargo build --release --examples
    python3 -m venv venv && venv/bin/pip install torch==2.9.1 numpy
    scripts/bench_conv2d.py --python venv/bin/python
    scripts/bench_conv2d.py --python venv/bin/python --forms 2d 1d 1x1 --channels 256 512 --threads 1

The output and both gradients of `2d`: 3x3, dilation 4, 64x64 pixels, batch 4; `1d`: 3 taps, dilation 4, 1,024
steps, batch 16; `1x1`: one tap of the same. PyTorch runs channels_last, its best layout on a CPU (a sequence as
an image of one line); its bf16 has bf16 weights too, ours has f32 weights. Each figure is the median of a
process's runs; in each round the processes take turns, and who begins alternates. Printed are the medians of the
rounds and the median of the rounds' own ratios, which a machine that changes its speed disturbs least. candle's
own conv2d is slow and runs once.

`--python` needs torch; the script itself needs the standard library only.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

DILATION = 4
# batch, height, width, and taps along both
FORMS = {"2d": (4, 64, 64, 3, 3), "1d": (16, 1, 1024, 1, 3), "1x1": (16, 1, 1024, 1, 1)}


def torch_worker(form, dtype, channels, threads, runs):
    """Times PyTorch and prints one JSON object."""
    import torch
    from torch.nn.functional import conv2d

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]

    def leaf(*shape):
        tensor = torch.rand(*shape).to(kind).to(memory_format=torch.channels_last)
        return tensor.requires_grad_()

    batch, height, width, *taps = FORMS[form]
    xs, weight = leaf(batch, channels, height, width), leaf(channels, channels, *taps)
    ones = torch.ones(batch, channels, height, width).to(kind).to(memory_format=torch.channels_last)
    padding = [DILATION * (tap // 2) for tap in taps]

    def step():
        xs.grad = weight.grad = None
        conv2d(xs, weight, padding=padding, dilation=DILATION).backward(ones)

    step()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    print(json.dumps({"seconds": statistics.median(times), "torch": torch.__version__}))


def run(command, threads):
    """The seconds in the JSON object that a command prints last."""
    env = {**os.environ, "RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"exit code {done.returncode}: {' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])["seconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="a Python that has torch")
    parser.add_argument("--ours", default="target/release/examples/conv_speed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5, help="of each process")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtypes", nargs="+", default=["f32", "bf16"], choices=["f32", "bf16"])
    parser.add_argument("--forms", nargs="+", default=["2d"], choices=list(FORMS))
    parser.add_argument("--channels", nargs="+", type=int, default=[256])
    parser.add_argument("--no-candle", action="store_true", help="leave candle's own conv2d out")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        form, dtype, channels = options.worker
        torch_worker(form, dtype, int(channels), options.threads, options.runs)
        return
    for form in options.forms:
        for channels in options.channels:
            for dtype in options.dtypes:
                compare(options, form, dtype, channels)
    if not options.no_candle:
        candle = run([options.ours, "2d", "candle", "256", "1"], options.threads)
        print(f"candle's own conv2d, f32, 256 channels: {candle:.2f} s")


def compare(options, form, dtype, channels):
    """One convolution in turns."""
    batch, height, width, *taps = FORMS[form]
    flops = 3 * 2 * batch * height * width * channels**2 * taps[0] * taps[1]
    ours, theirs = [], []
    setting, runs = [form, dtype, str(channels)], str(options.runs)
    peer = [options.python, os.path.abspath(__file__), "--worker", *setting,
            "--threads", str(options.threads), "--runs", runs]
    sides = [(ours, [options.ours, *setting, runs]), (theirs, peer)]
    for index in range(options.rounds):
        for times, command in sides if index % 2 == 0 else sides[::-1]:
            times.append(run(command, options.threads))
        print(f"{' '.join(setting)}, round {index + 1}: {ours[-1]:.3f} and {theirs[-1]:.3f} s", file=sys.stderr)
    a, b = statistics.median(ours), statistics.median(theirs)
    ratio = statistics.median(y / x for x, y in zip(ours, theirs))
    print(f"{' '.join(setting)}: candle-tcn {a:.3f} s ({flops / a / 1e9:.0f} GFLOP/s), PyTorch {b:.3f} s "
          f"({flops / b / 1e9:.0f} GFLOP/s), {ratio:.2f}x")


if __name__ == "__main__":
    main()
