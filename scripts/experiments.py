#!/usr/bin/env python3
"""One experiment of docs/recipe.md: a training run whose losses are appended to a file, docs/recipe.jsonl.

    scripts/experiments.py NAME --data TEXT [--valid TEXT] [--network JSON] [--seed N] [-- FLAGS OF tcn train]

Trains on the first nine tenths of TEXT (or on all of it, with --valid), and measures the halves of the rest apart: a recipe
is chosen by the first. --network changes fields of the preset's configuration, such as '{"num_channels": [192, 192]}'.
A run that was stopped goes on where it was; one whose name and seed are in the file is not made again. Two at a time, on a
thread each (--threads 1), are best compared by steps; runs of minutes are for a machine that does nothing else.
"""

import argparse
import fcntl
import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def processor():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    facts = dict(line.split("\t: ", 1) for line in lines if "\t: " in line)
    facts = {key.strip(): value for key, value in facts.items()}
    return f"{facts.get('model name')} family {facts.get('cpu family')} model {facts.get('model')}"


def split(data, valid, folder):
    """Files: training text, and the halves of the validation text."""
    text = data.read_bytes()
    at = len(text)
    if valid:
        rest = valid.read_bytes()
    else:
        # as tcn train splits, at a character
        at = len(text) - int(len(text) * 0.1)
        while text[at] & 0xC0 == 0x80:
            at -= 1
        text, rest = text[:at], text[at:]
    half = len(rest) // 2
    while rest[half] & 0xC0 == 0x80:
        half -= 1
    parts = {"train.txt": text, "first.txt": rest[:half], "second.txt": rest[half:], "whole.txt": rest}
    for name, part in parts.items():
        # another experiment may be reading it
        if not (folder / name).exists() or (folder / name).read_bytes() != part:
            (folder / name).write_bytes(part)
    return {name.removesuffix(".txt"): folder / name for name in parts}


def network(changes, preset):
    """The preset's configuration with other fields: of the network, or of the model."""
    config = json.loads((ROOT / "models" / f"{preset}.json").read_text())
    for key, value in json.loads(changes).items():
        (config if key in ("embedding_dim", "tie_weights", "embedding_dropout") else config["network"])[key] = value
    return config


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--valid", type=pathlib.Path)
    parser.add_argument("--network")
    parser.add_argument("--preset", default="char")
    parser.add_argument("--note", help="what the program did otherwise than it does now")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "runs" / "experiments")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "docs" / "recipe.jsonl")
    given = sys.argv[1:]
    at = given.index("--") if "--" in given else len(given)
    args, flags = parser.parse_args(given[:at]), given[at + 1 :]
    tcn = os.environ.get("TCN", ROOT / "target" / "release" / "tcn")
    if args.results.exists():
        done = map(json.loads, args.results.read_text().splitlines())
        if any((line["name"], line["seed"]) == (args.name, args.seed) for line in done):
            return

    corpus = args.work / args.data.stem
    corpus.mkdir(parents=True, exist_ok=True)
    texts = split(args.data, args.valid, corpus)
    out = args.work / f"{args.name}-{args.seed}"
    command = [tcn, "train", "--quiet", "--json", "--out", out]
    if (out / "checkpoints").exists():
        command += ["--resume"]
    else:
        command += ["--force", "--data", texts["train"], "--valid", texts["first"], "--seed", str(args.seed), *flags]
        if args.network:
            config = corpus / f"{args.name}.json"
            config.write_text(json.dumps(network(args.network, args.preset)))
            command += ["--config", config]
    outcome = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def loss(part):
        command = [tcn, "eval", "--json", "--model", out, "--data", texts[part]]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["loss"]

    # of the last ten steps
    learned = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["train_loss"]
    losses = {part: round(loss(part), 4) for part in ("first", "second", "whole")}
    line = {
        "name": args.name,
        "seed": args.seed,
        "text": args.data.stem,
        "flags": " ".join(flags),
        "network": json.loads(args.network) if args.network else None,
        "note": args.note,
        "steps": outcome["steps"],
        "tokens": outcome["tokens"],
        "seconds": round(outcome["seconds"]),
        "train": round(learned, 4),
        **losses,
        "processor": processor(),
        "date": time.strftime("%Y-%m-%d"),
    }
    with args.results.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(line) + "\n")
    print(line)


main()
