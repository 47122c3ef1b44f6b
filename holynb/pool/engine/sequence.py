"""What a batch is made of: sequences, rows, steps. Facts and counters; knows no torch and no policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from holynb.pool.protocol import Job

__all__ = ["Constraint", "PrefillChunk", "Seq", "Step"]


class Constraint(Protocol):
    """What restricts the next token of a sequence. `fault`: why it cannot go on; the sequence must end then."""

    fault: str | None


class Seq:
    """A job and how far it is. Written by its scheduler alone.

    `tokens` are known; `pending` more are sampled but not read back yet; the first `cached` of them are in (or on their way
    to) the KV cache. `ready`: the whole prompt is. `keys` are those of its full blocks, from when it is first admitted; the first `published` of its `blocks` can be found under them. `constraint` says what it may say next; None: anything.
    `found`: prompt tokens that were in the cache when it was admitted. `lane`: which of the batches under way it decodes with; `asked`: the step that sampled it last.
    """

    __slots__ = (
        "asked",
        "blocks",
        "cached",
        "constraint",
        "dead",
        "found",
        "job",
        "keys",
        "lane",
        "pending",
        "published",
        "ready",
        "tokens",
    )

    def __init__(self, job: Job) -> None:
        self.job = job
        self.tokens = list(job.ids)
        self.keys: list[bytes] = []
        self.blocks: list[int] = []
        self.pending = self.cached = self.published = self.found = self.lane = self.asked = 0
        self.dead = False
        self.ready = False
        self.constraint: Constraint | None = None

    @property
    def size(self) -> int:
        """Tokens, the unknown ones counted."""
        return len(self.tokens) + self.pending

    @property
    def spent(self) -> bool:
        """All tokens it may have are sampled or on their way."""
        return self.size - len(self.job.ids) >= self.job.max_new


@dataclass(slots=True)
class PrefillChunk:
    """Tokens `start` to `start + count` of a sequence go through the model; the last one is sampled from where `samples`."""

    seq: Seq
    start: int
    count: int
    samples: bool = True


@dataclass(slots=True)
class Step:
    """One pass through the model. `published` is what this step let others find, and must be forgotten if it fails.

    `lane`: the batch that it is a step of. `mixed`: a row of `decode` was not in that lane's last step.
    """

    decode: list[Seq] = field(default_factory=list)
    prefill: list[PrefillChunk] = field(default_factory=list)
    admitted: list[Seq] = field(default_factory=list)
    published: list[int] = field(default_factory=list)
    lane: int = 0
    mixed: bool = False

    @property
    def sampled(self) -> list[Seq]:
        """The sequences that get a token, in the order of the tokens."""
        return self.decode + [r.seq for r in self.prefill if r.samples]
