"""A row in flight, as the table shows it: it thinks, answers, or waits to be sent again. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from holynb.ui.live.protocol import Row
from holynb.ui.output import clip, one_line, thinking

__all__ = ["ANSWER_CHARS", "InFlightRow", "preview"]

#: Characters of an answer in the table. While it grows, its beginning stands there.
ANSWER_CHARS = 200


def preview(text: str | None, width: int = ANSWER_CHARS) -> str:
    """The beginning of a text on one line; a megabyte costs no more than a page."""
    return clip(one_line((text or "")[: width * 4]), width)


@dataclass(slots=True)
class InFlightRow:
    """A row that has started and not ended. `status` is running or retrying; `text` is the beginning of its answer, or why it retries.

    `thought`: characters and tokens (None: not counted) of what it thinks, None where it does not.
    """

    attempt: int
    status: str = "running"
    pieces: int = 0
    text: str = ""
    thought: tuple[int, int | None] | None = None

    def thinks(self, thought: tuple[int, int | None]) -> bool:
        """It has thought so much by now. Returns whether that is shown: nothing of its answer has come yet."""
        if thought == self.thought:
            return False
        self.thought = thought
        if not self.pieces:
            self.status, self.text = "running", ""
        return not self.pieces

    def line(self, row: int) -> Row:
        """Its line of the table."""
        if self.thought is not None and not self.pieces and self.status == "running":
            return Row(row, "thinking", text=thinking(*self.thought), attempts=self.attempt)
        return Row(row, self.status, text=preview(self.text), attempts=self.attempt)
