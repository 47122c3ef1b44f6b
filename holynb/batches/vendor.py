"""What every provider's batch API is to us: a row's entry, a batch that is submitted, looked up, polled, cancelled, read. Types alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from holynb.errors import Fault
from holynb.types import Request

__all__ = ["Answered", "Candidates", "Lost", "Standing", "Vendor", "words_of"]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a batch stands at its provider.

    state:   `working`; `ended`: its results can be read; `full`: refused, as too much is enqueued; `refused`: for `problem`
    done, n: rows that are done, and all of them, where it says so
    created: seconds since 1970
    results: where they are, in the provider's words
    rest:    what became of rows that its results do not name
    """

    id: str
    state: Literal["working", "ended", "full", "refused"]
    done: int | None = None
    n: int | None = None
    created: float | None = None
    results: tuple[str, ...] = ()
    problem: Fault | None = None
    rest: Literal["error", "expired", "cancelled"] = "error"


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a row. `what`: `answer` (`value` is its JSON), `error` (with the status), `expired`, `cancelled`."""

    custom_id: str
    what: Literal["answer", "error", "expired", "cancelled"]
    value: Any = None
    status: int = 200


@dataclass(frozen=True, slots=True)
class Lost:
    """A batch whose submission got no reply: its key, how many rows, when it began, and the ids that are known to be other batches."""

    key: str
    n: int
    since: float
    others: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Candidates:
    """Batches that may be the lost one, which only their results will tell."""

    ids: tuple[str, ...]


class Vendor(Protocol):
    """One provider's batch API. Raises only Fault, classified and masked."""

    async def entry(self, custom_id: str, request: Request) -> bytes:
        """A row as its batch holds it, with the body that the direct wire would send."""

    async def submit(self, key: str, request: Request, entries: Sequence[bytes]) -> Standing:
        """Submit a batch under this key. `request`: one of its rows, for the model and the address."""

    async def find(self, lost: Lost) -> Standing | Candidates | None:
        """The batch whose submission got no reply; None where there is none."""

    async def poll(self, id: str) -> Standing:  # noqa: A002 - the provider's word
        """How it stands."""

    async def cancel(self, id: str) -> None:  # noqa: A002 - as above
        """Ask for its end. Rows that are done stay so, and are billed."""

    def read(self, standing: Standing) -> AsyncIterator[Answered]:
        """Its results, in any order."""


def words_of(value: Any) -> Mapping[str, Any]:
    """A JSON object, or an empty one in place of anything else."""
    return value if isinstance(value, Mapping) else {}
