"""Where a row is in its thinking, by its tokens: before it, inside, being closed, or at its answer. Knows jobs; no torch, no schedule.

A budget is held by tokens that are forced, one a step, once so many were thought; the row then goes on with its answer by itself.
"""

from __future__ import annotations

from collections import deque

from holynb.pool.job import JobThinking

__all__ = ["ThoughtState"]


class ThoughtState:
    """Fed with every token of one row's answer, in order. `forced`: the token that has to come next; None: any may.

    `thinking`: what comes next belongs to the thought. `begins`: the token with which a thought may begin now; None: with none.
    `thought`: how many of the tokens so far stand before the answer.
    """

    __slots__ = ("_closing", "_count", "_ending", "_job", "_spent", "_tail", "begins", "forced", "thinking", "thought")

    def __init__(self, job: JobThinking) -> None:
        self._job = job
        self._count = self._spent = self.thought = 0
        self._tail: deque[int] = deque(maxlen=max(len(job.ends), len(job.closing)))
        self._closing: tuple[int, ...] = ()
        self._ending = False
        """All of `ends` have come but the last, before which there may be others."""
        self.forced: int | None = None
        self.begins = job.begins
        self.thinking = job.begins is None
        if self.thinking:
            self._hold()

    def take(self, token: int) -> None:
        """The next token of the answer."""
        self._count += 1
        if self.begins is not None:
            if token not in self._job.blanks:
                self.thinking, self.begins = token == self.begins, None
                if self.thinking:
                    self._hold()
        elif self.thinking:
            self._tail.append(token)
            if self._closing:
                self._force(self._closing[1:])
            elif self._ended(token):
                self._end()
            else:
                self._spent += 1
                self._hold()

    def _ended(self, token: int) -> bool:
        """Whether this token is the last of `ends`."""
        *before, last = self._job.ends
        if token == last and (self._ending or not before):
            return True
        if before and list(self._tail)[-len(before) :] == before:
            self._ending = True
        elif before and token in (before[0], last):
            self._ending = False
        return False

    def near(self, margin: int) -> bool:
        """Whether one of the next `margin` tokens may have to be forced, so that each has to be known before the next is chosen."""
        budget = self._job.budget
        return budget is not None and (self.thinking or self.begins is not None) and budget - self._spent < margin

    def _hold(self) -> None:
        """Begin to close the thought where its budget is spent; what of the closing stands there already is not said twice."""
        budget, closing, tail = self._job.budget, self._job.closing, tuple(self._tail)
        if budget is not None and self._spent >= budget and self._ending:
            self._force(self._job.ends[-1:])
        elif budget is not None and self._spent >= budget:
            done = next(n for n in range(min(len(closing) - 1, len(tail)), -1, -1) if tail[len(tail) - n :] == closing[:n])
            self._force(closing[done:])

    def _force(self, tokens: tuple[int, ...]) -> None:
        self._closing = tokens
        self.forced = tokens[0] if tokens else None
        if not tokens:
            self._end()

    def _end(self) -> None:
        self.thinking, self.thought = False, self._count
