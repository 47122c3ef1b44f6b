"""A model of bytes for the fake runner, servers that run it, and a client for their Unix sockets."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers.unix import connect

from kernels_support.jupyter import rendezvous
from kernels_support.jupyter.rendezvous import Record

HERE = Path(__file__).parent
TEMPLATE = "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}{{ m.content }}{% endfor %}"


def byte_model(folder: Path, context: int = 512) -> Path:
    """A model folder whose tokens are single bytes (ids 0 to 255) and one end token (256). Its weights are a file of none."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    shown = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255]
    spare = iter(range(256, 512))
    vocab = {chr(b if b in shown else next(spare)): b for b in range(256)}
    assert sorted(vocab) == alphabet
    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<end>", special=True, normalized=False)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE, "eos_token": "<end>"}))
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": context, "vocab_size": 257}))
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return folder


@dataclass
class Pool:
    """A running server of the fake runner, and how to talk to it."""

    home: Path
    record: Record
    process: subprocess.Popen[bytes]

    def connect(self, timeout: float = 20.0) -> http.client.HTTPConnection:
        return connect(self.record.socket, timeout)

    def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        connection = self.connect()
        try:
            raw = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
            connection.request("GET" if body is None else "POST", path, raw)
            answer = connection.getresponse()
            data = answer.read()
            return answer.status, json.loads(data) if "json" in (answer.getheader("content-type") or "") else data.decode()
        finally:
            connection.close()

    def events(self, path: str, body: dict[str, Any]) -> list[Any]:
        """The events of a stream, comments as plain strings."""
        connection = self.connect()
        try:
            connection.request("POST", path, json.dumps({**body, "stream": True}).encode())
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            blocks = [b for b in answer.read().decode().split("\n\n") if b]
            return [json.loads(b[6:]) if b.startswith("data: {") else b for b in blocks]
        finally:
            connection.close()

    def wait(self, what: Any, seconds: float = 15.0) -> Any:
        """`what()` once it is true, within a deadline."""
        end = time.monotonic() + seconds
        while not (result := what()):
            assert time.monotonic() < end, f"not within {seconds} s; log: {self.log()}"
            time.sleep(0.02)
        return result

    def log(self) -> str:
        return "\n".join(p.read_text() for p in self.home.rglob("*.log"))

    def now(self) -> Record | None:
        return rendezvous.find(self.home / "run", self.record.name)


class Pools:
    """Starts pools and ends them all. `env` are the fake runner's settings."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Pool] = []

    def start(self, *flags: str, ready: bool = True, name: str = "echo", files: int | None = None, **env: str) -> Pool:
        """A server with these flags. `files` is the most it may have open: a limit of its own, since this process may already have more."""
        home = self._folder / f"home{len(self._started)}"
        home.mkdir()
        argv = [sys.executable, "-P", "-m", "holynb.pool.server", "--tag", f"holynb-pool:{name}", "--name", name, "--home", str(home)]
        argv += ["--model", str(byte_model(self._folder / "bytes")), "--runner", "fake_runner:Runner", *flags]
        if files is not None:
            argv = ["sh", "-c", f'ulimit -Sn {files} && exec "$@"', "sh", *argv]
        paths = os.pathsep.join([str(HERE), str(HERE.parent)])
        with (home / "pool.log").open("wb") as log:
            process = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": paths, **env}, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + 20
        while (record := rendezvous.find(home / "run", name)) is None:
            assert time.monotonic() < end and process.poll() is None, (home / "pool.log").read_text()
            time.sleep(0.02)
        pool = Pool(home, record, process)
        self._started.append(pool)
        if ready:
            pool.wait(lambda: pool.ask("/health")[0] == 200, seconds=30)
            pool.record = pool.now() or record
        return pool

    def end(self) -> None:
        for pool in self._started:
            pool.process.terminate()
            try:
                pool.process.wait(10)
            except subprocess.TimeoutExpired:
                pool.process.kill()
                pool.process.wait()
            rendezvous.listing(pool.home / "run")  # what a killed one left goes as the next command would take it away
        left = [p.record.socket for p in self._started if p.record.socket and Path(p.record.socket).parent.exists()]
        assert not left, "a server's socket outlived it"
