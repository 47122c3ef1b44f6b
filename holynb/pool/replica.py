"""One rank as the server sees it: its process, the generations that run there, and how it ended. Knows frames; no HTTP, no text."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kernels_support.jupyter import wire
from kernels_support.jupyter.supervisor import Child, Command, spawn

__all__ = ["Generation", "Lost", "Refused", "Replica", "Wanted"]

_numbers = itertools.count(1)


class Lost(Exception):
    """The rank died under a generation, or could not finish it; says why. `code` is OpenAI's: replica_died, oom, server_error."""

    def __init__(self, message: str, code: str = "replica_died") -> None:
        super().__init__(message)
        self.code = code


class Refused(Exception):
    """The rank can never run this: the prompt and its answer do not fit; says the sizes."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to generate, as the runner's Job takes it, without its number."""

    ids: tuple[int, ...]
    max_new: int
    temperature: float
    top_p: float
    top_k: int
    seed: int | None
    eos: tuple[int, ...]
    ignore_eos: bool = False
    grammar: str | None = None


@dataclass(eq=False, slots=True)
class Generation:
    """One answer being written. Filled by its replica, read by one consumer, both on the server's loop."""

    wanted: Wanted
    id: int = field(default_factory=lambda: next(_numbers))
    tokens: list[int] = field(default_factory=list)
    finish: str | None = None
    error: Lost | Refused | None = None
    notes: set[str] = field(default_factory=set)
    times: int = 1
    """How often it was begun: again where a replica died under it."""
    admitted: bool = False
    cached: int = 0
    """Prompt tokens that were in the replica's cache."""
    given: bool = False
    """Something of it has been sent to the client: it cannot be begun again elsewhere."""
    at: float = field(default_factory=time.monotonic)
    last: float = 0.0
    _due: float = math.inf
    _waiter: asyncio.Future[None] | None = None

    @property
    def over(self) -> bool:
        return self.finish is not None or self.error is not None

    async def news(self, due: float) -> None:
        """Wait until it is admitted, over, or has tokens at or after `due` (monotonic seconds; inf: only its end)."""
        self._due = due
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self, now: float, *, always: bool = False) -> None:
        """Tell the consumer, where it wants to know now."""
        if self._waiter is not None and not self._waiter.done() and (always or self.over or now >= self._due):
            self._waiter.set_result(None)

    def again(self) -> None:
        """Forget what a dead replica wrote; another one begins anew."""
        self.tokens.clear()
        self.times += 1
        self.wake(time.monotonic(), always=True)


class Replica:
    """Owns one rank's process. `on_end` is called once, when it has died, with why and the generations it left."""

    def __init__(self, command: Command, load: Mapping[str, Any], on_end: Callable[[Replica, str, list[Generation]], None]) -> None:
        self.stats: dict[str, Any] = {}
        self.live: dict[int, Generation] = {}
        self.ready = asyncio.Event()
        self.ended: str | None = None
        self.on_tokens: Callable[[Generation, int, float, float], None] = lambda generation, tokens, before, now: None
        self._command = command
        self._load = dict(load)
        self._on_end = on_end
        self._child: Child | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._words: str | None = None
        self._stopping = False

    @property
    def child(self) -> Child | None:
        return self._child

    @property
    def outstanding(self) -> int:
        """Tokens that its generations may still take: prompts not begun and answers not written."""
        return sum(g.wanted.max_new - len(g.tokens) + (0 if g.tokens else len(g.wanted.ids)) for g in self.live.values())

    async def start(self) -> None:
        """Start the process and send it its load; `ready` is set when the weights are in. Raises OSError."""
        self._child = spawn(self._command, bound=True)
        reader, self._writer = await asyncio.open_connection(sock=self._child.control)
        self._send({"t": "load", **self._load})
        self._task = asyncio.create_task(self._read(reader))

    def add(self, generation: Generation) -> None:
        wanted = generation.wanted
        self.live[generation.id] = generation
        job = {name: getattr(wanted, name) for name in Wanted.__slots__}
        self._send({"t": "add", "job": {"id": generation.id, **job}})

    def cancel(self, generation: Generation) -> None:
        """Its row leaves the batch at the next step. Nothing happens where it is over."""
        if self.live.pop(generation.id, None) is not None:
            self._send({"t": "cancel", "id": generation.id})

    async def stop(self, grace: float = 2.0) -> None:
        """End the process: asked first, killed after `grace` seconds."""
        self._stopping = True
        if self._child is None:
            return
        self._send({"t": "stop"})
        child = self._child
        if not await asyncio.to_thread(child.wait, grace):
            await asyncio.to_thread(child.kill)
        if self._task is not None:
            await self._task

    def _send(self, frame: wire.Frame) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(wire.encode(frame))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while (frame := await wire.read(reader)) is not None:
                self._hear(frame)
        except wire.WireError as exc:
            self._words = f"sent something that is no frame: {exc}"
        await self._end()

    async def _end(self) -> None:
        """The socket has ended: bury the process, say how it ended, hand its generations over."""
        assert self._child is not None  # noqa: S101 - _read runs only after start
        if self._writer is not None:
            self._writer.close()
        if not await asyncio.to_thread(self._child.wait, 2.0):
            await asyncio.to_thread(self._child.kill)
        how = self._words or self._child.how()
        log = "" if self._words or self._stopping else " | ".join(self._child.tail(3))
        self.ended = f"process {self._child.pid} {how}{'. Its last lines: ' + log if log else ''}"
        left = list(self.live.values())
        self.live.clear()
        self._on_end(self, self.ended, left)

    def _hear(self, frame: wire.Frame) -> None:
        kind = frame["t"]
        if kind == "step":
            now = time.monotonic()
            for number, tokens, finish, note, *cached in frame["e"]:
                if cached and number in self.live and not self.live[number].admitted:
                    self.live[number].cached = cached[0]
                self._emit(number, tokens, (finish, note), now)
        elif kind in {"ready", "stats"}:
            self.stats = frame["stats"]
            if kind == "ready":
                self.ready.set()
        elif kind == "refused":
            self._close(frame["id"], Refused(frame["message"]))
        elif kind == "failed":
            self._words = f"failed: {frame['message']}"

    def _emit(self, number: int, tokens: list[int], end: tuple[str | None, str | None], now: float) -> None:
        generation = self.live.get(number)
        if generation is None:  # cancelled here, still running there for a step
            return
        finish, note = end
        first = not generation.admitted
        generation.admitted = True
        if note:
            generation.notes.add(note)
        if tokens:
            self.on_tokens(generation, len(tokens), generation.last, now)
            generation.tokens += tokens
            generation.last = now
        if finish == "error":
            code = "oom" if "oom" in generation.notes else "server_error"
            words = {
                "oom": "The device's memory does not hold this row, even alone.",
                "server_error": f"The rank gave this row up: {note}.",
            }
            self._close(number, Lost(words[code], code))
            return
        if finish is not None:
            generation.finish = finish
            del self.live[number]
        generation.wake(now, always=first)

    def _close(self, number: int, error: Lost | Refused) -> None:
        generation = self.live.pop(number, None)
        if generation is not None:
            generation.error = error
            generation.wake(time.monotonic())
