#!/usr/bin/env python3
"""Does to `tcn serve` what clients and machines do: nothing may hang, nothing may leak, every answer is defined.

    cargo build --release
    python3 scripts/serve_faults.py [--schemathesis COMMAND] [--clients 10000]

A line for each thing that holds; fails at the first that does not. The full disk is a small file system of its own, for
which it must be run by root. Schemathesis (pip install schemathesis) reads /openapi.json. Minutes.
"""

import argparse
import http.client
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LONG = {"max_tokens": 60000, "stream": True}


class Server:
    def __init__(self, *flags):
        command = [args.tcn, "serve", "--port", "0", "--log", "off", "--timeout", "5", *map(str, flags)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        host, _, port = self.process.stdout.readline().strip().removeprefix("http://").rpartition(":")
        self.place = (host, int(port))

    def ask(self, path, body=None, method=None):
        """Status, headers and body of an answer."""
        connection = http.client.HTTPConnection(*self.place, timeout=60)
        data = json.dumps(body) if isinstance(body, (dict, list)) else body
        connection.request(method or ("GET" if body is None else "POST"), path, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, answer.headers, json.loads(text) if text.startswith(b"{") else text

    def connect(self, body=None, buffer=None):
        """A connection, and on it a request whose answer nobody has read yet."""
        one = socket.socket()
        if buffer:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        one.connect(self.place)
        if body is not None:
            one.sendall(request(body))
        return one

    def figures(self):
        """What is held now: figures of /metrics, open files, resident memory in MB."""
        lines = self.ask("/metrics")[2].decode().splitlines()
        names = ("tcn_places", "tcn_connections", "tcn_streams", "tcn_state_bytes")
        held = {line.split("{")[0].split()[0]: int(line.split()[-1]) for line in lines if line.startswith(names)}
        held["files"] = len(os.listdir(f"/proc/{self.process.pid}/fd"))
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return held, int(status.split("VmRSS:")[1].split()[0]) // 1024

    def expect_as(self, before):
        """What was held before is held again, after a while."""
        for _ in range(200):
            held, memory = self.figures()
            if held == before:
                return memory
            time.sleep(0.1)
        raise AssertionError(f"expected {before}, found {held}")

    def stop(self, kind=signal.SIGTERM):
        self.process.send_signal(kind)
        return self.process.wait(30)


def request(body):
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def vanishing_clients():
    server = Server("--max-streams", 256)
    before, memory = server.figures()
    start = time.monotonic()
    for number in range(args.clients):
        # of a quarter the request is cut, a quarter resets the connection, a fifth waits for an answer
        one = server.connect()
        one.sendall(request(LONG) if number % 4 else request(LONG)[:50])
        if number % 4 == 1:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if number % 5 == 0:
            one.settimeout(0.01)
            try:
                one.recv(10)
            except TimeoutError:
                pass
        one.close()
    seconds = time.monotonic() - start
    after = server.expect_as(before)
    assert after < memory + 64, f"{memory} MB before, {after} MB after"
    print(f"{args.clients} clients that vanish: {seconds:.1f} s, {memory} MB before, {after} MB after, nothing left")
    assert server.stop() == 0


def readers():
    server = Server()
    before, _ = server.figures()
    loud = {**LONG, "logprobs": 20}
    never = [server.connect(loud, buffer=2048) for _ in range(20)]
    slow = server.connect({"max_tokens": 2000, "stream": True}, buffer=2048)
    slow_text = bytearray()

    def read_slowly():
        while piece := slow.recv(512):
            slow_text.extend(piece)
            time.sleep(0.001)
            if slow_text.endswith(b"0\r\n\r\n"):
                return

    reader = threading.Thread(target=read_slowly)
    reader.start()
    time.sleep(3)
    start = time.monotonic()
    status, _, answer = server.ask("/v1/completions", {"max_tokens": 20})
    assert status == 200 and answer["usage"]["completion_tokens"] == 20
    seconds = time.monotonic() - start
    assert seconds < 5, f"an answer beside those that never read took {seconds:.1f} s"
    reader.join()
    slow.close()
    assert b"[DONE]" in slow_text and b'"length"' in slow_text
    memory = server.expect_as(before)
    for one in never:
        one.close()
    print(f"20 that never read are cut, one that reads slowly hears all, {memory} MB; others wait {1e3 * seconds:.0f} ms")
    assert server.stop() == 0


def malformed():
    server = Server("--max-body", 1 << 20)
    before, _ = server.figures()
    deep = '{"prompt": ' + "[" * 100_000 + "]" * 100_000 + "}"
    for body, status in [
        ("{", 400), ("", 400), ("[null, null]", 400), (deep, 400), ('{"max_tokens": 1e400}', 400), (b"\xff\xfe{}", 400),
        ({"model": "none"}, 404), ({"state": "state-" + "0" * 32}, 404), ({"prompt": [2**32 - 1]}, 400),
        ({"prompt": "x" * (1 << 21)}, 413), ({"max_tokens": -1}, 400), ({"n": 129}, 400), ({"max_tokens": 2**63}, 400),
    ]:
        found, _, answer = server.ask("/v1/completions", body)
        assert found == status and answer["error"]["message"], f"{str(body)[:60]}: expected {status}, found {found} {answer}"
    noise = random.Random(1)
    raw = [b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"y" * (1 << 20) + b"\r\n\r\n",
           b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
           b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
           *(noise.randbytes(noise.randrange(1, 5000)) for _ in range(300))]
    for piece in raw:
        one = server.connect()
        one.settimeout(20)
        try:
            one.sendall(piece)
            one.shutdown(socket.SHUT_WR)
            while one.recv(1 << 16):
                pass
        except (ConnectionResetError, BrokenPipeError):
            pass
        except OSError as error:
            assert not isinstance(error, TimeoutError), f"{piece[:60]}: no end of the answer"
        one.close()
    server.expect_as(before)
    print("malformed and huge bodies and heads, unknown models and states, noise")
    assert server.stop() == 0


def full_queue():
    server = Server("--max-streams", 2, "--queue", 2)
    held = [server.connect(LONG) for _ in range(4)]
    time.sleep(0.5)
    status, headers, answer = server.ask("/v1/completions", {"max_tokens": 1})
    assert status == 429 and int(headers["Retry-After"]) > 0 and answer["error"]["type"], (status, answer)
    for one in held:
        one.close()
    time.sleep(0.5)
    assert server.ask("/v1/completions", {"max_tokens": 1})[0] == 200
    print("a full queue: 429 with Retry-After, and room again once they have gone")
    assert server.stop() == 0


def full_disk(folder):
    disk = Path(folder) / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk]).returncode:
        print("NOT TESTED: a full disk, since this user may not mount one", file=sys.stderr)
        return
    try:
        server = Server("--state-dir", disk)
        kept, refused = [], None
        for number in range(64):
            status, _, answer = server.ask("/v1/states", {"prompt": f"{number} begat"})
            if status != 200:
                refused = (status, answer["error"]["message"])
                break
            kept.append(answer["id"])
        assert kept and refused and refused[0] in (500, 507), refused
        for state in kept:
            assert server.ask("/v1/completions", {"state": state, "max_tokens": 3})[0] == 200
        assert server.ask(f"/v1/states/{kept[0]}", method="DELETE")[0] == 200
        assert server.ask("/v1/states", {"prompt": "There is room"})[0] == 200
        files = [path for path in disk.rglob("*") if path.is_file()]
        assert len(files) == len(kept), files
        print(f"a full disk: {refused}; {len(kept)} states kept, no part of another, and room again after one is forgotten")
        assert server.stop() == 0
    finally:
        subprocess.run(["umount", disk], check=True)


