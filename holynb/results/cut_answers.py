"""Answers of a run that were cut off: how many at the token limit, how many where their model's context was full, and what to change."""

from __future__ import annotations

from dataclasses import dataclass

from holynb import full_context
from holynb.types import Outcome
from holynb.words import counted

__all__ = ["CutAnswers"]


@dataclass(slots=True)
class CutAnswers:
    """`at_limit` reached --max-tokens, `full` the end of the context. Owned by whoever folds outcomes."""

    at_limit: int = 0
    full: int = 0

    def add(self, outcome: Outcome) -> None:
        if outcome.status == "ok" and outcome.finish_reason == "length":
            full = full_context.is_full(outcome.finish_reason, outcome.error)
            self.full, self.at_limit = self.full + full, self.at_limit + (not full)

    def words(self, answers: int) -> str:
        """A line for each kind that there is, where they are together more than a tenth of so many answers; else empty."""
        if (self.at_limit + self.full) * 10 <= answers:
            return ""
        kinds = (
            (self.at_limit, "cut off at the token limit: raise --max-tokens"),
            (self.full, f"cut off where the model's context is full: {full_context.ADVICE}"),
        )
        of = counted(answers, "answer")
        return "\n".join(f"{count:,} of {of} {'was' if count == 1 else 'were'} {where}." for count, where in kinds if count)
