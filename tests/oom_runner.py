"""The real runner, in a rank whose memory runs out for good where a test says so: no smaller batch helps, and the rank gives up."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holynb.pool.engine.runner import Runner as EngineRunner
from holynb.pool.protocol import Emit

__all__ = ["Runner"]


class Runner(EngineRunner):
    """`HOLYNB_OOM` is a file: the rank whose number stands in it runs out after its next step with rows, and takes the file away."""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder, **options)
        self._file = Path(os.environ["HOLYNB_OOM"])

    def step(self) -> list[Emit]:
        emits = super().step()
        self._raise_if_named()
        return emits

    def follow(self, after: Callable[[], None] = lambda: None) -> None:
        def after_step() -> None:
            self._raise_if_named()
            after()

        super().follow(after_step)

    def _raise_if_named(self) -> None:
        if self.scheduler.running and self._named() == str(self.mesh.rank):
            self._file.unlink()
            raise MemoryError("can't allocate memory: you tried to allocate 2147483648 bytes. Error code 12 (Cannot allocate memory)")

    def _named(self) -> str | None:
        # One read and no look before it: the rank that is named takes the file away while the others look.
        try:
            return self._file.read_text()
        except FileNotFoundError:
            return None
