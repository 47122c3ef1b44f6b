"""An engine for a server on the network: one request, one HTTP exchange, one answer or one Fault. Knows no wire's JSON.

A wire is a table of pure functions (`Wire`); this module does what is not pure for all of them: connections, streams that are read to their
end so that the connection is reused, keys that stay out of every message, and parameters that a model turned out not to take.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from holynb.engines import advice, cache_marks, codec, entry, http, loading, service_tiers, tags, thinking
from holynb.engines.answer import StreamReader, max_chars, max_stream_bytes, too_long
from holynb.engines.calls import Calls
from holynb.engines.classify import malformed
from holynb.engines.thinking import Traits
from holynb.errors import Fault
from holynb.secret import AnswerStream, Mask
from holynb.types import Completion, Delta, Done, Endpoint, Limits, Request, Secret, Timeouts

__all__ = ["Hosted", "Traits", "Wire", "encoded"]

#: Longest wait for the end of a finished stream. Breaking it off costs the connection, and with https a handshake for the next request.
DRAIN_S = 2.0

#: (base URL, model) → its traits. Written by the io loop; a refusal is learned once per session, not once per row.
_traits_by_model: dict[tuple[str, str], Traits] = {}


@dataclass(frozen=True, slots=True)
class Wire:
    """One protocol as pure functions.

    read:     the JSON of a whole answer → Completion. Raises Fault.
    answer:   a new reader for one stream.
    classify: status (not 200), headers, body → Fault.
    adapt:    traits and the Fault of a refused request → traits for the next one; the same where the fault says nothing about them.
    streams:  the content types that `answer` reads.
    other:    a trait, and the wire that models with it are asked over.
    name:     what it is called where it is not the endpoint's own.
    tier:     the service tier that a reply's headers name, for servers that do not name it in the answer.
    counted:  an answer with the usage that they name, likewise.
    """

    url: Callable[[Endpoint, Request], str]
    headers: Callable[[Endpoint, Secret | None], Mapping[str, str]]
    body: Callable[[Request, Traits], dict[str, Any]]
    read: Callable[[Any], Completion]
    answer: Callable[[], StreamReader]
    classify: Callable[[int, Mapping[str, str], bytes], Fault]
    limits: Callable[[Mapping[str, str]], Limits | None]
    traits: Callable[[Endpoint], Traits] = lambda endpoint: frozenset()
    adapt: Callable[[Traits, Fault], Traits] = lambda traits, fault: traits
    streams: tuple[str, ...] = ("text/event-stream",)
    other: tuple[str, Wire] | None = None
    name: str | None = None
    tier: Callable[[Mapping[str, str]], str | None] = lambda headers: None
    counted: Callable[[Completion, Mapping[str, str]], Completion] = lambda completion, headers: completion

    def of(self, traits: Traits) -> Wire:
        """The wire of a model with these traits."""
        return self.other[1] if self.other is not None and self.other[0] in traits else self


class Hosted(Calls):
    """One endpoint over one wire. Owned by the io loop. Raises only Fault, with the endpoint named and the key masked."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None], wire: Wire) -> None:
        self.endpoint = endpoint
        self._key = key
        self._wire = wire
        self._client: http.Client | None = None
        self._secret: Secret | None = None
        self._masked: tuple[Secret, ...] = ()
        self._mask: Mask | None = None
        self._cached_headers: Callable[[], list[tuple[bytes, bytes]]] | None = None
        self._notice: Callable[[str], None] | None = None
        self._noticed: set[str] = set()
        self._seen: Traits = frozenset()

    async def ready(self, notice: Callable[[str], None]) -> None:
        """Nothing to prepare: the first request opens the first connection. `notice` gets what its answers teach."""
        self._notice = notice

    async def aclose(self) -> None:
        """Give the connections back. The engine can be used again."""
        client, self._client = self._client, None
        if client is not None:
            await http.give_back(client)

    async def send(self, request: Request, timeouts: Timeouts) -> AsyncGenerator[Delta | Done, None]:
        """The answer: Deltas where streamed, then one Done. Raises Fault."""
        secret, traits = await self._authorized(), self._traits()
        wire = self._wire.of(traits)
        if traits != self._seen or (traits and request.sampling.think is not None):
            self._tell(request, traits)
        answer: StreamReader | None = None
        tiers = request.tiers
        try:
            reply = await self._post(service_tiers.worded(request, self.endpoint) if tiers else request, traits, secret, timeouts)
            try:
                limits = wire.limits(reply.headers)
                if reply.status != 200:
                    raise wire.classify(reply.status, reply.headers, await reply.read())
                if reply.headers.get("content-type", "").startswith(wire.streams):
                    answer = wire.answer()
                    answer.max_chars, left = max_chars(request.sampling), max_stream_bytes(request.sampling)
                    answer.silent_end = self.endpoint.options.get("finish_reason") is False
                    answer.tags = tags.splitter_for(self.endpoint)
                    mask = self._mask_of(secret)
                    shown, thoughts = (mask.stream(), mask.stream()) if mask is not None and request.stream else (None, None)
                    until: float | None = None  # a finished stream is read to its end, so that its connection is reused
                    while data := await (reply.chunk() if until is None else _late_chunk(reply, until)):
                        text = answer.feed(data)
                        if (left := left - len(data)) < 0:
                            raise too_long(f"{max_stream_bytes(request.sampling):,} bytes")
                        if request.stream and text is not None:
                            piece = shown.feed(text) if shown is not None and text else text
                            yield Delta(piece) if text and not answer.unseen else _thinking(piece, answer, thoughts)
                        if not answer.finished:
                            until = None  # its text goes on after a reason
                        elif until is None:
                            until = asyncio.get_running_loop().time() + DRAIN_S
                    completion = answer.end()
                    if shown is not None and thoughts is not None and any(rest := (shown.end(), thoughts.end())):
                        yield Delta(*rest)
                else:
                    completion = tags.apart(wire.read(_parsed(await reply.read())), self.endpoint)
                    completion = wire.counted(completion, reply.headers)
                completion = service_tiers.named(completion, wire.tier(reply.headers), self.endpoint, tiers)
            finally:
                await reply.aclose()
        except Fault as fault:
            if answer is not None and fault.usage is None and answer.usage != type(answer.usage)():
                fault.usage = answer.usage
            if fault.usage is not None:
                fault.tier = service_tiers.served(None if answer is None else answer.tier, self.endpoint, tiers)
            service_tiers.mark(fault, tiers)
            self._adapt(fault, traits, request)
            self._describe(fault, secret)
            raise fault from None
        yield entry.admit(Done(completion, limits), self._mask_of(secret))

    # -- out -----------------------------------------------------------------------------------------------------------
    async def _post(self, request: Request, traits: Traits, secret: Secret | None, timeouts: Timeouts) -> http.Reply:
        wire = self._wire.of(traits)
        url = self._url(request, wire)
        if self._client is None:
            self._client = http.borrow(url)
        if not request.attachments:  # as nearly every request: what attachments need is not even asked
            data = codec.dumps(wire.body(request, traits))
            return await self._client.send("POST", url, await self._request_headers(url, data, secret), data, connect=timeouts.connect)
        async with loading.written(request, wire.name or self.endpoint.wire, lambda r: codec.dumps(wire.body(r, traits))) as body:
            return await self._client.send("POST", url, await self._request_headers(url, body, secret), body, connect=timeouts.connect)

    async def _authorized(self) -> Secret | None:
        """What goes along with a request, None for nothing. Raises Fault."""
        return self._key()

    def _url(self, request: Request, wire: Wire) -> str:
        return wire.url(self.endpoint, request)

    async def _request_headers(
        self,
        url: str,  # noqa: ARG002 - signed by some wires
        body: codec.Body,  # noqa: ARG002 - signed by some wires
        secret: Secret | None,
    ) -> list[tuple[bytes, bytes]]:
        """The headers, encoded once per key. Cached in a closure, so that a dump of the engine's fields does not show the key."""
        if self._cached_headers is None or secret is not self._secret:
            headers = encoded(self._wire.headers(self.endpoint, secret))
            self._cached_headers, self._secret = lambda: headers, secret
        return self._cached_headers()

    # -- traits --------------------------------------------------------------------------------------------------------
    def _traits(self) -> Traits:
        traits = _traits_by_model.get((self.endpoint.base_url, self.endpoint.route.model))
        return self._wire.traits(self.endpoint) if traits is None else traits

    def _adapt(self, fault: Fault, used: Traits, request: Request) -> None:
        """After a refusal that changes the traits, mark the fault as retryable at once: the next request is written differently."""
        if fault.kind not in ("bad_request", "not_found"):
            return
        current = self._traits()
        if current == used:
            # Requests in flight together are all refused; only the first changes the traits.
            wire = self._wire.of(used)
            current = cache_marks.learned(wire.adapt(used, fault), fault, request)
            if current == used:
                current = thinking.learned(used, fault, request, wire.name or self.endpoint.wire)
            _traits_by_model[self.endpoint.base_url, self.endpoint.route.model] = current
        if current != used:
            fault.retry, fault.stops, fault.wait = True, False, 0.0

    def _tell(self, request: Request, traits: Traits) -> None:
        """Say once a run what its requests leave out since a refusal taught it; what was known before, the plan says."""
        self._seen, spoken = traits, self._wire.of(traits).name or self.endpoint.wire
        refused = [n for n in ("temperature", "top_p") if f"no {n}" in traits and getattr(request.sampling, n) is not None]
        lines = [f"{self.endpoint.route} does not take {name}, so it is left out." for name in refused]
        if (words := thinking.note(request, spoken, traits)) is not None and words != thinking.note(request, spoken):
            lines.append(words)
        for line in lines:
            if self._notice is not None and (gist := thinking.gist(line)) not in self._noticed:
                self._noticed.add(gist)
                self._notice(line)

    # -- messages ------------------------------------------------------------------------------------------------------
    def _describe(self, fault: Fault, secret: Secret | None) -> None:
        """Add the endpoint and what to do next to the fault's message, and mask the key."""
        fault.message = self._advise(fault, secret)
        entry.admit_fault(fault, self._mask_of(secret))

    def _advise(self, fault: Fault, secret: Secret | None) -> str:
        """The fault's message with the endpoint, and what to do next."""
        return advice.with_advice(fault, self.endpoint, keyed=secret is not None)

    def _secrets(self, secret: Secret | None) -> tuple[Secret, ...]:
        """What a reply must not tell: all that was sent."""
        return () if secret is None else (secret,)

    def _mask_of(self, secret: Secret | None) -> Mask | None:
        secrets = self._secrets(secret)
        if secrets != self._masked:
            self._masked, self._mask = secrets, Mask(secrets) if secrets else None
        return self._mask


def _thinking(text: str, answer: StreamReader, mask: AnswerStream | None) -> Delta:
    """A piece with what was thought since the last one, and how many tokens that was so far, where the server keeps count."""
    thoughts = answer.take_thoughts()
    return Delta(text, mask.feed(thoughts) if mask is not None and thoughts else thoughts, answer.usage.tokens_reasoning)


def _parsed(body: bytes) -> Any:
    """The JSON of a whole answer. Raises Fault."""
    try:
        return codec.loads(body, strict=True)
    except codec.NotUTF8 as exc:
        raise malformed(b"", "200, but its text is not UTF-8, and its content-type names no charset", retry=False) from exc
    except ValueError as exc:
        what = "something that is not JSON" if body.strip() else "nothing"
        raise malformed(body, f"200, but with {what}") from exc


async def _late_chunk(reply: http.Reply, until: float) -> bytes:
    """What still comes of a finished stream: its usage, perhaps. Nothing where it takes too long, or breaks: the answer is whole."""
    try:
        async with asyncio.timeout_at(until):
            return await reply.chunk()
    except (TimeoutError, Fault):
        return b""


def encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as sent."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
