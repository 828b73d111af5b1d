#!/usr/bin/env python3
"""Measures `tcn serve` under load beside `tcn bench generate`, both with one thread, in turns; prints Markdown.

    cargo build --release --example load
    python3 scripts/bench_serve.py [--streams 1 64 256 1000] [--rounds 3] [--tokens 1000000]

The client runs on the last core. Models: char in int8, char-ptb in what the processor multiplies best, both of random
weights. Python alone, no packages.
"""

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODELS = {"char": "int8", "char-ptb": "auto"}


def run(*command):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


class Server:
    """One that serves a model, on a port of its own."""

    def __init__(self, tcn, model, dtype, most):
        self.process = subprocess.Popen(
            [tcn, "serve", "--threads", "1", "--model", model, "--dtype", dtype, "--port", "0", "--log", "off",
             "--max-streams", str(most)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        self.address = self.process.stdout.readline().strip().removeprefix("http://")

    def resident(self):
        """Bytes of memory now, and the most until now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return [int(re.search(rf"{key}:\s+(\d+) kB", status)[1]) * 1024 for key in ("VmRSS", "VmHWM")]

    def stop(self):
        self.process.terminate()
        assert self.process.wait(20) == 0, "the server did not stop"


def load(args, server, streams, whole):
    tokens = max(50, min(2000, args.tokens // streams))
    flags = ["--whole"] if whole else ["--newcomers", args.newcomers]
    core = os.cpu_count() - 1
    return json.loads(run("taskset", "-c", core, args.load, "--address", server.address, "--streams", streams,
                          "--tokens", tokens, "--json", *flags))


def bench(args, model, dtype, streams):
    report = json.loads(run(args.tcn, "bench", "generate", "--threads", 1, "--model", model, "--dtype", dtype,
                            "--batch-size", streams, "--seq-len", 16, "--runs", 1, "--warmup", 0, "--json"))
    return report["tokens_per_s"]


def measure(args, name, model):
    dtype = MODELS[name]
    server = Server(args.tcn, model, dtype, max(args.streams) + 64)
    for streams in args.streams:
        rounds = []
        for _ in range(args.rounds):
            rounds.append((bench(args, model, dtype, streams), load(args, server, streams, True),
                           load(args, server, streams, False)))

        def median(value):
            return statistics.median(value(*one) for one in rounds)

        rate = median(lambda bench, *_: bench)
        answers = [f"{median(lambda *one: one[i]['tokens_per_s']):,.0f} "
                   f"({100 * median(lambda *one: one[i]['tokens_per_s'] / one[0]):.0f} %)" for i in (1, 2)]
        gap, late, alone, among, among_late = [
            median(lambda *one: one[2][key] or math.nan)
            for key in ("gap_ms", "gap_p99_ms", "newcomer_alone_ms", "newcomer_ms", "newcomer_p99_ms")]
        slowest = 100 * min(streamed["slowest"] for *_, streamed in rounds)
        newcomers = f"{alone:.1f} / {among:.1f} / {among_late:.1f}" if rounds[0][2]["newcomers"] else "–"
        memory = " / ".join(f"{size / 1e6:.0f}" for size in server.resident())
        print(f"| {name}, {dtype} | {streams} | {rate:,.0f} | {' | '.join(answers)} | {slowest:.0f} % | "
              f"{gap:.1f} / {late:.1f} | {newcomers} | {1e3 * streams / rate:.1f} | {memory} |", flush=True)
    server.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 64, 256, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=1_000_000, help="of all streams together, at the most")
    parser.add_argument("--newcomers", type=int, default=20)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--tcn", default=ROOT / "target/release/tcn")
    parser.add_argument("--load", default=ROOT / "target/release/examples/load")
    args = parser.parse_args()
    print("| model | streams | bench, tokens/s | whole | streamed | slowest stream, of the median | between events, ms "
          "(99 %) | newcomer's first token: alone, among them, 99 %, ms | step, ms | memory now, most, MB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models:
            model = Path(folder) / name
            run(args.tcn, "train", "--preset", name, "--steps", 1, "--batch-size", 1, "--seq-len", 32, "--out", model,
                "--quiet")
            measure(args, name, model)


if __name__ == "__main__":
    sys.exit(main())
