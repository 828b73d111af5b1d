#!/usr/bin/env python3
"""The same evening with PyTorch: trains the character model of Bai et al. 2018 for so many minutes and prints its losses.

    pip install torch==2.9.1 numpy
    scripts/torch_reference.py --data input.txt --minutes 3
    scripts/torch_reference.py --data train.txt --valid valid.txt --test test.txt --minutes 60

The network and the recipe are those of the paper's reference code (arXiv:1803.01271, section 5): kernel 3, channels 450,
450, 100, embedding of 100, tied, weight norm, dropout 0.1, batches of 32 rows of 400 characters of which the last 320 are
scored, gradient norm at most 0.15, SGD of rate 4, which is divided by ten when validation is worse than the worst of the
last three. It leaves the rate to whoever has as long as it takes; for a run of minutes --schedule cosine falls with the
clock. --optimizer adamw and --dtype bf16 are the better of what PyTorch offers on a processor.
"""

import argparse
import contextlib
import json
import math
import pathlib
import time

import torch
from torch import nn

from bench_vs_pytorch import torch_model


def texts(args):
    """Characters of training, validation and test text; a tenth of the end of the data where there is no other."""
    text = args.data.read_text()
    if args.valid:
        parts = [text, args.valid.read_text()]
    else:
        at = len(text) - len(text) // 10
        parts = [text[:at], text[at:]]
    if args.test:
        parts.append(args.test.read_text())
    ids = {c: i for i, c in enumerate(sorted(set("".join(parts))))}
    return [torch.tensor([ids[c] for c in part]) for part in parts], len(ids)


@torch.no_grad()
def evaluate(model, ids, history, amp):
    """Nats per character, each with its whole receptive field before it."""
    model.eval()
    total, window, at = 0.0, 4096, 0
    while at + 1 < len(ids):
        end = min(at + window, len(ids) - 1)
        begin = max(at - history, 0)
        with amp():
            logits = model(ids[None, begin:end])
        scored = logits[0, at - begin :].float()
        total += nn.functional.cross_entropy(scored, ids[at + 1 : end + 1], reduction="sum").item()
        at = end
    model.train()
    return total / (len(ids) - 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--valid", type=pathlib.Path)
    parser.add_argument("--test", type=pathlib.Path)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--optimizer", choices=["sgd", "adamw"], default="sgd")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--schedule", choices=["plateau", "cosine"], default="plateau")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--validations", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)

    (train, valid, *test), vocab = texts(args)
    rows, seq_len, history, clip = 32, 400, 80, 0.15
    model = torch_model(vocab)
    nn.init.uniform_(model.embedding.weight, -0.1, 0.1)
    base = args.lr or {"sgd": 4.0, "adamw": 0.002}[args.optimizer]
    kinds = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
    optimizer = kinds[args.optimizer](model.parameters(), lr=base)
    amp = contextlib.nullcontext
    if args.dtype == "bf16":
        amp = lambda: torch.autocast("cpu", dtype=torch.bfloat16)

    streams = train[: len(train) // rows * rows].view(rows, -1)
    start, steps, at, rate, losses, best = time.monotonic(), 0, 0, base, [], None
    budget = args.minutes * 60
    # the last one takes its part of the budget
    validation_s = 0.0
    while (spent := time.monotonic() - start) + validation_s < budget:
        if args.schedule == "cosine":
            rate = base * 0.5 * (1 + math.cos(math.pi * spent / budget))
        optimizer.param_groups[0]["lr"] = rate
        ids = streams[:, at : at + seq_len + 1]
        at += seq_len - history
        if at + seq_len + 1 > streams.shape[1]:
            at = 0
        optimizer.zero_grad()
        with amp():
            logits = model(ids[:, :-1])
        scored, targets = logits[:, history:].float(), ids[:, history + 1 :]
        nn.functional.cross_entropy(scored.reshape(-1, vocab), targets.reshape(-1)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        steps += 1
        if spent > budget * (len(losses) + 1) / args.validations:
            before = time.monotonic()
            loss = evaluate(model, valid, 64, amp)
            validation_s = time.monotonic() - before
            print(json.dumps({"step": steps, "seconds": round(spent), "lr": rate, "valid": round(loss, 4)}), flush=True)
            if args.schedule == "plateau" and len(losses) > 5 and loss > max(losses[-3:]):
                rate /= 10
            losses.append(loss)
            if best is None or loss < best[0]:
                best = loss, {name: tensor.clone() for name, tensor in model.state_dict().items()}
    loss = evaluate(model, valid, 64, amp)
    seconds = time.monotonic() - start
    if best and best[0] < loss:
        loss = best[0]
        model.load_state_dict(best[1])
    result = {
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "optimizer": args.optimizer,
        "schedule": args.schedule,
        "dtype": args.dtype,
        "seed": args.seed,
        "steps": steps,
        "scored": steps * rows * (seq_len - history),
        "seconds": round(seconds),
        "valid": round(loss, 4),
        "valid_bpc": round(loss / math.log(2), 4),
    }
    if test:
        result["test_bpc"] = round(evaluate(model, test[0], 64, amp) / math.log(2), 4)
    print(json.dumps(result))


main()
