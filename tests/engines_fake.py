"""An engine that follows a script, for tests of the scheduler: what each attempt at each row does, and what was really asked."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from holynb.errors import Fault
from holynb.types import Completion, Delta, Done, Endpoint, Request, Route, Timeouts, Usage

Step = str | float | Fault | Done | Exception


def done(text: str, **usage: int) -> Done:
    return Done(Completion(text, "stop", "model-of-the-server", Usage(**usage)))


class Scripted:
    """`script(row, attempt)` is a list of steps: a str is a Delta, a number a pause in seconds, a Fault is raised, a Done ends."""

    def __init__(self, script: Callable[[int, int], Sequence[Step]], route: str = "test/model") -> None:
        self.endpoint = Endpoint(Route.parse(route), "sim")
        self.script = script
        self.seen: dict[int, int] = defaultdict(int)
        self.asked: list[int] = []
        self.flying = self.most = 0
        self.closed = False

    async def send(self, request: Request, timeouts: Timeouts) -> AsyncIterator[Delta | Done]:
        self.seen[request.row] += 1
        self.asked.append(request.row)
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            for step in self.script(request.row, self.seen[request.row]):
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, float):
                    await asyncio.sleep(step)
                elif isinstance(step, str):
                    yield Delta(step)
                else:
                    yield step
        finally:
            self.flying -= 1

    async def ready(self, notice: Callable[[str], None]) -> None:
        notice("ready")

    async def aclose(self) -> None:
        self.closed = True


def always(*steps: Any) -> Callable[[int, int], Sequence[Step]]:
    return lambda row, attempt: steps
