"""What an engine is asked beside answers that come one by one: the body of a request, what a reply means, calls that ask no model.

A batch API takes the same bodies and gives the same answers as the direct wire; here it gets them of the engine of its endpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from holynb.engines import codec, entry, http, loading, tags
from holynb.errors import Fault
from holynb.types import Completion, Request

if TYPE_CHECKING:
    from holynb.engines.thinking import Traits
    from holynb.secret import Mask
    from holynb.types import Endpoint, Secret

__all__ = ["Calls"]


class Calls:
    """The side of `hosted.Hosted` that is about neither streams nor retries."""

    if TYPE_CHECKING:
        endpoint: Endpoint
        _wire: Any
        _client: http.Client | None
        _secret: Secret | None
        _mask: Mask | None

        async def _authorized(self) -> Secret | None: ...
        async def _request_headers(self, url: str, body: bytes, secret: Secret | None) -> list[tuple[bytes, bytes]]: ...
        def _traits(self) -> Traits: ...
        def _url(self, request: Request, wire: Any) -> str: ...
        def _adapt(self, fault: Fault, used: Traits, request: Request) -> None: ...
        def _describe(self, fault: Fault, secret: Secret | None) -> None: ...
        def _mask_of(self, secret: Secret | None) -> Mask | None: ...

    def address(self, request: Request) -> str:
        """Where this request would be sent now."""
        return self._url(request, self._wire.of(self._traits()))

    async def written(self, request: Request, around: Callable[[Any], Any]) -> bytes:
        """The JSON with which this request would be sent now, with what `around` puts around it. Raises Fault."""
        wire = self._wire.of(traits := self._traits())
        spoken = wire.name or self.endpoint.wire
        async with loading.written(request, spoken, lambda r: codec.dumps(around(wire.body(r, traits)))) as data:
            return bytes(data)

    def heard(self, value: Any) -> Completion:
        """A whole answer from its JSON, as `send` gives it. Raises Fault."""
        try:
            return entry.admit(tags.apart(self._wire.of(self._traits()).read(value), self.endpoint), self._mask)
        except Fault as fault:
            self._describe(fault, self._secret)
            raise fault from None

    @property
    def written_with(self) -> Traits:
        """What requests are written with now: the traits of the model as far as they are known."""
        return self._traits()

    def cleaned(self, value: Any) -> Any:
        """What a server says beside an answer: every string masked and cleaned, at any depth."""
        return entry.admit_words(value, self._mask)

    def refused(self, request: Request, status: int, value: Any, used: Traits | None) -> Fault:
        """The Fault of a request that was refused with this JSON. What it teaches is learned: the next one is written differently.

        `used`: what it was written with; None: an earlier kernel wrote it, which knew what the provider's settings say.
        """
        traits = self._wire.traits(self.endpoint) if used is None else used
        fault: Fault = self._wire.of(traits).classify(status, {}, codec.dumps(value))
        self._adapt(fault, traits, request)
        self._describe(fault, self._secret)
        return fault

    async def call(self, method: str, url: str, body: bytes | None = None, content_type: str = "", limit_s: float = 60.0) -> http.Reply:
        """The reply to a request that asks no model; to be closed. Raises Fault for any status but 2xx."""
        secret = await self._authorized()
        self._mask_of(secret)
        headers = [(n, v) for n, v in await self._request_headers(url, body or b"", secret) if n != b"content-type" or body is not None]
        if content_type:
            headers = [(n, content_type.encode() if n == b"content-type" else v) for n, v in headers]
        try:
            if self._client is None:
                self._client = http.borrow(url)
            async with asyncio.timeout(limit_s):
                reply = await self._client.send(method, url, headers, body)
                if reply.status // 100 == 2:
                    return reply
                try:
                    raise self._wire.classify(reply.status, reply.headers, await reply.read())
                finally:
                    await reply.aclose()
        except TimeoutError:
            raise Fault("timeout", f"{self.endpoint.route.provider} did not answer within {limit_s:g} s") from None
        except Fault as fault:
            self._describe(fault, secret)
            raise fault from None
