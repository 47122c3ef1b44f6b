"""Self-hosted OpenAI-compatible servers: their models with context lengths, and their load. Read only.

The load is read from `/metrics` (Prometheus text) of vLLM, SGLang, llama.cpp, TGI and holynb's own pool. What is not reported is None.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from holynb.config.providers import OPENAI_WIRES
from holynb.engines import codec, entry, http, openai
from holynb.errors import Fault
from holynb.secret import Mask
from holynb.types import Endpoint, Secret

__all__ = ["ServedModel", "ServerLoad", "TokenUsage", "is_self_hosted", "load", "models", "parse_metrics", "samples", "usage"]

#: Seconds to connect; short, since no request waits for it.
CONNECT_S = 3.0
MAX_PAGE_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model of a server. `context`: its context length in tokens. `says_end`: the server tells of an end; None: none is announced.

    `root`: what is behind the name, where the server says it; names of one root, without adapters, are one model.
    """

    id: str
    context: int | None = None
    says_end: bool = False
    end: dt.date | None = None
    root: str | None = None


@dataclass(frozen=True, slots=True)
class ServerLoad:
    """Requests running and waiting. `kv`: the share of the KV cache in use, 0 to 1. `memory`: of the server's process, bytes."""

    running: int | None = None
    waiting: int | None = None
    kv: float | None = None
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """What a token of a pool has used today. `per_day`: None is without a limit. `resets_s`: until the day ends. `expires`: ISO 8601."""

    name: str
    today: int
    per_day: int | None = None
    resets_s: int | None = None
    expires: str | None = None


#: Field of ServerLoad → names of its metric; the first on the page counts.
METRIC_NAMES: Mapping[str, tuple[str, ...]] = {
    "running": (
        "vllm:num_requests_running",
        "ray_vllm:num_requests_running",
        "sglang:num_running_reqs",
        "llamacpp:requests_processing",
        "tgi_batch_current_size",
        "holynb_requests_running",
    ),
    "waiting": (
        "vllm:num_requests_waiting",
        "ray_vllm:num_requests_waiting",
        "sglang:num_queue_reqs",
        "llamacpp:requests_deferred",
        "tgi_queue_size",
        "holynb_requests_waiting",
    ),
    "kv": (
        "vllm:kv_cache_usage_perc",
        "vllm:gpu_cache_usage_perc",
        "ray_vllm:kv_cache_usage_perc",
        "sglang:token_usage",
        "llamacpp:kv_cache_usage_ratio",
    ),
    "memory": ("process_resident_memory_bytes",),
}
#: How the values of replicas are aggregated; by sum where not named here.
AGGREGATES: Mapping[str, Callable[[list[float]], float]] = {"kv": lambda values: sum(values) / len(values)}

_SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(\{.*\})?\s+(\S+)")


def is_self_hosted(endpoint: Endpoint) -> bool:
    """Whether this server is self-hosted: `vllm/`, `ray/`, and every OpenAI-compatible address on this machine or its network."""
    if endpoint.wire not in OPENAI_WIRES or endpoint.route.provider in ("vllm", "ray"):
        return endpoint.wire in OPENAI_WIRES
    host = urlsplit(endpoint.base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".lan"))


async def models(endpoint: Endpoint, secret: Secret | None = None) -> list[ServedModel]:
    """The models of `GET {base}/models`. Raises Fault."""
    try:
        value = codec.loads(await _get(endpoint, f"{endpoint.base_url}/models", secret))
    except ValueError:
        raise Fault("server", f"{endpoint.base_url}/models answered something that is not JSON.") from None
    listed = value.get("data") if isinstance(value, Mapping) else None
    if not isinstance(listed, list):
        raise Fault("server", f"{endpoint.base_url}/models lists no models.")
    mask = None if secret is None else Mask((secret,))
    served = (
        ServedModel(m["id"], _context(m), *_end(m), _root(m)) for m in listed if isinstance(m, Mapping) and isinstance(m.get("id"), str)
    )
    return [entry.admit(model, mask) for model in served]


def _root(model: Mapping[str, Any]) -> str | None:
    """What is behind the name, as vLLM and holynb's pool say it; None of an adapter, which has a parent and is another model."""
    root = model.get("root")
    return root if isinstance(root, str) and not model.get("parent") else None


