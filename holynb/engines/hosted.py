"""An engine for a server on the network: one request, one conversation over HTTP, one answer or one Fault. Knows no wire's JSON.

A wire is a table of pure functions (`Wire`); this module does for all of them what is not pure: connections, streams that are read to
their end so that the connection serves the next request, keys that stay out of every message, and parameters a model turned out not to take.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from holynb.config import settings, suggest
from holynb.engines import codec, http
from holynb.engines.answer import StreamReader
from holynb.engines.classify import malformed
from holynb.errors import BadSetting, Fault
from holynb.types import Completion, Delta, Done, Endpoint, Limits, Request, Secret, Timeouts

__all__ = ["Hosted", "Traits", "Wire", "encoded"]

#: Seconds that a finished stream may take to end. Breaking it off costs the connection, and against https a handshake for the next answer.
TAIL_S = 2.0

#: What a model at an address was found to take or not to take, as words of its wire.
Traits = frozenset[str]

#: (base URL, model) → what it taught us. Written by the io loop; a refusal teaches once per session, not once per row.
_learned: dict[tuple[str, str], Traits] = {}


@dataclass(frozen=True, slots=True)
class Wire:
    """How one protocol is spoken. All pure: the same arguments, the same result.

    read:     the JSON of a whole answer → Completion. Raises Fault.
    answer:   a fold for one stream.
    classify: status (not 200), headers, body → Fault.
    learn:    traits and the Fault of a refused request → traits that may be taken; the same where nothing was learned.
    streams:  the content types that `answer` reads.
    """

    url: Callable[[Endpoint, Request], str]
    headers: Callable[[Endpoint, Secret | None], Mapping[str, str]]
    body: Callable[[Request, Traits], dict[str, Any]]
    read: Callable[[Any], Completion]
    answer: Callable[[], StreamReader]
    classify: Callable[[int, Mapping[str, str], bytes], Fault]
    limits: Callable[[Mapping[str, str]], Limits | None]
    traits: Callable[[Endpoint], Traits] = lambda endpoint: frozenset()
    learn: Callable[[Traits, Fault], Traits] = lambda traits, fault: traits
    streams: tuple[str, ...] = ("text/event-stream",)


class Hosted:
    """One endpoint over one wire. Owned by the io loop; raises Fault alone, named and masked."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None], wire: Wire) -> None:
        self.endpoint = endpoint
        self._key = key
        self._wire = wire
        self._client: http.Client | None = None
        self._secret: Secret | None = None
        self._headers: Callable[[], list[tuple[bytes, bytes]]] | None = None

    async def ready(self, notice: Callable[[str], None]) -> None:
        """Nothing to prepare: the first request opens the first connection."""

    async def aclose(self) -> None:
        """Give the connections back. The engine may be used again."""
        client, self._client = self._client, None
        if client is not None:
            await http.give_back(client)

    async def send(self, request: Request, timeouts: Timeouts) -> AsyncGenerator[Delta | Done, None]:
        """The answer: Deltas where streamed, then one Done. Raises Fault."""
        secret, traits = self._key(), self._traits()
        answer: StreamReader | None = None
        try:
            reply = await self._post(request, traits, secret, timeouts)
            try:
                limits = self._wire.limits(reply.headers)
                if reply.status != 200:
                    raise self._wire.classify(reply.status, reply.headers, await reply.read())
                if reply.headers.get("content-type", "").startswith(self._wire.streams):
                    answer = self._wire.answer()
                    while not answer.finished and (data := await reply.chunk()):
                        text = answer.feed(data)
                        if request.stream and text is not None:
                            yield Delta(text if secret is None else secret.mask_answer(text))
                    await _drain(reply, answer)
                    completion = answer.end()
                else:
                    completion = self._whole(await reply.read())
            finally:
                await reply.aclose()
        except Fault as fault:
            if answer is not None and fault.usage is None and answer.usage != type(answer.usage)():
                fault.usage = answer.usage
            self._learn(fault, traits)
            self._tell(fault, secret)
            raise fault from None
        yield Done(completion if secret is None else _without(completion, secret), limits)

    # -- out -----------------------------------------------------------------------------------------------------------
    async def _post(self, request: Request, traits: Traits, secret: Secret | None, timeouts: Timeouts) -> http.Reply:
        url = self._url(request)
        body = codec.dumps(self._wire.body(request, traits))
        if self._client is None:
            self._client = http.borrow(url)
        return await self._client.send("POST", url, await self._head(url, body, secret), body, connect=timeouts.connect)

    def _url(self, request: Request) -> str:
        return self._wire.url(self.endpoint, request)

    async def _head(self, url: str, body: bytes, secret: Secret | None) -> list[tuple[bytes, bytes]]:  # noqa: ARG002 - signed by some wires
        """The headers, encoded once for a key. Kept inside a function: nothing that looks at an engine's fields shows them."""
        if self._headers is None or secret is not self._secret:
            made = encoded(self._wire.headers(self.endpoint, secret))
            self._headers, self._secret = lambda: made, secret
        return self._headers()

    # -- in ------------------------------------------------------------------------------------------------------------
    def _whole(self, body: bytes) -> Completion:
        try:
            value = codec.loads(body)
        except ValueError as exc:
            what = "something that is not JSON" if body.strip() else "nothing"
            raise malformed(body, f"200, but with {what}") from exc
        return self._wire.read(value)

    # -- what a refusal teaches ----------------------------------------------------------------------------------------
    def _traits(self) -> Traits:
        found = _learned.get((self.endpoint.base_url, self.endpoint.route.model))
        return self._wire.traits(self.endpoint) if found is None else found

    def _learn(self, fault: Fault, used: Traits) -> None:
        """Where the request was refused for how it was written, write it otherwise the next time, and say that there may be one."""
        if fault.kind != "bad_request":
            return
        now = self._traits()
        if now == used:
            # Requests that were under way together are all refused; the first of them teaches.
            now = _learned[self.endpoint.base_url, self.endpoint.route.model] = self._wire.learn(used, fault)
        if now != used:
            fault.retry, fault.wait = True, 0.0

    # -- words ---------------------------------------------------------------------------------------------------------
    def _tell(self, fault: Fault, secret: Secret | None) -> None:
        """Name the endpoint, say what to do next, and take the key out of everything."""
        message = _named(fault, self.endpoint, keyed=secret is not None)
        if secret is not None:
            message = secret.mask(message)
            fault.raw = secret.mask(fault.raw) if fault.raw is not None else None
        fault.message, fault.args = message, (message,)


