"""The requests of many rows, made when they are taken: a row's prompt in the spool, and which of a few kinds it is."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from operator import attrgetter
from typing import Any

from holynb.run.prompt_spool import PromptSpool, Repeated
from holynb.types import Prompt, Request, Route

__all__ = ["StoredRequests", "attaching_rows", "crossed", "has_attachments", "kind_of", "kinds"]

#: Makes the request of a row, its prompt, its route and its sample number.
Made = Callable[[int, Prompt, Route, int], "Request | None"]

#: All of a request but its row and its messages, in order.
_rest = attrgetter(*(f.name for f in fields(Request) if f.name not in ("row", "messages")))


class StoredRequests(Sequence["Request | None"]):
    """Row i asks prompt i // times, as its kind says; None where it asks nothing. Filled by whoever makes the plan, then only read.

    `kinds`: a request of each kind, whose row and messages are not a row's.
    """

    def __init__(self, prompts: PromptSpool, times: int = 1) -> None:
        self.prompts, self.times = prompts, times
        self.kinds: list[Request] = []
        self._rest: list[tuple[Any, ...]] = []
        self._kind = array("I")
        """By row: 0 where nothing is asked, else the number of its kind and 1."""

    def add_kind(self, request: Request | None) -> int:
        """Add a kind; its number."""
        if request is None:
            raise ValueError("a row that asks nothing is of no kind")
        self.kinds.append(replace(request, row=-1, messages=()))
        self._rest.append(_rest(request))
        return len(self.kinds) - 1

    def append(self, kind: int | None) -> None:
        """Add a row of this kind."""
        self._kind.append(0 if kind is None else kind + 1)

    def key(self, row: int, base_url: str) -> str | None:
        """The key of a row's request, which is not made for it."""
        kind = self.kind(row)
        return None if kind is None else kind.key_with(base_url, self.prompts.turns(row // self.times))

    def __len__(self) -> int:
        return len(self._kind)

    def kind(self, row: int) -> Request | None:
        """The row's request without its row and its messages."""
        number = self._kind[row]
        return self.kinds[number - 1] if number else None

    def __getitem__(self, row: int | slice) -> Request | list[Request | None] | None:  # type: ignore[override]
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]  # type: ignore[misc]
        row = row + len(self) if row < 0 else row
        number = self._kind[row]
        if not number:
            return None
        return Request(row, self.prompts.messages(row // self.times), *self._rest[number - 1])


def crossed(
    prompts: list[Prompt] | PromptSpool, asked_of: Sequence[Sequence[Route]], samples: int, request: Made
) -> tuple[Sequence[Prompt], Sequence[Request | None]]:
    """Each prompt × its routes × samples: the prompts of the rows, and their requests, as lists where the prompts are one.

    `request` makes one from the row, its prompt, route and sample number; of many rows, one of each kind.
    """
    if isinstance(prompts, list):
        rows = [(p, r, k) for p, routes in zip(prompts, asked_of, strict=True) for r in routes for k in range(samples)]
        return [p for p, _, _ in rows], [request(i, p, r, k) for i, (p, r, k) in enumerate(rows)]
    times = len(asked_of[0]) * samples
    stored, numbers = StoredRequests(prompts, times), dict[tuple[int, int, Route, int], int]()
    for i, (empty, routes) in enumerate(zip(prompts.empties, asked_of, strict=True)):
        sampling = id(prompts.sampling(i))
        for route in routes:
            for k in range(samples):
                key = sampling, prompts.shapes[i], route, k  # one sampling for all that set the same
                if empty:
                    stored.append(None)
                elif (number := numbers.get(key)) is None:
                    numbers[key] = stored.add_kind(request(i * times, prompts[i], route, k))
                    stored.append(numbers[key])
                else:
                    stored.append(number)
    return (prompts if times == 1 else Repeated(prompts, times)), stored


def has_attachments(requests: Sequence[Request | None]) -> bool:
    """Whether a row may have attachments: of many rows known without a look at each."""
    if isinstance(requests, StoredRequests):
        return requests.prompts.holds_objects
    return any(request is not None and request.attachments for request in requests)


def attaching_rows(requests: Sequence[Request | None]) -> Sequence[Request | None]:
    """The requests, or of many rows without attachments one of each kind."""
    return requests if has_attachments(requests) else kinds(requests)


def kind_of(requests: Sequence[Request | None], row: int) -> Request | None:
    """A row's request, of many rows without what it asks; None where it asks nothing."""
    if type(requests) is list:  # an abstract class costs a call to be told apart
        whole: Request | None = requests[row]
        return whole
    return requests.kind(row) if isinstance(requests, StoredRequests) else requests[row]


def kinds(requests: Sequence[Request | None]) -> Sequence[Request | None]:
    """A request of each kind: enough for what does not look at messages."""
    return requests.kinds if isinstance(requests, StoredRequests) else requests