def _end(model: Mapping[str, Any]) -> tuple[bool, dt.date | None]:
    """Whether the server says when this model ends, and the day: OpenAI's `shutdown_date`, null where none is announced."""
    day = model.get("shutdown_date", False)
    if day is None:
        return True, None
    try:
        return True, dt.date.fromisoformat(day)
    except (TypeError, ValueError):  # absent, or no date
        return False, None


async def load(endpoint: Endpoint, secret: Secret | None = None) -> ServerLoad | None:
    """The server's load; None where it has no metrics. Raises Fault where it cannot be reached."""
    try:
        page = await _get(endpoint, f"{endpoint.base_url.removesuffix('/v1')}/metrics", secret)
    except Fault as fault:
        if fault.status is not None:
            return None
        raise
    result = parse_metrics(page.decode("utf-8", "replace"))
    return None if result == ServerLoad() else result


async def usage(endpoint: Endpoint, secret: Secret | None = None) -> TokenUsage | None:
    """What a pool of holynb says of the token that asks; None of another server, and to the pool's own token. Raises Fault."""
    try:
        value = codec.loads(await _get(endpoint, f"{endpoint.base_url}/usage", secret))
    except ValueError:
        return None
    except Fault as fault:
        if fault.status in (404, 405):
            return None
        raise
    if not isinstance(value, Mapping) or value.get("object") != "usage" or not isinstance(name := value.get("name"), str):
        return None
    today, per_day, resets = (openai.count(value.get(key)) for key in ("tokens_today", "tokens_per_day", "resets_in_s"))
    expires = value.get("expires")
    used = TokenUsage(name, today or 0, per_day, resets, expires if isinstance(expires, str) else None)
    return entry.admit(used, None if secret is None else Mask((secret,)))


def parse_metrics(page: str) -> ServerLoad:
    """Prometheus text → ServerLoad. Pure."""
    values: dict[str, list[float]] = {}
    for name, value in samples(page.splitlines()):
        values.setdefault(name, []).append(value)
    fields: dict[str, Any] = {}
    for field, names in METRIC_NAMES.items():
        series = next((values[n] for n in names if n in values), None)
        if series is not None:
            value = AGGREGATES.get(field, sum)(series)
            fields[field] = min(1.0, max(0.0, value)) if field == "kv" else int(value)
    if "kv" not in fields and values.get("holynb_kv_total_tokens"):
        fields["kv"] = sum(values.get("holynb_kv_used_tokens", [])) / max(1.0, sum(values["holynb_kv_total_tokens"]))
    return ServerLoad(**fields)


def samples(lines: Iterable[str]) -> Iterator[tuple[str, float]]:
    """Names and finite values of a page's samples, without labels."""
    for line in lines:
        match = _SAMPLE.match(line)
        if match is None:
            continue
        try:
            value = float(match.group(3))
        except ValueError:
            continue
        if math.isfinite(value):
            yield match.group(1), value


def _context(model: Mapping[str, Any]) -> int | None:
    """The context length, under vLLM's, OpenRouter's, Groq's or llama.cpp's name."""
    meta = model.get("meta")
    inner = openai.count(meta.get("n_ctx") or meta.get("n_ctx_train")) if isinstance(meta, Mapping) else None
    lengths = (openai.count(model.get(name)) for name in ("max_model_len", "context_length", "context_window"))
    return next((length for length in lengths if length), inner)


async def _get(endpoint: Endpoint, url: str, secret: Secret | None) -> bytes:
    """The body of a page. Raises Fault, in which the key is masked."""
    try:
        return await _fetch(endpoint, url, secret)
    except Fault as fault:
        entry.admit_fault(fault, None if secret is None else Mask((secret,)))
        raise fault from None


async def _fetch(endpoint: Endpoint, url: str, secret: Secret | None) -> bytes:
    client = http.borrow(url)
    try:
        headers = [(k.encode(), v.encode()) for k, v in openai.headers(endpoint, secret).items() if k != "content-type"]
        reply = await client.send("GET", url, headers, connect=CONNECT_S)
        try:
            body = await reply.read(MAX_PAGE_BYTES)
        finally:
            await reply.aclose()
    finally:
        await http.give_back(client)
    if reply.status != 200:
        fault = openai.classify(reply.status, reply.headers, body)
        if reply.status == 404 and urlsplit(endpoint.base_url).path in ("", "/"):
            fault.message += f". Should the address be {endpoint.base_url}/v1?"
        raise fault
    return body
