#!/usr/bin/env python3
"""One dilated 2-D convolution in PyTorch, in candle and here, forward and backward, in turns.

    cargo build --release --examples
    python3 -m venv venv && venv/bin/pip install torch==2.9.1 numpy
    scripts/bench_conv2d.py --python venv/bin/python

3x3, 256 to 256 channels, dilation 4, 64x64 pixels, batch 4: 58 GFLOP for the output and both gradients.
PyTorch runs channels_last, its best layout on a CPU; its bf16 has bf16 weights too, ours has f32 weights.
Each figure is the median of a process's runs; in each round the processes take turns, and who begins
alternates. Printed are the medians of the rounds and the median of the rounds' own ratios, which a machine
that changes its speed disturbs least. candle's own conv2d is slow and runs once.

`--python` needs torch; the script itself needs the standard library only.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

BATCH, SIDE, CHANNELS, DILATION = 4, 64, 256, 4


def torch_worker(dtype, threads, runs):
    """Times PyTorch and prints one JSON object."""
    import torch
    from torch.nn.functional import conv2d

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]

    def leaf(*shape):
        tensor = torch.rand(*shape).to(kind).to(memory_format=torch.channels_last)
        return tensor.requires_grad_()

    xs, weight = leaf(BATCH, CHANNELS, SIDE, SIDE), leaf(CHANNELS, CHANNELS, 3, 3)
    ones = torch.ones(BATCH, CHANNELS, SIDE, SIDE).to(kind).to(memory_format=torch.channels_last)

    def step():
        xs.grad = weight.grad = None
        conv2d(xs, weight, padding=DILATION, dilation=DILATION).backward(ones)

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
    parser.add_argument("--ours", default="target/release/examples/conv2d_speed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5, help="of each process")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtypes", nargs="+", default=["f32", "bf16"], choices=["f32", "bf16"])
    parser.add_argument("--no-candle", action="store_true", help="leave candle's own conv2d out")
    parser.add_argument("--worker", choices=["f32", "bf16"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        torch_worker(options.worker, options.threads, options.runs)
        return
    flops = 3 * 2 * BATCH * SIDE**2 * CHANNELS**2 * 9
    ours_f32 = None
    for dtype in options.dtypes:
        ours, theirs = [], []
        peer = [options.python, os.path.abspath(__file__), "--worker", dtype,
                "--threads", str(options.threads), "--runs", str(options.runs)]
        sides = [(ours, [options.ours, dtype, str(options.runs)]), (theirs, peer)]
        for index in range(options.rounds):
            for times, command in sides if index % 2 == 0 else sides[::-1]:
                times.append(run(command, options.threads))
            print(f"{dtype}, round {index + 1}: {ours[-1]:.3f} and {theirs[-1]:.3f} s", file=sys.stderr)
        a, b = statistics.median(ours), statistics.median(theirs)
        ratio = statistics.median(y / x for x, y in zip(ours, theirs))
        print(f"{dtype}: candle-tcn {a:.3f} s ({flops / a / 1e9:.0f} GFLOP/s), PyTorch {b:.3f} s "
              f"({flops / b / 1e9:.0f} GFLOP/s), {ratio:.2f}x")
        ours_f32 = a if dtype == "f32" else ours_f32
    if not options.no_candle:
        candle = run([options.ours, "candle", "1"], options.threads)
        beside = f", {candle / ours_f32:.0f}x ours in f32" if ours_f32 else ""
        print(f"candle's own conv2d, f32: {candle:.2f} s{beside}")


if __name__ == "__main__":
    main()
