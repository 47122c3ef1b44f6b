"""A recording played through the live view, in its own time or faster, marked as recorded. Sends nothing anywhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from holynb.journal import Journal
from holynb.results import summarize
from holynb.types import Ended, Failed, Message, Noted
from holynb.ui.live.feed import RunInfo
from holynb.ui.live.recording import Recording
from holynb.ui.output import report, seconds

__all__ = ["Replay"]

#: Where a recording begins with a longer silence than this, playing begins so long before the first word, in seconds of the recording.
SILENCE, BEFORE = 3.0, 1.0


class Replay:
    """A source for a live view. `advance` lets happen what is due; its journal has one writer, whoever calls that.

    Times are the recording's: where its first seconds are silent they are not waited for, and `label` says where playing begins.
    """

    def __init__(self, recording: Recording, speed: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        prompts = [next((m.content for m in reversed(asked) if m.role == "user"), "") for asked in recording.messages]
        self.recording = recording
        self.journal = Journal(len(prompts))
        self.asked = RunInfo(prompts, recording.labels, 0.0, recording.title)
        self._skipped = _silence(recording)
        self.label = f"Recorded {recording.made}" + (f", from {seconds(self._skipped)} on" if self._skipped else "")
        self._speed = speed
        self._clock = clock
        self._began = clock() - self._skipped / speed
        self._next = 0
        self._stopped: float | None = None
        if self._skipped:
            self.advance()  # a view that opens now draws it from the beginning on

    @property
    def elapsed(self) -> float:
        """Seconds into the recording."""
        if self._stopped is not None:
            return self._stopped
        return min(self.recording.seconds, (self._clock() - self._began) * self._speed)

    @property
    def over(self) -> bool:
        return self._stopped is not None or self._next >= len(self.recording.steps)

    @property
    def state(self) -> str:
        return "stopped" if self._stopped is not None else "done" if self.over else "running"

    def messages(self, row: int) -> Sequence[Message]:
        return self.recording.messages[row]

    def cancel(self) -> None:
        """Play no more."""
        self._stopped = self.elapsed

    def advance(self) -> None:
        """Let everything happen that is due by now."""
        due = self.elapsed
        steps = self.recording.steps
        while self._stopped is None and self._next < len(steps) and steps[self._next].t <= due:
            step = steps[self._next]
            if step.event is not None:
                self.journal.append(step.event)
            for row, text in step.said:
                self.journal.append_text(row, text)
            self._next += 1

    def finish(self) -> None:
        """Let everything happen at once."""
        self._began = self._clock() - self.recording.seconds / self._speed - 1
        self.advance()

    def record(self) -> report.Report:
        """What has been played, as what stays."""
        events, _ = self.journal.events_since(0)
        notes = [f"Recorded {self.recording.made}: nothing was sent.", *report.notes(events)]
        told = replace(summarize(self.journal.rows, self.elapsed, stopped=self._stopped is not None), again=False)
        return report.Report(self.asked.title, self.asked.prompts, list(self.journal.rows), told, events, self.asked.labels, 0.0, notes)


def _silence(recording: Recording) -> float:
    """Seconds at the beginning that nobody needs to watch: requests are out, and nothing has been answered yet."""
    first = next((s.t for s in recording.steps if s.said or isinstance(s.event, Ended | Failed | Noted)), 0.0)
    return round(first - BEFORE, 1) if first > SILENCE else 0.0
