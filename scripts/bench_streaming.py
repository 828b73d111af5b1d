#!/usr/bin/env python3
"""One token after the other: candle-tcn beside PyTorch, on this machine, in turns, one thread each.

    cargo build --release
    python3 -m venv venv && venv/bin/pip install torch==2.9.1 numpy pytorch-tcn==1.2.3
    scripts/bench_streaming.py --python venv/bin/python

The network is that of bench_vs_pytorch.py. The peers are pytorch-tcn's streaming mode, with the embedding
and the softmax around it, and PyTorch on a window of the receptive field (29 steps), computed anew for
each token. A round runs each of them and `tcn bench generate` once, in an order that turns; printed are
the medians of the rounds and of the rounds' own ratios to pytorch-tcn.
"""
import argparse
import json
import os
import statistics
import sys
import time

from bench_vs_pytorch import CHANNELS, KERNEL_SIZE, VOCAB, processor, run, say, torch_model

OURS = {"f32": ["--dtype", "f32"], "bf16": ["--dtype", "bf16"], "int8": ["--dtype", "int8"],
        "bf16, 64 sequences": ["--dtype", "bf16", "--batch-size", "64"],
        "int8, 64 sequences": ["--dtype", "int8", "--batch-size", "64"]}
PEERS = {"pytorch-tcn, streaming": "streaming", "PyTorch, window computed anew": "window"}
TOKENS = 20


def worker(what, runs):
    """Times a peer and prints one JSON object."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = torch_model().eval()
    field = 1 + 2 * (KERNEL_SIZE - 1) * sum(2**i for i in range(len(CHANNELS)))

    def draw(logits):
        return torch.multinomial(torch.softmax(logits, -1), 1)[None]

    if what == "window":
        window = torch.randint(0, VOCAB, (1, field))

        def token():
            nonlocal window
            window = torch.cat([window[:, 1:], draw(model(window)[0, -1])], 1)
    else:
        from pytorch_tcn import TCN

        tcn = TCN(num_inputs=CHANNELS[-1], num_channels=CHANNELS, kernel_size=KERNEL_SIZE,
                  dilations=[2**i for i in range(len(CHANNELS))], causal=True, use_norm="weight_norm",
                  activation="relu", input_shape="NCL").eval()
        tcn.reset_buffers()
        last = torch.zeros(1, 1, dtype=torch.long)

        def token():
            nonlocal last
            hidden = tcn(model.embedding(last).transpose(1, 2), inference=True)
            last = draw(model.softmax(hidden[0, :, -1]))

    times = []
    with torch.no_grad():
        for index in range(runs + 2):
            start = time.perf_counter()
            for _ in range(TOKENS):
                token()
            times.append(time.perf_counter() - start)
    print(json.dumps({"tokens_per_s": TOKENS / statistics.median(times[2:])}))


def measure(options):
    """For each name the tokens/s of all rounds."""
    rates, floors = {}, {}
    jobs = [*OURS.items(), *PEERS.items()]
    for index in range(options.rounds):
        turn = index % len(jobs)
        for name, job in jobs[turn:] + jobs[:turn]:
            if name in PEERS:
                result = run([options.python, os.path.abspath(__file__), "--worker", job])
                rate = result["tokens_per_s"]
            else:
                result = run([options.tcn, "bench", "generate", "--preset", "char-ptb", "--threads", "1",
                              "--seq-len", "400", "--runs", "3", "--warmup", "1", "--json", *job])
                rate = result["tokens_per_s"]
                floors.setdefault(name, []).append(result.get("bandwidth_share"))
            rates.setdefault(name, []).append(rate)
            say(f"round {index + 1}, {name}: {rate:,.0f} tokens/s")
    return rates, floors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tcn", default="target/release/tcn", help="the binary")
    parser.add_argument("--python", default=sys.executable, help="a Python that has torch and pytorch-tcn")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--worker", choices=list(PEERS.values()), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds: expected a number of at least 1")
    if options.worker:
        return worker(options.worker, 7)
    if not os.access(options.tcn, os.X_OK):
        parser.error(f"--tcn: expected a program, found none at {options.tcn}; cargo build --release makes it")
    rates, floors = measure(options)
    peer = next(iter(PEERS))
    print(f"{processor()}, 1 thread each, medians of {options.rounds} rounds in turns:\n")
    print(f"| one token after the other | tokens/s | times {peer} | share of the read floor |")
    print("|---|---|---|---|")
    for name, series in rates.items():
        ratio = statistics.median(a / b for a, b in zip(series, rates[peer]))
        shares = [share for share in floors.get(name, []) if share]
        share = f"{statistics.median(shares):.2f}" if shares and "64" not in name else ""
        print(f"| {name} | {statistics.median(series):,.0f} | {ratio:.1f} | {share} |")


if __name__ == "__main__":
    main()
