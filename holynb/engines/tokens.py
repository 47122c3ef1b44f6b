"""Tokens of a login: fetched in a thread, one fetch for all who wait, kept until shortly before they expire. Knows no vendor, no HTTP."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from holynb.errors import Fault
from holynb.types import Secret

__all__ = ["Token", "Tokens"]

#: Seconds before its end from which on a token is fetched anew: a request may wait that long before it is read.
MARGIN_S = 300.0
#: Seconds for which a token is new: one that is refused then is refused for who it names, and a later one ended early or was taken back.
FRESH_S = 60.0
#: Longest wait for a token: a login that asks the machine's own identity may ask an address that does not answer.
FETCH_S = 60.0


#: How long a token's text may be: a header's longest line.
MAX_CHARS = 2**16


@dataclass(frozen=True, slots=True)
class Token:
    """A token, and when it ends (seconds since 1970)."""

    secret: Secret
    expires: float

    @classmethod
    def read(cls, text: Any, name: str, expires: float) -> Token:
        """From what a login gave. Raises ValueError, which does not show it, where that can be no token: it would go into a header."""
        if not isinstance(text, str) or not text:
            raise ValueError("what it returned is not text")
        if len(text) > MAX_CHARS or not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError("it contains characters that no token has, or too many")
        return cls(Secret(text, name), expires)


class Tokens:
    """The tokens of one engine. Owned by the io loop. `fetch` runs in a thread and raises Fault, in one line that says what to do."""

    def __init__(self, fetch: Callable[[], Token], title: str) -> None:
        self._fetch, self._title = fetch, title
        self._token: Token | None = None
        self._fetched, self._renewable = 0.0, False
        self._fetching: asyncio.Future[Token] | None = None

    async def get(self) -> Secret:
        """A token that holds for some minutes. Raises Fault."""
        token = self._token
        if token is None or token.expires - time.time() < MARGIN_S:
            token = await self._one_fetch()
            if token is not self._token:
                self._token, self._fetched = token, time.monotonic()
        return token.secret

    def forget(self, secret: Secret) -> bool:
        """Drop this token: it was refused. Returns whether another may be taken: it was held for a while before."""
        if self._token is not None and self._token.secret is secret:  # else another row has dropped it
            self._token, self._renewable = None, time.monotonic() - self._fetched > FRESH_S
        return self._renewable

    async def _one_fetch(self) -> Token:
        """The fetch that is in flight, or a new one. Who gives up waiting does not end it for the others."""
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.ensure_future(asyncio.to_thread(self._fetch))
            self._fetching.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to hear of it
        try:
            async with asyncio.timeout(FETCH_S):
                return await asyncio.shield(self._fetching)
        except Fault as fault:
            raise copy.copy(fault) from None  # each row has its own, which its scheduler writes on
        except TimeoutError:
            raise Fault("connection", f"the {self._title} login gave no token within {FETCH_S:g} s.") from None
