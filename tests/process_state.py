"""What holynb keeps in this process and a test must not find as another one left it. `tests/test_process_state.py` holds these tables complete."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: Module → what of it is emptied: each has `clear()`.
EMPTIED: dict[str, tuple[str, ...]] = {
    "holynb.attachments.cells": ("_seen",),
    "holynb.attachments.thumbnails": ("_known",),
    "holynb.config.keys": ("_typed", "_keyring_hangs"),
    "holynb.config.models": ("_announced",),
    "holynb.config.update_files": ("_stamps",),
    "holynb.engines.hosted": ("_traits_by_model",),
    "holynb.engines.pool": ("_meters",),
    "holynb.identity": ("_known",),
    "holynb.run.assembly": ("_proven", "_answered", "_live"),
    "holynb.run.session": ("_session",),
    "holynb.scheduler.registry": ("_limiters",),
    "holynb.ui.cell.shown": ("_open",),
    "holynb.ui.live.export": ("_written",),
    "holynb.ui.live.timer": ("_tasks",),
    "holynb.ui.output.pictures": ("_taken",),
}
#: Module → its function that forgets, with its arguments, and what it forgets.
TOLD: dict[str, tuple[str, tuple[object, ...], tuple[str, ...]]] = {
    "holynb.config.settings": ("reset", (), ("_overrides",)),
    "holynb.loop": ("close", (), ("_loop", "_thread")),
    "holynb.translation": ("choose", (None,), ("_chosen",)),
}
#: What may stay, and why.
STAYS: dict[str, str] = {
    "holynb.config.settings._version": "counts up: what was merged before is not used again",
    "holynb.engines.http._shared": "by loop, and each test has its own",
    "holynb.engines.loading._gates": "by loop",
    "holynb.loop._left": "loops of parents, in forked processes alone",
    "holynb.loop._lock": "free whenever the loop is closed",
    "holynb.pool.serve.deployment._services": "filled in Serve's processes, and by the test of it, which ends them",
    "holynb.pools.client.children": "each is reaped when it has ended, and `home` ends them",
    "holynb.pools.client._finding": "held for a call",
    "holynb.runlog.current._logs": "by home: `home` closes its own",
    "holynb.runlog.gate._gate": "nobody is inside between two tests",
    "holynb.scheduler.retry._rng": "chance",
    "kernels_support.cpu.grouped._pages": "memory that its matrices give back",
    "kernels_support.gpu.lang._plain": "set inside a `with`",
    "kernels_support.gpu.lang._recording": "set inside a `with`",
    "kernels_support.jupyter.limits._before": "set in processes of their own",
    "kernels_support.jupyter.lock._held": "weak: of locks that are held",
}


def forget() -> None:
    """Empty it all, of the modules that are loaded: a test pays for nothing that no test before it has touched."""
    for name, (function, arguments, _) in TOLD.items():  # first: with the loop the runs end
        if (module := sys.modules.get(name)) is not None:
            getattr(module, function)(*arguments)
    for name, kept in EMPTIED.items():
        if (module := sys.modules.get(name)) is not None:
            for one in kept:
                getattr(module, one).clear()


@contextmanager
def restored() -> Iterator[None]:
    """Environment, working directory and signal handlers of this process are afterwards what they were."""
    environment, folder = dict(os.environ), os.getcwd()  # noqa: PTH109 - of each test
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        now = dict(os.environ)
        for name in (now.keys() | environment) - {"PYTEST_CURRENT_TEST"}:  # pytest's own, which says how far a test is
            if (value := environment.get(name)) is None:
                del os.environ[name]
            elif now.get(name) != value:
                os.environ[name] = value
        os.chdir(folder)
        for number, handler in handlers.items():
            if signal.getsignal(number) is not handler and handler is not None:
                signal.signal(number, handler)
