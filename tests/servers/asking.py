"""What tests of the wires share: an endpoint at a local server, one request, and what came back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from holynb import engines
from holynb.errors import Fault
from holynb.types import Completion, Delta, Done, Endpoint, Engine, Message, Request, Route, Sampling, Secret, Timeouts

KEY = "sk-test-0123456789abcdef"


def endpoint(base: str, wire: str = "openai", **options: Any) -> Endpoint:
    model = "gemini-3.8-flash" if wire == "vertex" else "gpt-4.1-mini"  # the one wire that looks at the name
    route = Route(options.pop("provider", wire), options.pop("model", model))
    known = {"key_name": f"{wire.upper()}_API_KEY", "key_page": "https://example.com/keys"} | options
    return Endpoint(route, wire, base, **known)


def request(text: str = "안녕?", *, stream: bool = False, row: int = 0, **options: Any) -> Request:
    messages = tuple(Message(role, words) for role, words in options.pop("messages", (("user", text),)))
    return Request(
        row, messages, Route("x", options.pop("model", "gpt-4.1-mini")), Sampling(**options.pop("sampling", {})), stream=stream, **options
    )


async def hear(engine: Engine, sent: Request, connect: float = 5.0) -> tuple[list[str], Done]:
    """The deltas and the Done; the engine is left open."""
    deltas: list[str] = []
    done: list[Done] = []
    stream: AsyncIterator[Delta | Done] = engine.send(sent, Timeouts(connect=connect))
    try:
        async for item in stream:
            assert not done, "something came after Done"
            if isinstance(item, Delta):
                deltas.append(item.text)
            else:
                done.append(item)
    finally:
        await stream.aclose()  # type: ignore[attr-defined]
    return deltas, done[0]


def connect(where: Endpoint, key: str | None = KEY) -> Engine:
    secret = Secret(key, where.key_name or "key") if key else None
    return engines.connect(where, lambda: secret)


def ask(where: Endpoint, sent: Request | None = None, *, key: str | None = KEY) -> tuple[list[str], Completion]:
    """One request on a loop of its own."""

    async def once() -> tuple[list[str], Done]:
        engine = connect(where, key)
        try:
            return await hear(engine, sent or request())
        finally:
            await engine.aclose()

    deltas, done = asyncio.run(once())
    return deltas, done.completion


def refuse(where: Endpoint, sent: Request | None = None, *, key: str | None = KEY) -> Fault:
    """The Fault of a request that fails; no part of the key is in it."""
    with pytest.raises(Fault) as caught:
        ask(where, sent, key=key)
    fault = caught.value
    for text in (str(fault), fault.message, fault.raw or "", repr(fault)):
        assert "\n" not in fault.message
        assert not any(KEY[i : i + 8] in text for i in range(len(KEY) - 7)), text
    return fault


def run(work: Callable[[Engine], Any], where: Endpoint, key: str | None = KEY) -> Any:
    """Several requests through one engine."""

    async def all_of() -> Any:
        engine = connect(where, key)
        try:
            return await work(engine)
        finally:
            await engine.aclose()

    return asyncio.run(all_of())
