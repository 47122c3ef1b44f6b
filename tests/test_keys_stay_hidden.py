"""A key that is planted in each of its places is in nothing that a notebook, a run log, a log file or a repr leaves behind, whole or in part.

A real notebook runs in a real kernel against a server that answers, refuses and fails, and tells the key back wherever it can. Afterwards
every file of the place, every column of the run log and every byte of the saved notebook is searched.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from layout import ROOT
from nbclient import NotebookClient
from servers.exact import EOF, Asked, Exact, Step, chunk, reply, stream_head
from servers.golden import ANTHROPIC, GEMINI, MODEL, OPENAI, Golden

SECRET = "Zq7RwX2vK9mTb4YhNc8LpDs3GfJe6Ua1"
KEY = f"sk-{SECRET}"
#: As many characters of the key in a row as tell too much.
TELLING = 8
PLANTED = (".env", "drawer.py")
DEADLINE = 60.0

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),  # of nbclient and its sockets
]


@dataclass(frozen=True)
class Case:
    """A provider, the place where its key lies, and the transport that carries it."""

    origin: str
    provider: str
    wire: Golden
    transport: str

    @property
    def variable(self) -> str:
        return f"{self.provider.upper()}_API_KEY"

    def __str__(self) -> str:
        return self.origin


CASES = (
    Case("environment", "openai", OPENAI, "direct"),
    Case("dotenv", "anthropic", ANTHROPIC, "httpx"),
    Case("keyring", "gemini", GEMINI, "aiohttp"),
    Case("prompt", "holysheep", OPENAI, "direct"),
)

DRAWER = f"""
from keyring.backend import KeyringBackend
class Drawer(KeyringBackend):
    priority = 9
    def get_password(self, service, name): return "{KEY}" if service == "holynb" else None
    def set_password(self, service, name, value): raise RuntimeError("full")
    def delete_password(self, service, name): raise RuntimeError("stuck")
"""

RECORDED = """one = holynb.infer(['answer 5', 'refuse 5'], 'ROUTE', cache=False, concurrency=1)
from pathlib import Path
from holynb.ui.live.recording import record
record(one, Path('one.jsonl.gz'))
one.error, one, vars(one), one.plan, one.summary()"""
EXPORTED = """for name, frame in {'good': good, 'mixed': mixed, 'refused': refused, 'told': told}.items():
    frame.to_csv(f'{name}.csv')
    frame.to_json(f'{name}.json')
    frame.to_html(f'{name}.html')
    frame.to_pickle(f'{name}.pickle')
