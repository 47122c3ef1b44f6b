"""The variable that a cell gave a run's result, filled anew when the run goes on. Never one that is something else by now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holynb.run import Plan, Run, SessionRun

__all__ = ["Renewal", "of"]

_NOTHING = object()


@dataclass(frozen=True, slots=True)
class Renewal:
    """What `variable` held when its run went on: `earlier`, or its result, where `ours`, or nothing. `answered`: rows of then."""

    variable: str
    held: Any
    ours: bool
    earlier: SessionRun | None
    answered: int

    def fill(self, shell: Any, run: Run, value: Any) -> str:
        """The run has ended: give the variable its result. Returns the line that says so, or why not; empty where the result has less."""
        if run.summary().ok < self.answered:
            return ""
        if self._is_other(shell):
            return self._stays(run)
        return self._give(shell, run) if self._holds_run else self._give(shell, value)

    def follow(self, shell: Any, run: Run) -> str:
        """The run goes on after its cell: a variable that held the run holds this one now. Returns the line that says so, or why not."""
        if self._is_other(shell):
            return self._stays(run)
        if self._holds_run or self.held is _NOTHING:
            return self._give(shell, run)
        return f"{self.variable} stays as it is until this run has ended; %infer resume {run.name or run.id} then fills it."

    @property
    def _holds_run(self) -> bool:
        return self.held is self.earlier

    def _is_other(self, shell: Any) -> bool:
        return not self.ours or shell.user_ns.get(self.variable, _NOTHING) is not self.held

    def _stays(self, run: Run) -> str:
        name = run.name or run.id
        return f"{self.variable} is something else by now and stays as it is: {self.variable} = %infer resume {name} takes this result."

    def _give(self, shell: Any, what: Any) -> str:
        from holynb.run import Run

        shell.push({self.variable: what})
        return f"{self.variable} now holds this run." if isinstance(what, Run) else f"{self.variable} now holds this result."


def of(shell: Any, plan: Plan) -> Renewal | None:
    """Before the run of `plan` goes on; None where no cell gave its result a name."""
    from holynb.run import session

    if plan.variable is None:
        return None
    held = shell.user_ns.get(plan.variable, _NOTHING)
    # A go that answered nothing gave the variable nothing: it holds what one before it gave.
    goes = [run for run in reversed(session.runs()) if run.id == plan.earlier.run]
    earlier = next((run for run in goes if held is run or _is_result(run, held)), None)
    ours = held is _NOTHING or earlier is not None
    before = earlier or next(iter(goes), None)
    return Renewal(plan.variable, held, ours, earlier, 0 if before is None else before.summary().ok)


def _is_result(earlier: SessionRun | None, held: Any) -> bool:
    """Whether this is the run's result as its cell gave it: with a column added or a cell changed it is the user's own."""
    from holynb.run import Run

    if not isinstance(earlier, Run) or not hasattr(held, "equals"):
        return False
    value = earlier.value()
    return type(held) is type(value) and bool(held.equals(value))
