"""What a live view shows beside a run of this session: a recording that plays in its own time or faster, marked as recorded, and a run of
the run log. Sends no request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from holynb.events import Ended, Failed, Noted
from holynb.journal import Journal
from holynb.results import summarize
from holynb.translation import brief
from holynb.types import Message, Prompt
from holynb.ui.live.protocol import RunState
from holynb.ui.live.recording import Recording
from holynb.ui.live.runinfo import RunInfo
from holynb.ui.output import seconds
from holynb.ui.output.report import Report
from holynb.ui.output.report import notes as notes_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Logged", "Replay"]

#: Seconds of the recording: after a longer silence at its beginning, playing starts so long before the first text.
MAX_SILENCE_S, LEAD_IN_S = 3.0, 1.0


class Logged:
    """A run of the run log as a source. When its rows ended is not known: it has no charts."""

    label = ""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.name = report.run
        self.elapsed = report.summary.elapsed
        self.journal = Journal(len(report.rows))
        self.info = RunInfo(
            report.prompts, report.labels, report.started, report.run, format=report.format, assessment=report.quality, timed=False
        )
        at = report.started + self.elapsed
        for row, outcome in enumerate(report.rows):
            if outcome is not None:
                self.journal.append(Ended(row, outcome, at))
        for note in report.notes:
            self.journal.append(Noted(note, at, "warning"))
        self._prompts: Sequence[Prompt] | None = None

    @property
    def state(self) -> RunState:
        return "stopped" if self.report.summary.stopped or None in self.report.rows else "done"

    def messages(self, row: int) -> Sequence[Message]:
        from holynb import runlog
        from holynb.run import logged_rows, resume

        if self._prompts is None:
            self._prompts = logged_rows.read(runlog.log(), resume.stored(self.name)).prompts
        return self._prompts[row].messages if row < len(self._prompts) else ()

    def cancel(self) -> None:
        """It is not this session's to stop."""

    def frame(self) -> pd.DataFrame:
        """The result, on the index that the run had."""
        from holynb.results import frame
        from holynb.run import resume

        stored = resume.stored(self.name)
        index = frame.restore_index(self.report.labels or (), stored.spec.get("index"))
        facts = {"run": stored.id, "name": stored.name, "route": str(stored.route), "started": stored.started}
        origin = facts | {"cost": None if stored.cost is None else float(stored.cost)}
        judged = "judge" in stored.spec.get("options", {})
        return frame.build(self.report.rows, index, self.report.schema, origin, judged=judged)


class Replay:
    """A source for a live view. `advance` plays what is due; its caller is the journal's one writer.

    Times are the recording's: a silent beginning is skipped, and `label` tells where playing starts.
    """

    name = ""

    def __init__(self, recording: Recording, speed: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        prompts = [next((m.content for m in reversed(messages) if m.role == "user"), "") for messages in recording.messages]
        self.recording = recording
        self.journal = Journal(len(prompts))
        self.info = RunInfo(prompts, recording.labels, 0.0, recording.title)
        self._skipped_s = _silence(recording)
        self.label = brief(f"Recorded {recording.recorded_on}" + (f", from {seconds(self._skipped_s)} on" if self._skipped_s else ""))
        self._speed = speed
        self._clock = clock
        self._began = clock() - self._skipped_s / speed
        self._next = 0
        self._stopped: float | None = None
        if self._skipped_s:
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
    def state(self) -> RunState:
        return "stopped" if self._stopped is not None else "done" if self.over else "running"

    def messages(self, row: int) -> Sequence[Message]:
        return self.recording.messages[row]

    def cancel(self) -> None:
        """Stop playing."""
        self._stopped = self.elapsed

    def advance(self) -> None:
        """Play what is due by now."""
        due = self.elapsed
        steps = self.recording.steps
        while self._stopped is None and self._next < len(steps) and steps[self._next].t <= due:
            step = steps[self._next]
            if step.event is not None:
                self.journal.append(step.event)
            for row, text in step.pieces:
                self.journal.append_text(row, text)
            for row, text, tokens in step.thoughts:
                self.journal.append_thoughts(row, text, tokens)
            self._next += 1

    def finish(self) -> None:
        """Play all the rest at once."""
        self._began = self._clock() - self.recording.seconds / self._speed - 1
        self.advance()

    def report(self) -> Report:
        """What has been played so far."""
        events = self.journal.events()
        notes = [f"Recorded {self.recording.recorded_on}: nothing was sent.", *notes_of(events)]
        summary = replace(summarize(self.journal.rows, self.elapsed, stopped=self._stopped is not None), retryable=False)
        info = self.info
        return Report(info.title, info.prompts, list(self.journal.rows), summary, events, info.labels, 0.0, notes)


def _silence(recording: Recording) -> float:
    """Seconds to skip at the beginning, where requests are out and nothing has been answered."""
    first = next((s.t for s in recording.steps if s.pieces or s.thoughts or isinstance(s.event, Ended | Failed | Noted)), 0.0)
    return round(first - LEAD_IN_S, 1) if first > MAX_SILENCE_S else 0.0
