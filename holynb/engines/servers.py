"""What an OpenAI-compatible server of one's own says of itself: its models with their context lengths, and how busy it is. Asks; changes nothing.

Busy is read from `/metrics` (Prometheus text) of vLLM, SGLang, llama.cpp, TGI and holynb's own pool. What a server does not say is None.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from holynb.engines import codec, http, openai
from holynb.errors import Fault
from holynb.types import Endpoint, Secret

__all__ = ["Busy", "Served", "busy", "models", "own", "read", "samples"]

#: Seconds to connect, for a look that nobody waits for.
CONNECT_S = 3.0
LONGEST = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Served:
    """A model that a server answers for. `context`: its length in tokens."""

    id: str
    context: int | None = None


@dataclass(frozen=True, slots=True)
class Busy:
    """How busy a server is. `kv`: the share of the KV cache in use, 0 to 1. `memory`: bytes held by its process."""

    running: int | None = None
    waiting: int | None = None
    kv: float | None = None
    memory: int | None = None


#: Field of Busy → the names it goes by; the first that a page holds counts.
NAMES: Mapping[str, tuple[str, ...]] = {
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
#: What replicas say together: the mean of their shares, the sum of everything else.
TOGETHER: Mapping[str, Callable[[list[float]], float]] = {"kv": lambda values: sum(values) / len(values)}

_SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(\{.*\})?\s+(\S+)")


def own(endpoint: Endpoint) -> bool:
    """Whether somebody here runs this server: `vllm/`, `ray/`, and every OpenAI-compatible address on this machine or its network."""
    if endpoint.wire != "openai" or endpoint.route.provider in ("vllm", "ray"):
        return endpoint.wire == "openai"
    host = urlsplit(endpoint.base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".lan"))


async def models(endpoint: Endpoint, secret: Secret | None = None) -> list[Served]:
    """The models of `GET {base}/models`. Raises Fault."""
    value = codec.loads(await _get(endpoint, f"{endpoint.base_url}/models", secret))
    listed = value.get("data") if isinstance(value, Mapping) else None
    if not isinstance(listed, list):
        raise Fault("server", f"{endpoint.base_url}/models lists no models.")
    return [Served(m["id"], _context(m)) for m in listed if isinstance(m, Mapping) and isinstance(m.get("id"), str)]


async def busy(endpoint: Endpoint, secret: Secret | None = None) -> Busy | None:
    """How busy the server is; None where it has no page of metrics. Raises Fault where it cannot be reached."""
    try:
        page = await _get(endpoint, f"{endpoint.base_url.removesuffix('/v1')}/metrics", secret)
    except Fault as fault:
        if fault.status is not None:
            return None
        raise
    found = read(page.decode("utf-8", "replace"))
    return None if found == Busy() else found


def read(page: str) -> Busy:
    """Prometheus text → Busy. Pure."""
    values: dict[str, list[float]] = {}
    for name, value in samples(page.splitlines()):
        values.setdefault(name, []).append(value)
    said: dict[str, Any] = {}
    for field, names in NAMES.items():
        known = next((values[n] for n in names if n in values), None)
        if known is not None:
            together = TOGETHER.get(field, sum)(known)
            said[field] = min(1.0, max(0.0, together)) if field == "kv" else int(together)
    if "kv" not in said and values.get("holynb_kv_total_tokens"):
        said["kv"] = sum(values.get("holynb_kv_used_tokens", [])) / max(1.0, sum(values["holynb_kv_total_tokens"]))
    return Busy(**said)


def samples(lines: Iterable[str]) -> Iterator[tuple[str, float]]:
    """Names and finite values of a page, labels left out."""
    for line in lines:
        found = _SAMPLE.match(line)
        if found is None:
            continue
        try:
            value = float(found.group(3))
        except ValueError:
            continue
        if math.isfinite(value):
            yield found.group(1), value


def _context(model: Mapping[str, Any]) -> int | None:
    """vLLM's, OpenRouter's, Groq's and llama.cpp's names for it."""
    meta = model.get("meta")
    inner = openai.count(meta.get("n_ctx") or meta.get("n_ctx_train")) if isinstance(meta, Mapping) else None
    told = (openai.count(model.get(name)) for name in ("max_model_len", "context_length", "context_window"))
    return next((length for length in told if length), inner)


async def _get(endpoint: Endpoint, url: str, secret: Secret | None) -> bytes:
    client = http.borrow(url)
    try:
        headers = [(k.encode(), v.encode()) for k, v in openai.headers(endpoint, secret).items() if k != "content-type"]
        reply = await client.send("GET", url, headers, connect=CONNECT_S)
        try:
            body = await reply.read(LONGEST)
        finally:
            await reply.aclose()
    finally:
        await http.give_back(client)
    if reply.status != 200:
        fault = openai.classify(reply.status, reply.headers, body)
        if reply.status == 404 and urlsplit(endpoint.base_url).path in ("", "/"):
            fault.message += f". Is its address {endpoint.base_url}/v1?"
            fault.args = (fault.message,)
        if secret is not None:
            fault.message = secret.mask(fault.message)
            fault.args = (fault.message,)
        raise fault
    return body
