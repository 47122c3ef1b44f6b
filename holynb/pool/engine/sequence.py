"""What goes into a batch and comes out of it: sequences, prefill chunks, steps. State and counters; knows no torch and no policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from holynb.pool.engine.acceptance import Acceptance
from holynb.pool.engine.thought_state import ThoughtState
from holynb.pool.protocol import Job, TokenScore

__all__ = ["Constraint", "PrefillChunk", "Seq", "Step", "check_room"]


class Constraint(Protocol):
    """Restricts the next token of a sequence. `fault`: why the constraint cannot go on; the sequence must end then."""

    fault: str | None


class Seq:
    """A job and its progress. Written by its scheduler alone.

    Of its tokens, `tokens` are known to the host, `pending` more are sampled but not read back, and the first `cached` are in (or on their
    way to) the KV cache; `prefilled`: the whole prompt is. `tables` are its block tables, one for each group of layers, of which `blocks`
    is the first; `keys` are the prefix-cache keys of its full blocks (computed when it is first admitted). The first `published` blocks can
    be found under their keys, and the first `unseen` of each table are no longer its own: no token to come sees them. `prefix_hits`: prompt
    tokens that were in the cache when it was admitted. `lane`: the batch in flight that it decodes with; `last_step`: number of the step
    that sampled it last. `constraint` restricts the next token; None: unconstrained. `plain` and `sequential`: as its job is, or no more or
    so where its thinking may have to be ended soon (`thought`). `counts`: of its tokens, where penalties need them. `prompt_scores`: log
    probabilities of the prompt's tokens so far, where asked for. `acceptance`: of its guesses, where it may guess. `finished`: it ended or
    was cancelled.
    """

    __slots__ = (
        "acceptance",
        "blocks",
        "cached",
        "constraint",
        "counts",
        "finished",
        "job",
        "keys",
        "lane",
        "last_step",
        "pending",
        "plain",
        "prefilled",
        "prefix_hits",
        "prompt_scores",
        "published",
        "sequential",
        "tables",
        "thought",
        "tokens",
        "unseen",
    )

    def __init__(self, job: Job) -> None:
        self.job = job
        self.tokens = list(job.ids)
        self.keys: list[bytes] = []
        self.blocks: list[int] = []
        self.tables, self.unseen = [self.blocks], [0]
        self.pending = self.cached = self.published = self.prefix_hits = self.lane = self.last_step = 0
        self.finished = False
        self.prefilled = False
        self.constraint: Constraint | None = None
        self.acceptance: Acceptance | None = None
        self.counts: Any = None
        self.thought = None if job.thinking is None else ThoughtState(job.thinking)
        self.prompt_scores: list[TokenScore] = []
        self.watch(0)

    def watch(self, margin: int) -> None:
        """Set `plain` and `sequential`. `margin`: so many tokens are chosen before the first of them is known, with it."""
        near = self.thought is not None and self.thought.near(margin)
        self.plain, self.sequential = self.job.plain and not near, self.job.sequential or near

    def think(self, token: int, margin: int) -> None:
        """A token came, of a row whose thinking is followed."""
        if self.thought is not None:
            self.thought.take(token)
            self.watch(margin)

    @property
    def answer(self) -> list[int]:
        """The known tokens of the answer itself, without those that were thought."""
        if self.thought is None:
            return self.tokens[len(self.job.ids) :]
        inside = self.thought.thinking or self.thought.begins is not None
        return [] if inside else self.tokens[len(self.job.ids) + self.thought.thought :]

    @property
    def size(self) -> int:
        """Number of tokens, pending ones included."""
        return len(self.tokens) + self.pending

    @property
    def at_limit(self) -> bool:
        """Whether all `max_new` tokens are sampled or pending."""
        return self.size - len(self.job.ids) >= self.job.max_new

    @property
    def scores_prompt(self) -> bool:
        """Whether log probabilities of its prompt are wanted and not all read back."""
        return self.job.prompt_logprobs and len(self.prompt_scores) < len(self.job.ids) - 1


def check_room(job: Job, max_len: int, cache: int) -> None:
    """Raises ValueError, with the sizes, if a job can never fit: in one sequence, or in the tokens of the KV cache."""
    n = len(job.ids)
    if not n or job.max_new < 1:
        raise ValueError(f"nothing to do: {n} prompt tokens, {job.max_new} to write; both must be at least 1")
    if n + job.max_new > max_len:
        raise ValueError(f"{n} prompt tokens and {job.max_new} to write are more than the {max_len} that one sequence can have")
    if n + job.max_new > cache:
        raise ValueError(f"{n} prompt tokens and {job.max_new} to write are more than the {cache} that the KV cache holds")


@dataclass(slots=True)
class PrefillChunk:
    """Tokens `start` to `start + count` of a sequence go through the model; where `samples`, the last one's logits are sampled.

    `scored`: the logits of all of them are wanted, for the prompt's log probabilities. `guesses`: tokens that stand behind the
    sequence's own, and are verified: every one's logits are sampled.
    """

    seq: Seq
    start: int
    count: int
    samples: bool = True
    scored: bool = False
    guesses: tuple[int, ...] = ()

    @property
    def ids(self) -> list[int]:
        """Its tokens."""
        return [*self.seq.tokens[self.start : self.start + self.count], *self.guesses]

    @property
    def logit_rows(self) -> int:
        """How many of its tokens' logits are wanted."""
        return self.count if self.scored or self.guesses else int(self.samples)


@dataclass(slots=True)
class Step:
    """One forward pass. `published`: blocks that this step published, to be unpublished if it fails.

    `lane`: the batch in flight that it is a step of. `mixed`: a row of `decode` was not in that lane's last step. `plain`: all rows
    are sampled from the logits as they are. `logit_rows`: how many rows of logits its prompt chunks want. `guesses`: of each row of
    `decode`, in a step that verifies some; it is read back before another is planned, with a token for each guess and one more a row.
    """

    decode: list[Seq] = field(default_factory=list)
    prefill: list[PrefillChunk] = field(default_factory=list)
    admitted: list[Seq] = field(default_factory=list)
    published: list[int] = field(default_factory=list)
    lane: int = 0
    mixed: bool = False
    plain: bool = True
    logit_rows: int = 0
    guesses: list[tuple[int, ...]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many tokens it decodes, guesses included."""
        return len(self.decode) + sum(map(len, self.guesses))

    @property
    def sampled(self) -> list[Seq]:
        """The sequences that get a token, in the order of the tokens."""
        return self.decode + [chunk.seq for chunk in self.prefill if chunk.samples]