async def _drain(reply: http.Reply, answer: StreamReader) -> None:
    """Read a finished stream to its end, so that its connection can serve again; the usage may still come."""
    try:
        async with asyncio.timeout(TAIL_S):
            while data := await _rest(reply):
                answer.feed(data)
    except TimeoutError:
        pass  # the answer is whole; only the connection is lost


async def _rest(reply: http.Reply) -> bytes:
    try:
        return await reply.chunk()
    except Fault:
        return b""  # broken after the last word of the answer


def _named(fault: Fault, endpoint: Endpoint, *, keyed: bool) -> str:
    provider, words = endpoint.route.provider, fault.message
    if fault.kind == "connection" or (fault.status is None and fault.kind == "timeout"):
        return words
    if fault.status is None:
        return f"{provider}: {words}"
    page = f" Get one at {endpoint.key_page}" if endpoint.key_page else " Get one"
    if fault.kind == "auth" and keyed:
        return f"{provider} refused the key in {endpoint.key_name} ({words}).{page}, then set it with %infer key {provider}."
    if fault.kind == "auth":
        name = endpoint.key_name or "an environment variable (--api-key-name)"
        return f"{provider} wants a key, and none is set ({words}).{page} and put it in {name}, or use %infer key {provider}."
    if fault.kind == "quota":
        return f"{provider} says that the credit is used up ({words}). No attempt more was made."
    if fault.kind == "not_found":
        return f"{endpoint.base_url} has no model {endpoint.route.model}, or is not the right address ({words}).{_near(endpoint)}"
    return f"{provider} answered {words}"


def _near(endpoint: Endpoint) -> str:
    """What may be meant: the address with its version, or another model."""
    if endpoint.wire == "openai" and urlsplit(endpoint.base_url).path in ("", "/"):
        return f" Is it {endpoint.base_url}/v1?"
    try:
        return suggest.model(endpoint.route, settings.providers(), refused=True)
    except BadSetting:  # a file that was changed while the run goes on
        return ""


def _without(said: Completion, secret: Secret) -> Completion:
    """The answer as it is; without the key, where a server tells it back."""
    text, model = secret.mask_answer(said.text), said.model and secret.mask_answer(said.model)
    return said if text is said.text and model is said.model else replace(said, text=text, model=model)


def encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as they go out."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
