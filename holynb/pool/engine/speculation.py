"""Speculative decoding (Leviathan et al. 2023, arXiv:2211.17192) by prompt lookup: which rows guess how far in a step, and what came of it.

A guessed token goes through the model behind the row's last one, as a row of the batch with the same block table and the next place. What
is sampled at each place is what would have been sampled there anyway: noise depends on seed and place alone. So guesses are right up to
the first that differs from it, and the row says the same tokens as without them, greedy or sampled: a guess g is kept with probability
p(g), and what stands in its place otherwise is distributed as p without g.
Knows steps, blocks and times; no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from holynb.pool.engine import blocktables
from holynb.pool.engine.acceptance import MAX_GUESSES, Acceptance
from holynb.pool.engine.cache import BlockAllocator
from holynb.pool.engine.sequence import Seq, Step
from holynb.pool.engine.steptimes import StepTimes
from holynb.pool.protocol import Emit

__all__ = ["Speculation", "joined"]

#: With more rows a step is no longer bound by reading the weights: every guess then costs as much as a token.
MAX_ROWS = 8

#: Tokens that go through the model in one step, guesses included.
_MAX_TOKENS = 32

#: How far rows guess; with their own tokens these fill the captured sizes.
_DEPTHS = (MAX_GUESSES, 7, 3, 1)

#: A step is to bring so much more than its time would bring otherwise.
_MIN_GAIN = 1.05

#: What it costs each row, in steps, if guesses are waited for and then there are none.
_WAIT_COST = 0.2


class Speculation:
    """Owned by one scheduler of one lane. `most`: tokens that a decode batch has room for; 0: nobody guesses."""

    def __init__(self, most: int = _MAX_TOKENS, times: StepTimes | None = None) -> None:
        self.most, self.times = min(most, _MAX_TOKENS), times or StepTimes()
        self.guessed = self.accepted = 0
        self._waited = False

    def choose(self, rows: Sequence[Seq], margin: int) -> list[int]:
        """How many tokens each of these rows should guess next; empty: none at all. All of them must be known to the host first.

        Only where all that there is to do is to decode. `margin`: so many tokens are chosen before a thought is ended.
        """
        if not self.most or len(rows) > MAX_ROWS or not all(seq.prefilled and not seq.at_limit for seq in rows):
            return []
        most = [_room(seq, margin) for seq in rows]
        chosen = self._worthwhile(rows, most) if any(most) else []
        if self._waited and not chosen:
            for seq in rows:
                _charge(seq, _WAIT_COST)
        self._waited = bool(chosen) and any(seq.pending for seq in rows)
        return chosen

    def _worthwhile(self, rows: Sequence[Seq], most: Sequence[int]) -> list[int]:
        """What brings the most tokens in its time, if that is more than without guesses and no row loses more than it may."""
        spare = [_spare(seq) for seq in rows]
        if min(spare) < 0:  # bad luck counts, whatever is expected now
            return []
        expected = [[1.0] if seq.acceptance is None else seq.acceptance.expected(n) for seq, n in zip(rows, most, strict=True)]
        best, chosen = _MIN_GAIN, list[int]()
        for depth in _DEPTHS:
            counts = [min(depth, room) for room in most]
            tokens = len(rows) + sum(counts)
            if tokens > self.most:
                continue
            cost = self.times.cost(len(rows), tokens)
            brought = [its[n] for its, n in zip(expected, counts, strict=True)]
            gain = sum(brought) / len(rows) / cost
            if gain > best and all(cost - brings <= its for brings, its in zip(brought, spare, strict=True)):
                best, chosen = gain, counts
        return chosen

    def plan(self, step: Step, counts: Sequence[int], blocks: BlockAllocator) -> None:
        """Add guesses to a step whose rows are all decoded, as far as there are free blocks for them."""
        guesses = []
        for seq, count in zip(step.decode, counts, strict=True):
            end = len(seq.tokens) + count
            while len(seq.blocks) * blocks.size < end and blocks.free >= blocks.groups * (len(step.decode) + 1):
                blocktables.grow(blocks, seq)
            room = max(0, len(seq.blocks) * blocks.size - len(seq.tokens))
            guesses.append(() if seq.acceptance is None else seq.acceptance.guess[: min(count, room)])
        step.guesses = guesses if any(guesses) else []

    def accept(self, step: Step, tokens: list[int], blocks: BlockAllocator) -> tuple[list[Seq], list[int]]:
        """What a step with guesses has sampled → its sequences and tokens, one beside the other, up to each one's first wrong guess."""
        seqs: list[Seq] = []
        accepted: list[int] = []
        rows = len(step.decode)
        # Free blocks may have run out, and what fewer guesses cost need not be known; at most they cost what tokens do.
        at, cost = 0, min(self.times.cost(rows, step.rows), step.rows / rows)
        for seq, guess in zip(step.decode, step.guesses, strict=True):
            sampled = tokens[at : at + 1 + len(guess)]
            at += len(sampled)
            right = next((i for i, token in enumerate(guess) if token != sampled[i]), len(guess))
            self.guessed, self.accepted = self.guessed + len(guess), self.accepted + right
            if not seq.finished:
                seq.cached, seq.pending = seq.cached + right, 1 + right
                blocktables.trim(blocks, seq)
                _charge(seq, cost - 1 - right)
            seqs += [seq] * (1 + right)
            accepted += sampled[: 1 + right]
        return seqs, accepted

    def give_up(self, step: Step, blocks: BlockAllocator) -> None:
        """A step with guesses could not run for lack of memory: there is none to spare for them."""
        self.most = 0
        for seq in step.decode:
            blocktables.trim(blocks, seq)

    def observe(self, step: Step, running: Sequence[Seq]) -> None:
        """A step has ended, and its tokens are its rows' own."""
        if not self.most:
            return
        if step.prefill or not step.plain:
            self.times.pause()
        elif step.decode:
            self.times.add(len(step.decode), step.rows)
        if len(running) > MAX_ROWS:
            return
        for seq in step.sampled:
            if seq.plain and not seq.finished:
                seq.acceptance = seq.acceptance or Acceptance(seq.tokens)
                seq.acceptance.update()


def _room(seq: Seq, margin: int) -> int:
    """How many tokens a row may guess: what it has, and no more than it may still say."""
    if seq.acceptance is None or not seq.acceptance.guess or not seq.plain:
        return 0
    count = min(len(seq.acceptance.guess), len(seq.job.ids) + seq.job.max_new - seq.size - 1)
    # A budget of thoughts must not end among tokens that are accepted together.
    return 0 if count < 1 or (seq.thought is not None and seq.thought.near(count + margin)) else count


def _spare(seq: Seq) -> float:
    """How many steps a row may lose."""
    return 0.0 if seq.acceptance is None else seq.acceptance.spare(len(seq.tokens) - len(seq.job.ids))


def _charge(seq: Seq, cost: float) -> None:
    if seq.acceptance is not None:
        seq.acceptance.balance -= cost


def joined(emits: Sequence[Emit]) -> list[Emit]:
    """What each row says in a step with guesses, as one. Nobody is admitted there: a note is of a row's end."""
    rows: dict[int, Emit] = {}
    for emit in emits:
        first = rows.setdefault(emit.id, emit)
        if first is not emit:
            first.tokens, first.finish, first.note = first.tokens + emit.tokens, emit.finish, emit.note
    return list(rows.values())
