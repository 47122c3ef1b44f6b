"""What makes two requests the same, row by row: the key under which an answer stands in the run log. Hashes; reads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from holynb.config.model_traits import HOSTED_MAX_TOKENS
from holynb.run.stored_requests import StoredRequests, kind_of
from holynb.spool import MANY
from holynb.types import Request, Route

__all__ = ["KeyTable", "RequestKeys", "chunked_key"]

#: Bytes of a key; one that is all zeros is none.
KEY_BYTES = 32
NO_KEY = bytes(KEY_BYTES)


def chunked_key(request: Request, address: str, chunk: str) -> str:
    """The key of a row that is asked in chunks: its answer is another one than that to the whole prompt."""
    return request.key(f"{address} --chunk {chunk}")


class KeyTable:
    """Row → key of many rows, 32 bytes each. Like a dict as far as it is used here."""

    def __init__(self, n: int) -> None:
        self._bytes = bytearray(KEY_BYTES * n)

    def __contains__(self, row: int) -> bool:
        return self.bytes(row) != NO_KEY

    def bytes(self, row: int) -> bytes:
        """The key as bytes; NO_KEY where there is none."""
        return bytes(self._bytes[KEY_BYTES * row : KEY_BYTES * (row + 1)])

    def get(self, row: int) -> str | None:
        key = self.bytes(row)
        return None if key == NO_KEY else key.hex()

    def __setitem__(self, row: int, key: str) -> None:
        self._bytes[KEY_BYTES * row : KEY_BYTES * (row + 1)] = bytes.fromhex(key)


class RequestKeys:
    """The keys of a plan's rows, each computed once, when it is first needed: ten thousand take a tenth of a second.

    `addresses`: what answers on each route (`Plan`), which is part of a request's identity. `chunk`: `--chunk`, None without it.
    `long`: rows that are asked in chunks from the start.
    """

    def __init__(
        self, requests: Sequence[Request | None], addresses: Mapping[Route, str], *, chunk: str | None, long: Mapping[int, object]
    ) -> None:
        self._requests, self._addresses = requests, addresses
        self._chunk, self._long = chunk, long
        n = len(requests)
        self._whole: dict[int, str] | KeyTable = {} if n < MANY else KeyTable(n)
        self._chunked: dict[int, str] | KeyTable = {} if n < MANY or chunk is None else KeyTable(n)
        self._older: dict[int, tuple[str, ...]] = {}

    def whole(self, row: int) -> str | None:
        """The key of the row asked in one request; None where it asks nothing."""
        if (known := self._whole.get(row)) is not None:
            return known
        if (kind := kind_of(self._requests, row)) is None:
            return None
        address = self._addresses[kind.route]
        key = self._requests.key(row, address) if isinstance(self._requests, StoredRequests) else kind.key(address)
        if key is not None:
            self._whole[row] = key
        return key

    def chunked(self, row: int) -> str | None:
        """The key of the row asked in chunks; None without `--chunk`, and where it asks nothing."""
        if self._chunk is None or (request := self._requests[row]) is None:
            return None
        if row not in self._chunked:
            self._chunked[row] = chunked_key(request, self._addresses[request.route], self._chunk)
        return self._chunked.get(row)

    def of(self, row: int) -> str | None:
        """The key of the row as this plan asks it."""
        return self.chunked(row) if row in self._long else self.whole(row)

    def older(self, row: int) -> tuple[str, ...]:
        """The keys under which a log of an older holynb may hold an answer to this row: there all models had the same longest answer.

        Empty where a longest answer or `--think` was given: the first changes no key, the second had none then.
        """
        if row not in self._older and len(self._requests) >= MANY:
            return self._find_older(row)  # looked for once or twice; kept, they would be larger than all else of a row
        if row not in self._older:
            self._older[row] = self._find_older(row)
        return self._older[row]

    def _find_older(self, row: int) -> tuple[str, ...]:
        kind = kind_of(self._requests, row)
        if kind is None or not kind.default_limit or kind.sampling.think is not None:
            return ()
        if kind.sampling.max_tokens in (None, HOSTED_MAX_TOKENS) or kind.route.provider == "pool":
            return ()
        if (request := self._requests[row]) is None:
            return ()
        then = replace(request, sampling=replace(request.sampling, max_tokens=HOSTED_MAX_TOKENS))
        address = self._addresses[request.route]
        chunked = () if self._chunk is None else (chunked_key(then, address, self._chunk),)
        return chunked if row in self._long else (then.key(address), *chunked)
