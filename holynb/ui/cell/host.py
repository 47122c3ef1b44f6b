"""What commands, panels and forms need of the magic that serves a shell. The magic itself stands above them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from holynb.run import Plan
    from holynb.ui.cell.grammar import CellLine

__all__ = ["Host"]


class Host(Protocol):
    """Starts runs for one shell, and shows them there."""

    shell: Any

    def start(self, plan: Plan, name: str | None = None, show: str = "all") -> Any:
        """Start a planned run. A Work to wait for; with `--bg` the run itself."""

    def send(self, said: CellLine, body: str) -> Any:
        """What a cell with this line and body does: a Work to wait for, or the value at once."""

    def somebody(self) -> bool:
        """Whether a person is there who could answer a question."""