mixed.to_dict()"""
LOOKED_AT = """import gc
ours = [o for o in gc.get_objects() if str(type(o).__module__).startswith('holynb')]
said = [f'{o!r} {vars(o) if hasattr(o, "__dict__") else ""}' for o in ours]
Path('reprs.txt').write_text(chr(10).join(said))
len(ours)"""

CELLS = (
    "import logging\nlogging.basicConfig(filename='everything.log', level=0, force=True)\n%load_ext holynb\n%xmode Verbose",
    "%%infer good << ROUTE -l --name first\nanswer 1\nanswer 2\nanswer 3\nanswer 4",
    "%%infer slow << ROUTE -l -c 1 --stream --no-cache\nslow 1\nslow 2\nslow 3\nslow 4\nslow 5",
    "%%infer mixed << ROUTE -l --retries 1 --no-cache --name mixed\nanswer\nfail json\nfail page\nfail half\nfail wrong\nfail 200\nfail cut\nfail header\nfail limit",
    "%%infer told << ROUTE -l --name told\ntold 1\ntold 2",
    "%%infer told << ROUTE --stream --refresh\ntold 3",
    "%%infer moved << ROUTE --retries 0\nredirect",
    "%%infer refused << ROUTE -l\nrefuse 1\nrefuse 2",
    "%%infer refused << ROUTE --debug --refresh\nrefuse 3",
    "import holynb\nholynb.infer(['refuse 4'], 'ROUTE', cache=False).wait()",
    RECORDED,
    "%infer show first",
    "%infer show mixed",
    "%infer runs",
    "%infer status",
    "%infer models PROVIDER",
    "%infer cost",
    "%infer cache",
    "%infer dash",
    "%infer panel",
    "%%infer ROUTE --show-code --stream --api-key-name VARIABLE\nanswer",
    "%%infer ROUTE --dry-run\nanswer",
    "%infer run --only failed mixed",
    EXPORTED,
    LOOKED_AT,
    "import pickle\npickle.dumps(one.plan.targets.secrets)",
    "1 / len([one.plan.targets.secrets, one._scheduler, *one.journal.rows][:0])",
)


def script(case: Case, elsewhere: Exact) -> Any:
    """What the server does, by the first word of the prompt. Wherever it can, it tells the key that it was sent."""

    limited: list[int] = []

    def steps(request: Asked, number: int) -> Sequence[Step]:
        body = request.body.decode()
        if "fail limit" in body:
            limited.append(number)
        echo = {
            "error": {"message": f"You sent {KEY}, or {KEY[:-4]}, or {SECRET[6:]}", "type": "server_error", "code": None, "param": None}
        }
        if "told" in body:
            answer = f"It is {KEY}"
            texts = json.loads(json.dumps(case.wire.whole, ensure_ascii=False).replace("<b>tea</b>", answer).replace(MODEL, KEY))
            stream = case.wire.stream.replace(b"<b>tea</b>", answer.encode())
            return [stream_head(case.wire.kind), chunk(stream), EOF] if streaming(request) else [reply(texts)]
        whole = [stream_head(case.wire.kind), chunk(case.wire.stream), EOF] if streaming(request) else [reply(case.wire.whole)]
        known: dict[str, Sequence[Step]] = {
            "slow": [0.3, *whole],
            "refuse": [reply(echo | {"key": KEY}, 401, x_your_key=KEY, www_authenticate=f"Bearer {KEY}")],
            "redirect": [reply(b"", 307, location=f"{elsewhere.base}/{KEY}?key={KEY}")],
            "fail json": [reply(echo, 500)],
            "fail page": [reply(f"<html><title>502 {KEY}</title><b>{SECRET}</b></html>", 502)],
            "fail half": [reply(f'{{"key": "{KEY}", "half'.encode())],
            "fail wrong": [reply(echo, 400)],
            "fail 200": [reply(echo)],
            "fail cut": [reply(f'{{"{KEY}'.encode(), content_length="9999"), EOF],
            "fail header": [f"HTTP/1.1 200 OK\r\nno colon but {KEY}\r\n\r\n".encode(), EOF],
            "fail limit": [reply(echo, 429, retry_after_ms="1")] if len(limited) < 3 else whole,
        }
        return next((steps for word, steps in known.items() if word in body), whole)

    return steps


def streaming(request: Asked) -> bool:
    return "stream" in request.path.lower() or b'"stream":true' in request.body


class Asking(NotebookClient):
    """Runs a notebook as a front end with a person does: widgets are shown, and who is asked for a key types it."""

    def answers(self, typed: str) -> None:
        self.typed, self.prompts = typed, list[str]()

    async def async_start_new_kernel_client(self) -> Any:
        client = await super().async_start_new_kernel_client()
        client.allow_stdin = True
        self.listening = asyncio.ensure_future(self.answer(client))
        return client

    async def answer(self, client: Any) -> None:
        while True:
            request = (await client.get_stdin_msg(timeout=None))["content"]
            assert request["password"], "what is typed would be shown"
            self.prompts.append(request["prompt"])
            client.input(self.typed)


def test_no_part_of_a_key_stays_anywhere(case: Case, tmp_path: Path, home: Path) -> None:
    with Exact([reply(b"stolen")]) as elsewhere, Exact(script(case, elsewhere)) as server:
        client = executed(case, tmp_path, home, server)
        assert not elsewhere.asked, "the key followed a redirect"
        sent = [
            value
            for request in server.asked
            for name, value in request.headers.items()
            if name in ("authorization", "x-api-key", "x-goog-api-key")
        ]
        assert len(sent) == len(server.asked) > 20
        assert all(value.endswith(KEY) for value in sent), "it was the planted key that was used"
        assert not any(KEY in a.path for a in server.asked)
    assert bool(client.prompts) == (case.origin == "prompt")
    book = nbformat.writes(client.nb)
    (tmp_path / "saved.ipynb").write_text(book, encoding="utf-8")
    assert client.nb.metadata["widgets"], "no widget was open, so nothing was tried"
    assert "***" in book, "the server's echo did not come this far, so nothing was tried"
    assert "VARIABLE" not in book
    assert case.variable in book
    texts = dict(places(tmp_path))
    assert {"saved.ipynb", "everything.log", "one.jsonl.gz", "reprs.txt", "mixed.csv"} <= set(texts)
    assert any(name.endswith("answers") for name in texts), "the run log was not read"
    assert [f"{name}: {part}" for name, text in texts.items() if (part := telling(text))] == []


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def executed(case: Case, place: Path, home: Path, server: Exact) -> Asking:
    """The notebook after its run; kernel, IPython's history and holynb's home all lie under `place`."""
    planted = {
        "environment": (None, ""),
        "dotenv": (".env", f"{case.variable}={KEY}\n"),
        "keyring": ("drawer.py", DRAWER),
        "prompt": (None, ""),
    }
    name, text = planted[case.origin]
    if name:
        (place / name).write_text(text)
    path = os.pathsep.join([str(ROOT), str(place), os.environ.get("PYTHONPATH", "")])
    env = {
        **os.environ,
        "HOLYNB_HOME": str(home),
        "PYTHONPATH": path,
        "IPYTHONDIR": str(place / "ipython"),
        "VSCODE_PID": "1",
        "HOLYNB_HTTP": case.transport,
        f"{case.provider.upper()}_BASE_URL": server.base,
    }
    if case.origin == "environment":
        env[case.variable] = KEY
    if case.origin == "keyring":
        env["PYTHON_KEYRING_BACKEND"] = "drawer.Drawer"
    words = {"ROUTE": f"{case.provider}/m", "PROVIDER": case.provider, "VARIABLE": case.variable}
    cells = []
    asks = ["%infer key PROVIDER"] if case.origin == "prompt" else []
    for source in [CELLS[0], *asks, *CELLS[1:]]:
        for word, meant in words.items():
            source = source.replace(word, meant)
        cells.append(nbformat.v4.new_code_cell(source))
    client = Asking(
        nbformat.v4.new_notebook(cells=cells),
        timeout=DEADLINE,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(place)}},
    )
    client.answers(KEY)
    client.execute(env=env)
    return client


def places(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Everything that lies there, by name; tables of SQLite files column by column, packed files unpacked."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name in PLANTED or "__pycache__" in path.parts or path.is_symlink():
            continue
        data = path.read_bytes()
        yield str(path.relative_to(folder)), gzip.decompress(data) if path.suffix == ".gz" else data
        if data.startswith(b"SQLite format 3"):
            with closing(sqlite3.connect(path)) as db:
                for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall():
                    rows = db.execute(f"SELECT * FROM {table}").fetchall()
                    yield f"{path.name}:{table}", repr(rows).encode()


def telling(text: bytes) -> list[str]:
    """The parts of the key that are in a text, as it is and in base64."""
    parts = {SECRET[i : i + TELLING].encode() for i in range(len(SECRET) - TELLING + 1)}
    for lead in range(3):
        coded = base64.b64encode(b"x" * lead + KEY.encode())[4:-4]
        parts |= {coded[i : i + 12] for i in range(len(coded) - 11)}
    return [part.decode() for part in parts if part in text]


@pytest.mark.parametrize("leak", [KEY, f"…{SECRET[-8:]}", f"{SECRET[:9]}***", base64.b64encode(b"Bearer " + KEY.encode()).decode()])
def test_the_search_finds_what_it_looks_for(leak: str, tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(f"before {leak} after".encode()))
    with closing(sqlite3.connect(tmp_path / "a.sqlite")) as db:
        db.execute("CREATE TABLE t(a)")
        db.execute("INSERT INTO t VALUES(?)", (leak,))
        db.commit()
    assert sorted(name for name, text in places(tmp_path) if telling(text)) == ["a.gz", "a.sqlite", "a.sqlite:t"]
    assert telling(SECRET[:7].encode()) == []
