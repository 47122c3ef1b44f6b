"""The load of the user's own servers during a run, and their list of models; a server that reports nothing costs a run nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from engines.test_servers import VLLM
from servers.exact import Asked, Exact, Step, reply
from ui.shells import run as typed
from ui.shells import shell

import holynb
from holynb import loop
from holynb.engines import servers as engine_servers
from holynb.engines.servers import ServerLoad
from holynb.events import Gauge, Load
from holynb.types import Endpoint, Route
from holynb.ui.live import recording, servers
from holynb.ui.live.timeseries import TimeSeries
from holynb.ui.output import series

ANSWER = {
    "model": "m",
    "choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 1},
}
MODELS = {"object": "list", "data": [{"id": "Qwen/Qwen3-8B", "max_model_len": 40960}, {"id": "tiny"}]}


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    loop.close()


def script(metrics: Sequence[Step], latency: float = 0.1) -> Any:
    """A server that answers, lists its models, and does this where it is asked for its metrics."""

    def steps(request: Asked, number: int) -> Sequence[Step]:
        by_path: dict[str, Sequence[Step]] = {"/metrics": metrics, "/v1/models": [reply(MODELS)]}
        return by_path.get(request.path, [latency, reply(ANSWER)])

    return steps


def ran(server: Exact, rows: int = 12, pause: float = 0.05) -> Any:
    """A run that was watched to its end."""
    run = holynb.infer([f"row {i}" for i in range(rows)], "vllm/Qwen/Qwen3-8B", api_base=f"{server.base}/v1", concurrency=2, cache=False)
    futures = servers.watch(run, pause)
    run.wait(30)
    for future in futures:
        future.result(30)
    return run


def polls(server: Exact) -> int:
    return sum(request.path == "/metrics" for request in server.asked)


def test_what_the_server_says_stands_in_the_journal_while_the_run_goes_on() -> None:
    with Exact(script([reply(VLLM)])) as server:
        run = ran(server)
        assert polls(server) >= 3
    events = run.journal.events_since(0)[0]
    loads = [e for e in events if isinstance(e, Load)]
    assert len(loads) >= 3
    assert {(e.route, e.running, e.waiting, e.kv) for e in loads} == {("vllm/Qwen/Qwen3-8B", 16, 3, 0.5)}
    assert {(e.device, e.used, e.total) for e in events if isinstance(e, Gauge)} == {("vllm server", 3 * 2**30, 0)}
    drawn = series.load(events, run.started)
    assert {name: points[-1][1] for name, points in drawn.items()} == {"running": 16.0, "waiting": 3.0, "KV %": 50.0}


@pytest.mark.parametrize(
    "page", [reply(b"404 page not found", 404), reply("<html>no</html>"), reply("python_gc_objects_collected_total 1\n")]
)
def test_a_server_without_such_a_page_is_asked_once(page: bytes) -> None:
    with Exact(script([page])) as server:
        run = ran(server)
        assert polls(server) == 1
    assert (run.frame()["status"] == "ok").all()
    assert not [e for e in run.journal.events_since(0)[0] if isinstance(e, Load | Gauge)]


def test_a_page_that_does_not_come_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "TIMEOUT_S", 0.2)
    with Exact(script([600.0])) as server:
        run = ran(server, rows=30, pause=0.02)
        assert polls(server) == servers.MAX_FAILURES, "then it is left alone"
    assert (run.frame()["status"] == "ok").all()
    assert int(run.frame()["attempts"].sum()) == 30


@pytest.mark.parametrize(
    ("route", "base", "wire", "is_own"),
    [
        ("vllm/m", "https://gpu.example.com/v1", "openai", True),
        ("ray/m", "http://10.0.0.7:8000/v1", "openai", True),
        ("ollama/m", "http://localhost:11434/v1", "openai", True),
        ("llama/m", "http://127.0.0.1:8080/v1", "openai", True),
        ("box/m", "http://192.168.1.5/v1", "openai", True),
        ("box/m", "http://gpubox:30000/v1", "openai", True),
        ("box/m", "http://[::1]:80/v1", "openai", True),
        ("box/m", "http://gpu.local/v1", "openai", True),
        ("openai/m", "https://api.openai.com/v1", "openai", False),
        ("holysheep/m", "https://api.holysheep.ai/v1", "openai", False),
        ("anthropic/m", "http://127.0.0.1:1", "anthropic", False),
        ("box/m", "https://8.8.8.8/v1", "openai", False),
        ("sim/echo", "", "sim", False),
        ("pool/m", "", "pool", False),
    ],
)
def test_only_ones_own_servers_are_asked(route: str, base: str, wire: str, is_own: bool) -> None:
    assert engine_servers.is_self_hosted(Endpoint(Route.parse(route), wire, base)) is is_own


def test_two_servers_are_drawn_as_one() -> None:
    events = [Load("vllm/a", 101.0, 4, 0, 0.25), Load("ray/b", 102.0, 6, None, 0.75), Load("vllm/a", 103.0, 1, 2, 0.5)]
    assert series.load(events, 100.0) == {
        "running": [(1.0, 4.0), (2.0, 10.0), (3.0, 7.0)],
        "waiting": [(1.0, 0.0), (2.0, 0.0), (3.0, 2.0)],
        "KV %": [(1.0, 25.0), (2.0, 75.0), (3.0, 75.0)],
    }
    drawn = TimeSeries(100.0)
    for event in events:
        drawn.fold(event)
    charts = drawn.points.all()["charts"]["server"]
    assert {name: column[-1] for name, column in charts.items()} == {"running": 7.0, "waiting": 2.0, "KV %": 75.0}
    assert series.load([Load("x/y", 1.0)], 0.0) == {}


def test_an_event_for_each_thing_said() -> None:
    where = Endpoint(Route("ray", "m"), "openai", "http://x/v1")
    assert list(servers.events(where, ServerLoad(waiting=2), 5.0)) == [Load("ray/m", 5.0, None, 2, None)]
    assert list(servers.events(where, ServerLoad(memory=7), 5.0)) == [Gauge("ray server", 7, 0, 5.0)]


def test_a_recording_keeps_it(tmp_path: Path) -> None:
    with Exact(script([reply(VLLM)])) as server:
        run = ran(server)
    recording.record(run, tmp_path / "r.jsonl")
    loads = [s.event for s in recording.read(str(tmp_path / "r.jsonl")).steps if isinstance(s.event, Load)]
    assert loads
    assert (loads[0].route, loads[0].running, loads[0].kv) == ("vllm/Qwen/Qwen3-8B", 16, 0.5)


# -- %infer models -------------------------------------------------------------------------------------------------------


@pytest.fixture
def here() -> Iterator[Callable[[str], str]]:
    """What a line prints, in a shell with the extension."""
    with shell() as ip:
        assert typed(ip, "%load_ext holynb").error is None
        yield lambda line: typed(ip, line).out


def test_a_named_server_lists_its_models_and_how_it_is(here: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    with Exact(script([reply(VLLM)])) as server:
        monkeypatch.setenv("VLLM_BASE_URL", f"{server.base}/v1")
        out = here("%infer models vllm")
        assert [a.path for a in server.asked] == ["/v1/models", "/metrics"]
        here("%infer models")
        assert len(server.asked) == 2, "the whole list asks nobody"
    assert "vllm/Qwen/Qwen3-8B 40,960" in " ".join(out.split())
    assert "vllm/tiny ?" in " ".join(out.split())
    assert f"{server.base}/v1" in out
    assert "Now: 16 running, 3 waiting, 50% of its KV cache in use, 3.22 GB of memory." in out


def test_a_server_at_an_address_lists_its_models(here: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVERS_KEY", "own-key-0123456789abcdef")
    with Exact(script([reply(VLLM)])) as server:
        out = here(f"%infer models --api-base {server.base}/v1 --api-key-name MY_SERVERS_KEY")
        assert [a.path for a in server.asked] == ["/v1/models", "/metrics"]
        assert {a.headers.get("authorization") for a in server.asked} == {"Bearer own-key-0123456789abcdef"}
        named = here(f"%infer models openai --api-base {server.base}/v1")
    assert "vllm/Qwen/Qwen3-8B 40,960" in " ".join(out.split())
    assert "key in MY_SERVERS_KEY" in out
    assert f"%%infer vllm/Qwen/Qwen3-8B --api-base {server.base}/v1" in out
    assert "own-key" not in out
    assert "gpt-4.1" not in named, "a provider's own models are not at another address"
    assert "no OPENAI_API_KEY" in named


def test_an_address_without_its_version_is_seen(here: Callable[[str], str]) -> None:
    with Exact(
        lambda request, n: [
            reply(MODELS if request.path == "/v1/models" else {"detail": "Not Found"}, 200 if request.path == "/v1/models" else 404)
        ]
    ) as server:
        wrong = here(f"%infer models --api-base {server.base}/")
        right = here(f"%infer models --api-base {server.base}/v1/")
    assert f"Models cannot be listed: 404: Not Found. Should the address be {server.base}/v1?" in wrong
    assert "vllm/Qwen/Qwen3-8B" in right


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--api-base nonsense", "--api-base should be an address"),
        ("vllm ray", "unexpected argument 'ray'"),
        ("--api-bse http://x/v1", "There is no option --api-bse. Did you mean --api-base?"),
        ("vllm --timeout 3", "%infer models does not take --timeout. It takes --api-base, --api-key-name, and update."),
        ("vlm --api-base http://x/v1", "There is no provider 'vlm'. Did you mean vllm?"),
        ("anthropic --api-base http://x", "anthropic has no list of models"),
        ("sim --api-base http://x/v1", "sim has no address"),
    ],
)
def test_what_models_cannot_make_sense_of_is_one_line(line: str, words: str) -> None:
    with shell() as ip:
        assert typed(ip, "%load_ext holynb").error is None
        result = typed(ip, f"%infer models {line}")
    assert words in str(result.error)
    assert "\n" not in str(result.error)


def test_a_cell_watches_its_server(here: Callable[[str], str]) -> None:
    with Exact(script([reply(VLLM)], latency=0.5)) as server:
        here(f"%%infer r << vllm/m --api-base {server.base}/v1 -l -c 1\none\ntwo\nthree")
        assert polls(server) >= 1
    assert [e for e in holynb.last.journal.events_since(0)[0] if isinstance(e, Load)]


def test_a_server_that_is_down_or_refuses_is_a_line(here: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-own-0123456789abcdef"
    monkeypatch.setenv("VLLM_API_KEY", key)
    with Exact([reply({"error": {"message": f"bad key {key}"}}, 401)]) as server:
        monkeypatch.setenv("VLLM_BASE_URL", f"{server.base}/v1")
        refused = here("%infer models vllm")
    assert "Models cannot be listed: " in refused
    assert "***" in refused
    assert key not in refused
    assert " failed: nothing is listening there. Is the server running" in here("%infer models vllm")
