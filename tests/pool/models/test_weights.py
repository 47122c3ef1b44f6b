"""Each kind of MODEL word leads to its folder, or to one line that says what to do. The hub is a stand-in on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gguf_fake
import pytest
from pool_fake import byte_model

from holynb.pool.fit import read_spec
from holynb.pool.models.weights import WeightsError, local_folder, resolve_folder

QUIET = lambda stage, share: None  # noqa: E731


class Hub(BaseHTTPRequestHandler):
    """One public repository `org/tiny`, and a gated one `org/gated`. The few routes that a snapshot needs."""

    files: dict[str, bytes]
    asked: list[str]
    commit = "c" * 40

    def do_GET(self) -> None:
        self.asked.append(self.path)
        parts = self.path.split("?")[0].strip("/").split("/")
        if self.path.startswith("/api/models/org/tiny"):
            if "tree" in parts:
                return self._json(
                    [{"type": "file", "path": n, "size": len(d), "oid": hashlib.sha1(d).hexdigest()} for n, d in self.files.items()]
                )
            siblings = [{"rfilename": name} for name in self.files]
            return self._json(
                {
                    "id": "org/tiny",
                    "modelId": "org/tiny",
                    "sha": self.commit,
                    "siblings": siblings,
                    "private": False,
                    "tags": [],
                    "downloads": 0,
                }
            )
        if parts[:3] == ["org", "tiny", "resolve"] and parts[4] in self.files:
            return self._send(200, self.files[parts[4]], parts[4])
        if parts[:3] == ["org", "tiny", "resolve"]:
            return self._send(404, b"{}", "x", {"X-Error-Code": "EntryNotFound"})
        self._send(
            403 if "gated" in self.path else 404, b"{}", "x", {"X-Error-Code": "GatedRepo" if "gated" in self.path else "RepoNotFound"}
        )
        return None

    do_HEAD = do_GET  # noqa: N815 - http.server looks for this name

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), "x.json", {"Content-Type": "application/json"})

    def _send(self, status: int, data: bytes, name: str, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        headers = {
            "Content-Length": str(len(data)),
            "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
            "X-Repo-Commit": self.commit,
            **(more or {}),
        }
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def asked() -> list[str]:
    """The paths that the hub is asked for."""
    return []


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The repository's files."""
    return byte_model(tmp_path / "source")


