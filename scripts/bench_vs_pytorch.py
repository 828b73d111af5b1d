#!/usr/bin/env python3
"""The same network in PyTorch and in candle-tcn, on this machine, in turns.

    cargo build --release --bins --examples
    python3 -m venv venv && venv/bin/pip install torch==2.9.1 numpy
    scripts/bench_vs_pytorch.py --tcn target/release/tcn --python venv/bin/python

The network is the character model of Bai et al. 2018 (arXiv:1803.01271, section 5): tied embedding,
residual blocks of weight-normalised dilated causal convolutions (kernel 3, channels 450, 450, 100),
softmax; 2,222,100 parameters at 50 tokens. A training step is zeroing the gradients, forward, loss,
backward, clipping at 0.15 and SGD; `forward` is a pass without gradients. Every figure is the median of
a process's runs; in each round the two take turns, and who begins alternates. Printed are the median of
the rounds for each, the ratio of these medians, and the median of the rounds' own ratios, which a
machine that changes its speed disturbs least. Memory is the largest resident set of the process, with
everything that it loads.

Beside them: candle's own conv1d (`examples/candle_conv1d.rs`, whose gradients are wrong), and how
training on one sequence of 12,800 tokens speeds up from one thread to two.

`--python` needs torch; the script itself needs the standard library only, on Linux or macOS.
"""
import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

VOCAB = 50
CHANNELS = [450, 450, 100]
KERNEL_SIZE = 3
DROPOUT = 0.1
BATCH, SEQ_LEN = 32, 400
LR, CLIP = 0.1, 0.15
PARAMETERS = 2_222_100
PARTS = ["train", "forward", "linearity", "candle"]


# ---- PyTorch, in a process of its own ------------------------------------------------------------


def torch_model(vocab=VOCAB):
    """The character model over so many characters; scripts/torch_reference.py trains it."""
    import torch
    from torch import nn
    from torch.nn.functional import pad
    from torch.nn.utils.parametrizations import weight_norm

    class Causal(nn.Module):
        """A weight-normalised convolution (batch, channels, time) that sees no later step."""

        def __init__(self, inputs, outputs, dilation):
            super().__init__()
            self.before = (KERNEL_SIZE - 1) * dilation
            self.conv = weight_norm(nn.Conv1d(inputs, outputs, KERNEL_SIZE, dilation=dilation))

        def forward(self, xs):
            return self.conv(pad(xs, (self.before, 0)))

    class Residual(nn.Module):
        def __init__(self, inputs, outputs, dilation):
            super().__init__()
            layers = []
            for width in (inputs, outputs):
                layers += [Causal(width, outputs, dilation), nn.ReLU(), nn.Dropout(DROPOUT)]
            self.layers = nn.Sequential(*layers)
            self.shortcut = nn.Identity() if inputs == outputs else nn.Conv1d(inputs, outputs, 1)

        def forward(self, xs):
            return torch.relu(self.layers(xs) + self.shortcut(xs))

    class CharTcn(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(vocab, CHANNELS[-1])
            self.dropout = nn.Dropout(DROPOUT)
            widths = [CHANNELS[-1], *CHANNELS]
            self.blocks = nn.Sequential(
                *(Residual(widths[i], widths[i + 1], 2**i) for i in range(len(CHANNELS))))
            self.softmax = nn.Linear(CHANNELS[-1], vocab)
            self.softmax.weight = self.embedding.weight

        def forward(self, ids):
            hs = self.blocks(self.dropout(self.embedding(ids)).transpose(1, 2))
            return self.softmax(hs.transpose(1, 2))

    return CharTcn()


def torch_worker(what, dtype, threads, runs):
    """Times PyTorch and prints one JSON object."""
    import torch
    from torch.nn.functional import cross_entropy

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    model = torch_model()
    parameters = sum(tensor.numel() for tensor in model.parameters())
    assert parameters == PARAMETERS, parameters
    ids = torch.randint(0, VOCAB, (BATCH, SEQ_LEN))
    targets = torch.randint(0, VOCAB, (BATCH * SEQ_LEN,))
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)

    def precision():
        if dtype == "bf16":
            return torch.autocast("cpu", dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def train():
        optimizer.zero_grad()
        with precision():
            logits = model(ids)
        cross_entropy(logits.float().reshape(-1, VOCAB), targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()

    def forward():
        with torch.no_grad(), precision():
            model(ids)

    model.train(what == "train")
    step = {"train": train, "forward": forward}[what]
    for _ in range(3):
        step()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    print(json.dumps({"tokens_per_s": BATCH * SEQ_LEN / statistics.median(times),
                      "parameters": parameters, "torch": torch.__version__}))


# ---- Processes -----------------------------------------------------------------------------------


def run(command, env=None):
    """The JSON object of the last line that a command prints, with the most memory it held."""
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, env={**os.environ, **(env or {})})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"exit code {process.returncode}: {' '.join(command)}")
        out.seek(0)
        lines = out.read().decode().strip().splitlines()
    result = json.loads(lines[-1])
    unit = 1 if sys.platform == "darwin" else 1024
    result["peak_bytes"] = usage.ru_maxrss * unit
    return result


