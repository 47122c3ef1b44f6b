"""Servers one runs oneself: the pages that vLLM, SGLang, llama.cpp and the pool really write, and servers that have none."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest
from servers.asking import KEY, endpoint
from servers.exact import Asked, Exact, reply

from holynb.engines import http, servers
from holynb.engines.servers import ServedModel, ServerLoad
from holynb.errors import Fault
from holynb.pool.server import metrics as pool
from holynb.types import Secret

VLLM = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="Qwen/Qwen3-8B"} 12.0
vllm:num_requests_running{engine="1",model_name="Qwen/Qwen3-8B"} 4.0
vllm:num_requests_waiting{engine="0",model_name="Qwen/Qwen3-8B"} 3.0
vllm:kv_cache_usage_perc{engine="0",model_name="Qwen/Qwen3-8B"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="Qwen/Qwen3-8B"} 0.75
vllm:time_to_first_token_seconds_bucket{le="+Inf"} NaN
process_resident_memory_bytes 3.221225472e+09
"""


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (VLLM, ServerLoad(16, 3, 0.5, 3 * 2**30)),
        ('vllm:gpu_cache_usage_perc{model_name="x"} 0.1\n', ServerLoad(kv=0.1)),
        (
            'sglang:num_running_reqs{model_name="x"} 2\nsglang:num_queue_reqs{model_name="x"} 0\nsglang:token_usage{model_name="x"} 0.4\n',
            ServerLoad(2, 0, 0.4),
        ),
        ("llamacpp:requests_processing 1\nllamacpp:requests_deferred 0\nllamacpp:kv_cache_usage_ratio 1.2\n", ServerLoad(1, 0, 1.0)),
        ("tgi_batch_current_size 7\ntgi_queue_size 1 1700000000000\n", ServerLoad(7, 1)),
        ("", ServerLoad()),
        ("<html>hello</html>", ServerLoad()),
        ("vllm:num_requests_running many\n\x00{} 1", ServerLoad()),
    ],
)
def test_pages(page: str, expected: ServerLoad):
    assert servers.parse_metrics(page) == expected


def test_the_pools_own_page():
    stats: list[dict[str, Any]] = [
        {"running": 3, "waiting": 1, "kv_used": 10, "kv_total": 40},
        {"running": 1, "waiting": 0, "kv_used": 10, "kv_total": 40},
    ]
    assert servers.parse_metrics(pool.render(pool.Metrics(), "ready", stats)) == ServerLoad(4, 1, 0.25)


def ask(work: Any, server: Exact, key: str | None = KEY) -> Any:
    async def once() -> Any:
        answer = await work(endpoint(f"{server.base}/v1", provider="vllm"), Secret(key) if key else None)
        assert not http._shared, "the connection was given back"
        return answer

    return asyncio.run(once())


def test_models_with_their_context_lengths():
    listed = {
        "object": "list",
        "data": [
            {"id": "a", "max_model_len": 40960},
            {"id": "b", "context_length": 1000},
            {"id": "c", "meta": {"n_ctx_train": 2048}},
            {"id": "d"},
            {"no": 1},
            7,
            {"id": "e", "max_model_len": 0, "context_window": 9},
            {"id": "f", "shutdown_date": "2027-01-14"},
            {"id": "g", "shutdown_date": None},
            {"id": "h", "shutdown_date": "2027-02-30"},
            {"id": "i", "shutdown_date": 7},
        ],
    }
    with Exact([reply(listed)]) as server:
        assert ask(servers.models, server) == [
            ServedModel("a", 40960),
            ServedModel("b", 1000),
            ServedModel("c", 2048),
            ServedModel("d"),
            ServedModel("e", 9),
            ServedModel("f", None, True, dt.date(2027, 1, 14)),
            ServedModel("g", None, True),
            ServedModel("h"),
            ServedModel("i"),
        ]
        assert (server.asked[0].method, server.asked[0].path) == ("GET", "/v1/models")
        assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"


def test_metrics_lie_beside_the_api():
    def script(request: Asked, number: int) -> list[bytes]:
        return [reply(VLLM) if request.path == "/metrics" else reply(b"", 404)]

    with Exact(script) as server:
        assert ask(servers.load, server) == ServerLoad(16, 3, 0.5, 3 * 2**30)


@pytest.mark.parametrize("response", [reply(b"404 page not found", 404), reply("<html>", 500), reply("nothing we know 1\n")])
def test_no_page_is_no_fault(response: bytes):
    with Exact([response]) as server:
        assert ask(servers.load, server) is None


def test_a_refused_key_is_not_shown():
    with Exact([reply({"error": {"message": f"no {KEY}"}}, 401)]) as server, pytest.raises(Fault) as caught:
        ask(servers.models, server)
    assert caught.value.kind == "auth"
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("body", [b"[]", b'{"data": 3}', b"null"])
def test_no_list_of_models(body: bytes):
    with Exact([reply(body)]) as server, pytest.raises(Fault, match="lists no models"):
        ask(servers.models, server)


def test_nobody_there():
    with Exact([]) as server:
        pass
    with pytest.raises(Fault) as caught:
        ask(servers.load, server)
    assert caught.value.kind == "connection"


def test_names_of_one_model_are_told_by_their_root() -> None:
    body = (
        b'{"data": [{"id": "class", "root": "m"}, {"id": "m", "root": "m"}, {"id": "lora", "root": "/adapter", "parent": "m"},'
        b' {"id": "odd", "root": 7}, {"id": "plain"}]}'
    )
    with Exact([reply(body)]) as server:
        listed = ask(servers.models, server)
    assert [(m.id, m.root) for m in listed] == [("class", "m"), ("m", "m"), ("lora", None), ("odd", None), ("plain", None)]
