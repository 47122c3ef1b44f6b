"""Batches of a run that another process continues, asked to end at their provider. Reads no results, and needs no lease.

That process finds in the run log what was asked, and stops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from holynb import batches, runlog
from holynb.errors import Fault
from holynb.run import assembly
from holynb.run.plan import Plan
from holynb.types import Route

if TYPE_CHECKING:
    from holynb.engines.hosted import Hosted

__all__ = ["end"]


async def end(plan: Plan, run: str) -> list[str]:
    """Ask for the end of each batch of this run. A line for each that could not be asked for."""
    engines, troubles = assembly.engines(plan), []
    try:
        for piece in runlog.log().batches(run):
            await runlog.log().ask_to_end(piece)  # first: the other process may ask how it stands at any moment
            route = Route.parse(piece.route)
            engine = engines.get(route)
            if piece.id is not None and engine is not None:
                try:
                    await batches.of(cast("Hosted", engine), batches.table()[route.provider]).cancel(piece.id)
                except Fault as fault:
                    troubles.append(f"{piece.id} could not be cancelled: {fault.message}")
    finally:
        for engine in engines.values():
            await engine.aclose()
    return troubles