class Bench:
    def __init__(self, options):
        self.options = options

    def tcn(self, what, dtype, threads=None, more=()):
        o = self.options
        return run([o.tcn, "bench", what, "--dtype", dtype, "--threads", str(threads or o.threads),
                    "--runs", str(o.runs), "--json", *more])

    def torch(self, what, dtype):
        o = self.options
        if o.baseline:
            return run([o.python, o.baseline, what, "--dtype", dtype, "--threads", str(o.threads),
                        "--runs", str(o.runs)])
        return run([o.python, os.path.abspath(__file__), "--worker", what, "--dtypes", dtype,
                    "--threads", str(o.threads), "--runs", str(o.runs)])

    def candle(self):
        return run([self.options.candle, str(max(1, self.options.runs // 2))],
                   {"RAYON_NUM_THREADS": str(self.options.threads)})

    def in_turns(self, name, ours, theirs):
        """Rounds of `ours` and `theirs`, one beginning and then the other."""
        a, b = [], []
        for index in range(self.options.rounds):
            for pick in (0, 1) if index % 2 == 0 else (1, 0):
                if pick == 0:
                    a.append(ours())
                else:
                    b.append(theirs())
            say(f"{name}, round {index + 1}: {speed(a[-1]):,.0f} and {speed(b[-1]):,.0f} tokens/s, "
                f"{speed(a[-1]) / speed(b[-1]):.2f}x")
        return Comparison(name, a, b)


class Comparison:
    """Two series of rounds: `ours` and `theirs`."""

    def __init__(self, name, ours, theirs):
        self.name, self.ours, self.theirs = name, ours, theirs
        self.speeds = [statistics.median(map(speed, rounds)) for rounds in (ours, theirs)]
        self.peaks = [max(r["peak_bytes"] for r in rounds) / 2**20 for rounds in (ours, theirs)]
        self.ratio = self.speeds[0] / self.speeds[1]
        self.ratios = statistics.median(speed(a) / speed(b) for a, b in zip(ours, theirs))

    def arithmetic(self):
        """GFLOP/s of ours, and the share of the ceiling where it is measured."""
        gflops = statistics.median(r["gflops"] for r in self.ours)
        ceilings = [r["ceiling_gflops"] for r in self.ours if r.get("ceiling_gflops")]
        share = f", {100 * gflops / statistics.median(ceilings):.0f} % of the ceiling" if ceilings else ""
        return f"{gflops:,.0f} GFLOP/s{share}"


def speed(result):
    return result["tokens_per_s"]


def say(*words):
    print(*words, file=sys.stderr, flush=True)


# ---- What is compared ----------------------------------------------------------------------------


def compare(bench, what, dtype):
    return bench.in_turns(f"{what} {dtype}", lambda: bench.tcn(what, dtype), lambda: bench.torch(what, dtype))


def linearity(bench, dtype):
    """One sequence of 12,800 tokens through 8 levels: two threads beside one."""
    config = {"model_type": "tcn", "embedding_dim": 100, "tie_weights": True, "embedding_dropout": DROPOUT,
              "network": {"num_channels": [450] * 7 + [100], "kernel_size": KERNEL_SIZE, "dropout": DROPOUT}}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "levels.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        more = ["--config", path, "--batch-size", "1", "--seq-len", str(BATCH * SEQ_LEN)]
        return bench.in_turns(f"train {dtype}, 1 x {BATCH * SEQ_LEN}, 8 levels, 2 threads and 1",
                              lambda: bench.tcn("train", dtype, 2, more),
                              lambda: bench.tcn("train", dtype, 1, more))


def processor():
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def print_text(header, peers, levels, candle):
    print(header)
    for c in peers:
        print(f"{c.name}: candle-tcn {c.speeds[0]:,.0f}, PyTorch {c.speeds[1]:,.0f} tokens/s: {c.ratio:.2f}x "
              f"(median of the rounds' ratios {c.ratios:.2f}x); {c.arithmetic()}; "
              f"memory {c.peaks[0]:,.0f} and {c.peaks[1]:,.0f} MiB")
    for c in levels:
        print(f"{c.name}: {c.speeds[0]:,.0f} and {c.speeds[1]:,.0f} tokens/s: {c.ratio:.2f}x "
              f"(median of the rounds' ratios {c.ratios:.2f}x)")
    if candle:
        print(f"train f32 on candle's own conv1d: {candle:,.0f} tokens/s")


def print_markdown(header, peers, levels, candle):
    print(f"{header}\n")
    print("| `char-ptb`, batch 32 × 400 | candle-tcn, tokens/s | PyTorch, tokens/s | ratio | by round "
          "| arithmetic | peak memory, MiB |")
    print("|---|---|---|---|---|---|---|")
    for c in peers:
        print(f"| {c.name} | {c.speeds[0]:,.0f} | {c.speeds[1]:,.0f} | {c.ratio:.2f} | {c.ratios:.2f} "
              f"| {c.arithmetic()} | {c.peaks[0]:,.0f}; {c.peaks[1]:,.0f} |")
    if candle:
        print(f"| train f32, candle's own conv1d | {candle:,.0f} | | | | | |")
    for c in levels:
        print(f"\n{c.name}: {c.speeds[0]:,.0f} and {c.speeds[1]:,.0f} tokens/s, {c.ratio:.2f} times "
              f"(by round {c.ratios:.2f}).")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tcn", default="target/release/tcn", help="the binary")
    parser.add_argument("--python", default=sys.executable, help="a Python that has torch")
    parser.add_argument("--baseline", metavar="FILE",
                        help="another script to time PyTorch with: FILE train|forward --dtype D --threads N "
                             "--runs N, which prints JSON with tokens_per_s")
    parser.add_argument("--candle", metavar="FILE", default="target/release/examples/candle_conv1d",
                        help="the example that trains on candle's own conv1d")
    parser.add_argument("--parts", default=",".join(PARTS), help="of %(default)s")
    parser.add_argument("--dtypes", default="f32,bf16", help="of %(default)s")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--runs", type=int, default=7, help="timed steps of a process, after three")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--markdown", action="store_true", help="print tables")
    parser.add_argument("--worker", choices=["train", "forward"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.parts, options.dtypes = options.parts.split(","), options.dtypes.split(",")
    for flag, found, known in [("--parts", options.parts, PARTS), ("--dtypes", options.dtypes, ["f32", "bf16"])]:
        if not set(found) <= set(known):
            parser.error(f"{flag}: expected some of {','.join(known)}")
    for flag in ("rounds", "runs", "threads"):
        if getattr(options, flag) < 1:
            parser.error(f"--{flag}: expected a number of at least 1")
    needed = {"--tcn": options.tcn, "--candle": options.candle if "candle" in options.parts else None}
    for flag, file in needed.items():
        if file and not os.access(file, os.X_OK) and not options.worker:
            parser.error(f"{flag}: expected a program, found none at {file}; cargo build --release --bins "
                         "--examples makes it")
    return options


def main():
    options = arguments()
    if options.worker:
        return torch_worker(options.worker, options.dtypes[0], options.threads, options.runs)
    bench, parts = Bench(options), options.parts
    peers = [compare(bench, what, dtype)
             for what in ("train", "forward") if what in parts for dtype in options.dtypes]
    levels = [linearity(bench, dtype) for dtype in options.dtypes if "linearity" in parts]
    candle = speed(bench.candle()) if "candle" in parts else None
    torch = next((f"PyTorch {c.theirs[0]['torch']}, " for c in peers if "torch" in c.theirs[0]), "")
    kernel = next((f"kernel {c.ours[0]['kernel']}, " for c in peers + levels), "")
    header = (f"{processor()}, {options.threads} threads, {kernel}{torch}"
              f"medians of {options.rounds} rounds in turns:")
    (print_markdown if options.markdown else print_text)(header, peers, levels, candle)


if __name__ == "__main__":
    main()
