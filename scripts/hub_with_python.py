#!/usr/bin/env python3
"""Checks that `tcn` and Python's `huggingface_hub` share a cache and understand the same Hub.

    cargo build --release --bins --examples
    python3 -m venv venv && venv/bin/pip install huggingface_hub safetensors tokenizers
    venv/bin/python scripts/hub_with_python.py

Starts the Hub of the tests (`examples/hub_server.rs`) on the loopback. Then, each from an empty cache:

1. Python downloads from it and uploads to it: so the server is a faithful one.
2. `tcn pull`, then Python without a network finds the same files in the same cache.
3. Python downloads, then `tcn` without a network finds and runs the model.
4. An unfinished download of either is no trouble to the other.
5. `tcn push`, then Python downloads it; `safetensors` and `tokenizers` open it.
6. Python uploads, then `tcn pull` gets the same bytes.

Prints a line for each and exits 0, or 1 at the first that fails.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "models" / "kjv-tiny"
NEEDED = ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
TOKEN = "hf_writer"

# run by another interpreter for each step: huggingface_hub reads the environment once
DOWNLOAD = """
import sys
from huggingface_hub import snapshot_download
print(snapshot_download(sys.argv[1], revision=sys.argv[2]))
"""
DOWNLOAD_EACH = """
import sys
from huggingface_hub import hf_hub_download
for name in sys.argv[3:]:
    print(hf_hub_download(sys.argv[1], name, revision=sys.argv[2]))
"""
UPLOAD = """
import sys
from huggingface_hub import HfApi
api = HfApi()
api.create_repo(sys.argv[1], private=True, exist_ok=True)
api.upload_folder(repo_id=sys.argv[1], folder_path=sys.argv[2])
info = api.model_info(sys.argv[1])
assert info.private and info.sha, info
"""
OPEN = """
import sys
from safetensors import safe_open
from tokenizers import Tokenizer
with safe_open(sys.argv[1] + "/model.safetensors", "np") as weights:
    assert len(list(weights.keys())) > 0
tokenizer = Tokenizer.from_file(sys.argv[1] + "/tokenizer.json")
assert tokenizer.decode(tokenizer.encode("In the").ids) == "In the"
"""


class Check:
    def __init__(self, url, folder, tcn):
        self.url, self.folder, self.tcn = url, Path(folder), tcn
        self.caches = 0

    def fresh(self):
        """The environment of a user with an empty cache."""
        self.caches += 1
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        # uploads by Git LFS: this Hub has no Xet
        return keep | {
            "HF_HOME": str(self.folder / f"home-{self.caches}"),
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }

    def run(self, command, env):
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"failed: {command}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def python(self, code, env, *arguments):
        return self.run([sys.executable, "-c", code, *map(str, arguments)], env)

    def cli(self, env, *arguments):
        return self.run([self.tcn, *map(str, arguments)], env)


def offline(env):
    # an endpoint that nobody listens on: a request would fail
    return env | {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}


def same(directory, names=NEEDED, source=MODEL):
    for name in names:
        found = (Path(directory) / name).read_bytes()
        if found != (Path(source) / name).read_bytes():
            sys.exit(f"{directory}/{name} differs from {source}/{name}")


def equal(a, b):
    if a != b:
        sys.exit(f"expected the same, found {a!r} and {b!r}")


def checks(check):
    env = check.fresh()
    same(check.python(DOWNLOAD, env, "org/model", "main"))
    check.python(UPLOAD, env, "org/by-python", MODEL)
    same(check.python(DOWNLOAD, check.fresh(), "org/by-python", "main"))
    yield "Python downloads from this Hub and uploads to it"

    env = check.fresh()
    pulled = json.loads(check.cli(env, "pull", "org/model", "--json"))
    equal(check.python(DOWNLOAD, offline(env), "org/model", "main"), pulled["path"])
    equal(check.python(DOWNLOAD, offline(env), "org/model", pulled["commit"]), pulled["path"])
    each = check.python(DOWNLOAD_EACH, offline(env), "org/model", "main", *NEEDED).splitlines()
    equal(each, [f"{pulled['path']}/{name}" for name in NEEDED])
    same(pulled["path"])
    # and online takes what is there and fetches the rest
    equal(check.python(DOWNLOAD, env, "org/model", "main"), pulled["path"])
    yield "what `tcn pull` downloaded, Python finds offline"

    env = check.fresh()
    by_python = check.python(DOWNLOAD, env, "org/model", "main")
    equal(check.cli(offline(env), "pull", "org/model"), by_python)
    text = check.cli(offline(env), "generate", "--model", "org/model", "--seed", "1", "--max-tokens", "20")
    equal(text, check.cli(env, "generate", "--model", MODEL, "--seed", "1", "--max-tokens", "20"))
    yield "what Python downloaded, `tcn` finds and runs offline"

    for first, second in [(DOWNLOAD, None), (None, DOWNLOAD)]:
        env = check.fresh()
        path = Path(check.python(first, env, "org/model", "main") if first else check.cli(env, "pull", "org/model"))
        blob = (path / "model.safetensors").resolve()
        half = blob.read_bytes()[: blob.stat().st_size // 2]
        blob.unlink()
        (path / "model.safetensors").unlink()
        blob.with_name(blob.name + ".incomplete").write_bytes(half)
        equal(check.python(second, env, "org/model", "main") if second else check.cli(env, "pull", "org/model"), str(path))
        same(path)
    yield "an unfinished download of either is no trouble to the other"

    env = check.fresh()
    url = json.loads(check.cli(env, "push", MODEL, "org/by-tcn", "--private", "--json"))["url"]
    equal(url, f"{check.url}/org/by-tcn")
    path = check.python(DOWNLOAD, env, "org/by-tcn", "main")
    same(path)
    check.python(OPEN, env, path)
    yield "what `tcn push` uploaded, Python downloads and opens"

    env = check.fresh()
    same(check.cli(env, "pull", "org/by-python"))
    yield "what Python uploaded, `tcn pull` gets"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    target = ROOT / "target" / "release"
    parser.add_argument("--tcn", default=target / "tcn")
    parser.add_argument("--server", default=target / "examples" / "hub_server")
    args = parser.parse_args()
    import huggingface_hub

    print(f"huggingface_hub {huggingface_hub.__version__}", flush=True)
    server = subprocess.Popen(
        [args.server, "org/model", MODEL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        url = server.stdout.readline().strip()
        with tempfile.TemporaryDirectory() as folder:
            for line in checks(Check(url, folder, str(args.tcn))):
                print(f"ok: {line}", flush=True)
    finally:
        server.stdin.close()
        server.wait()


if __name__ == "__main__":
    main()
