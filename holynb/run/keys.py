"""What makes two requests the same, row by row: the key under which an answer stands in the run log. Hashes; reads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from holynb.types import Request, Route

__all__ = ["RequestKeys", "chunked_key"]


def chunked_key(request: Request, address: str, chunk: str) -> str:
    """The key of a row that is asked in chunks: its answer is another one than that to the whole prompt."""
    return request.key(f"{address} --chunk {chunk}")


class RequestKeys:
    """The keys of a plan's rows, each computed once, when it is first needed: ten thousand take a tenth of a second.

    `addresses`: the base URL of each route, which is part of a request's identity. `chunk`: `--chunk`, None without it.
    `long`: rows that are asked in chunks from the start.
    """

    def __init__(
        self, requests: Sequence[Request | None], addresses: Mapping[Route, str], *, chunk: str | None, long: Mapping[int, object]
    ) -> None:
        self._requests, self._addresses = requests, addresses
        self._chunk, self._long = chunk, long
        self._whole: dict[int, str] = {}
        self._chunked: dict[int, str] = {}

    def whole(self, row: int) -> str | None:
        """The key of the row asked in one request; None where it asks nothing."""
        request = self._requests[row]
        if request is not None and row not in self._whole:
            self._whole[row] = request.key(self._addresses[request.route])
        return self._whole.get(row)

    def chunked(self, row: int) -> str | None:
        """The key of the row asked in chunks; None without `--chunk`, and where it asks nothing."""
        request = self._requests[row]
        if request is not None and self._chunk is not None and row not in self._chunked:
            self._chunked[row] = chunked_key(request, self._addresses[request.route], self._chunk)
        return self._chunked.get(row)

    def of(self, row: int) -> str | None:
        """The key of the row as this plan asks it."""
        return self.chunked(row) if row in self._long else self.whole(row)