def killed(folder):
    states = Path(folder) / "states"
    kept = {}
    ask = {"max_tokens": 30, "seed": 7}
    for _ in range(args.kills):
        server = Server("--state-dir", states, "--max-states", 4096)
        for state, text in random.sample(sorted(kept.items()), min(5, len(kept))):
            status, _, answer = server.ask("/v1/completions", {**ask, "state": state})
            assert status == 200 and answer["choices"][0]["text"] == text, (state, answer)
        killer = threading.Timer(random.uniform(0.05, 0.4), server.stop, [signal.SIGKILL])
        killer.start()
        try:
            while True:
                prompt = f"{len(kept)} years"
                state = server.ask("/v1/states", {"prompt": prompt})[2]["id"]
                kept[state] = server.ask("/v1/completions", {**ask, "state": state})[2]["choices"][0]["text"]
        except (OSError, http.client.HTTPException):
            killer.join()
    server = Server("--state-dir", states, "--max-states", 4096)
    assert server.stop() == 0
    # a part may be another server's, until it is a minute old
    for part in states.rglob(".tcn-tmp-*"):
        os.utime(part, (time.time() - 100, time.time() - 100))
    server = Server("--state-dir", states, "--max-states", 4096)
    whole = {path.stem for path in states.rglob("*") if path.is_file()}
    assert kept.keys() <= whole and all(name.startswith("state-") for name in whole), whole - kept.keys()
    assert all(server.ask("/v1/completions", {**ask, "state": state})[0] == 200 for state in whole)
    print(f"{args.kills} kills -9: {len(kept)} states go on as before, and no other file is left")
    assert server.stop() == 0


def schemathesis(folder):
    server = Server()
    host, port = server.place
    subprocess.run([*args.schemathesis.split(), "run", f"http://{host}:{port}/openapi.json", "--checks",
                    "not_a_server_error,response_schema_conformance,status_code_conformance,content_type_conformance,"
                    "negative_data_rejection,unsupported_method", "--max-examples", "300", "--workers", "1"], check=True, cwd=folder)
    print("Schemathesis")
    assert server.stop() == 0


parser = argparse.ArgumentParser()
parser.add_argument("--tcn", default=ROOT / "target/release/tcn")
parser.add_argument("--clients", type=int, default=10_000)
parser.add_argument("--kills", type=int, default=20)
parser.add_argument("--schemathesis", help="the command that runs it")
args = parser.parse_args()
with tempfile.TemporaryDirectory() as folder:
    vanishing_clients()
    readers()
    malformed()
    full_queue()
    full_disk(folder)
    killed(folder)
    if args.schemathesis:
        schemathesis(folder)