@pytest.fixture
def hub(source: Path, asked: list[str]) -> Iterator[str]:
    model = source
    files = {p.name: p.read_bytes() or b"weights" for p in model.iterdir()} | {"pytorch_model.bin": b"x" * 100, "README.md": b"hi"}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("TheHub", (Hub,), {"files": files, "asked": asked}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def run(model: str, home: Path, *options: str, **env: str) -> tuple[int, list[dict[str, Any]]]:
    """`python -m holynb.pool.models.weights`, as the server runs it."""
    paths = {"PYTHONPATH": str(Path(__file__).parents[3]), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(home / "hf"), **env}
    done = subprocess.run(
        [sys.executable, "-m", "holynb.pool.models.weights", model, "--home", str(home), *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, **paths},
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines, done.stderr
    return done.returncode, lines


def test_a_folder_is_itself(tmp_path: Path) -> None:
    folder = byte_model(tmp_path / "m")
    assert local_folder(str(folder), tmp_path) == folder
    assert resolve_folder(str(folder), tmp_path, QUIET) == folder


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_lacks_something_says_what(tmp_path: Path, missing: str) -> None:
    folder = byte_model(tmp_path / "m")
    (folder / missing).unlink()
    with pytest.raises(WeightsError, match=missing.replace("model.", r"\*.")):
        local_folder(str(folder), tmp_path)


def test_a_gguf_file_is_converted_once_and_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    gguf_fake.write(path)
    assert local_folder(str(path), tmp_path) is None
    said: list[str] = []
    folder = resolve_folder(str(path), tmp_path, lambda stage, share: said.append(stage))
    assert set(said) == {"converting tiny.gguf"}
    assert resolve_folder(str(path), tmp_path, lambda stage, share: pytest.fail("converted twice")) == folder
    os.utime(path, (1, 1))
    assert resolve_folder(str(path), tmp_path, QUIET) != folder
    path.write_bytes(b"GGUF" + b"\0" * 500)
    with pytest.raises(WeightsError, match=r"tiny\.gguf could not be converted"):
        resolve_folder(str(path), tmp_path, QUIET)


def test_a_hub_id_is_fetched_and_only_what_the_pool_reads(tmp_path: Path, hub: str) -> None:
    code, lines = run("org/tiny", tmp_path, HF_ENDPOINT=hub)
    assert code == 0, lines
    assert lines[0]["stage"] == "fetching org/tiny from the hub"
    folder = Path(lines[-1]["folder"])
    names = {p.name for p in folder.iterdir() if p.is_file()}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"} <= names
    assert names.isdisjoint({"pytorch_model.bin", "README.md"})


def test_the_config_of_a_hub_id_is_fetched_alone(tmp_path: Path, hub: str, asked: list[str]) -> None:
    code, lines = run("org/tiny", tmp_path, "--config", str(tmp_path / "place"), HF_ENDPOINT=hub)
    assert code == 0, lines
    folder = Path(lines[-1]["folder"])
    assert folder.parent == tmp_path / "place"
    assert [p.name for p in folder.iterdir() if p.is_file()] == ["config.json"]
    assert {path.rpartition("/")[2] for path in asked} == {"config.json"}


@pytest.fixture
def bare(source: Path) -> None:
    """The repository has no config.json."""
    (source / "config.json").unlink()


@pytest.mark.usefixtures("bare")
def test_a_repository_without_a_config_has_none_alone(tmp_path: Path, hub: str) -> None:
    assert run("org/tiny", tmp_path, "--config", str(tmp_path / "place"), HF_ENDPOINT=hub) == (0, [{"folder": None}])


@pytest.mark.parametrize(("model", "words"), [("org/none", "no org/none for us (404)"), ("org/gated", "needs HF_TOKEN")])
def test_what_the_hub_does_not_give_has_no_config_either(tmp_path: Path, hub: str, model: str, words: str) -> None:
    code, lines = run(model, tmp_path, "--config", str(tmp_path / "place"), HF_ENDPOINT=hub)
    assert code == 1
    assert words in lines[-1]["error"]


def test_the_config_of_a_gguf_file_is_read_before_it_is_converted(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    gguf_fake.write(file)
    _, lines = run(str(file), tmp_path, "--config", str(tmp_path / "place"))
    read = Path(lines[-1]["folder"])
    assert [p.name for p in read.iterdir()] == ["config.json"]
    converted = resolve_folder(str(file), tmp_path, QUIET)
    assert read_spec(read) == read_spec(converted)
    assert run(str(file), tmp_path, "--config", str(tmp_path / "again"))[1] == [{"folder": str(converted)}]


BIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "num_hidden_layers": 96,
    "hidden_size": 65536,
    "vocab_size": 151936,
    "intermediate_size": 262144,
    "num_attention_heads": 512,
    "num_key_value_heads": 128,
    "head_dim": 128,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 4096,
    "rope_theta": 1e6,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


@pytest.fixture
def big(source: Path) -> None:
    """The repository is that of a model that fits on no machine."""
    (source / "config.json").write_text(json.dumps(BIG))


@pytest.mark.usefixtures("big")
def test_what_does_not_fit_is_refused_before_its_weights_are_fetched(tmp_path: Path, hub: str, asked: list[str]) -> None:
    paths = {
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": hub,
    }
    words = ["--tag", "holynb-pool:big", "--name", "big", "--model", "org/tiny", "--home", str(tmp_path), "--devices", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "holynb.pool.server", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, **paths},
    )
    assert done.returncode != 0
    assert "org--tiny does not fit" in done.stdout + done.stderr
    assert {path.rpartition("/")[2] for path in asked} == {"config.json"}
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(("model", "words"), [("org/none", "no org/none for us (404)"), ("org/gated", "needs HF_TOKEN")])
def test_what_the_hub_does_not_give(tmp_path: Path, hub: str, model: str, words: str) -> None:
    code, lines = run(model, tmp_path, HF_ENDPOINT=hub)
    assert code == 1
    assert words in lines[-1]["error"]


def test_a_hub_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    code, lines = run("org/tiny", tmp_path, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert code == 1
    assert "could not be fetched from the hub" in lines[-1]["error"]
    assert re.search(r"[^.]\. A folder of safetensors works without it\.$", lines[-1]["error"]), (
        "the hub's words and ours are two sentences"
    )


def test_what_is_nothing_says_what_it_could_be(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="the embedded model"):
        resolve_folder("no such thing", tmp_path, QUIET)
