"""The interface of the magic that commands, panels and forms use. Does not know the magic itself, which imports them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from holynb.run import Plan
    from holynb.ui.cell.grammar import CellLine

__all__ = ["Host"]


class Host(Protocol):
    """Starts runs for one shell and shows their output there."""

    shell: Any

    def start(self, plan: Plan, name: str | None = None, show: str = "all") -> Any:
        """Start a planned run. Returns a Work to wait for; with `--bg` the run itself, or None where it is bound to `name`."""

    def send(self, line: CellLine, body: str) -> Any:
        """Run a cell with this line and body. Returns a Work to wait for, or the value if there is nothing to wait for."""

    def can_ask(self) -> bool:
        """Whether the user can be asked for input."""
