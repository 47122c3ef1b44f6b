"""Kernels compiled by processes of their own, forked before this one has a CUDA context.

They load nothing: Triton keeps on disk what they compile. Half of Triton's compiler is Python, which the threads of one process share:
four threads took a little over half the time of one.

Nothing depends on this module: what is not compiled when it is launched is compiled then.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from holynb.pool.fit import cpus

if TYPE_CHECKING:
    from kernels_support.gpu.lang import Launch

__all__ = ["CompileAhead"]

#: Processes at a time; with fewer than three cores they would only be in the way.
MAX_PROCESSES, MIN_CPUS = 8, 3

#: PR_SET_PDEATHSIG of prctl(2): a signal at the death of the parent.
_PARENT_DEATH_SIGNAL = 1


class CompileAhead:
    """Compiles in the background from now on: what the first token needs, then the rest.

    `record` names both, and is called in the new process after `prepare`, which readies Triton there. Where a process cannot be forked
    (no fork, few cores, `forks` False: CUDA is initialized) nothing happens, and `running` is False.
    """

    def __init__(
        self, record: Callable[[], tuple[Sequence[Launch], Sequence[Launch]]], prepare: Callable[[], None], *, forks: bool
    ) -> None:
        self.running, self._first = forks and hasattr(os, "fork") and cpus() >= MIN_CPUS, threading.Event()
        if not self.running:
            self._first.set()
            return
        ready, first_done = os.pipe()
        parent = os.getpid()
        with warnings.catch_warnings():
            # Python warns of threads that may hold a lock. A rank's other thread waits in a system call and holds none.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            _compile_and_exit(record, prepare, first_done, parent)
        os.close(first_done)
        threading.Thread(target=self._watch, args=(child, ready), name="holynb-compiling", daemon=True).start()

    def wait(self, timeout_s: float) -> None:
        """Block until what the first token needs is compiled, or the processes are gone."""
        self._first.wait(timeout_s)

    def _watch(self, child: int, ready: int) -> None:
        os.read(ready, 1)  # the end of the pipe: its other ends are closed, or their processes are gone
        self._first.set()
        os.close(ready)
        os.waitpid(child, 0)


def _compile_and_exit(
    record: Callable[[], tuple[Sequence[Launch], Sequence[Launch]]], prepare: Callable[[], None], first_done: int, parent: int
) -> None:
    """The forked process. Ends with its parent, holds none of its files (a socket would stay open), and never returns."""
    try:
        _end_with(parent)
        os.closerange(3, first_done)
        os.closerange(first_done + 1, os.sysconf("SC_OPEN_MAX"))
        prepare()
        first, later = record()
        _compile(first)
        os.close(first_done)
        os.nice(10)
        _compile(later)
    except BaseException:  # noqa: BLE001 - whatever it is, this is the end of the process
        traceback.print_exc()
    finally:
        os._exit(0)


def _compile(launches: Sequence[Launch]) -> None:
    """Compile in several processes; each takes every n-th launch."""
    processes, parent, children = min(MAX_PROCESSES, cpus(), len(launches)), os.getpid(), []
    for i in range(processes):
        child = os.fork()
        if child == 0:
            try:
                _end_with(parent)
                for launch in launches[i::processes]:
                    launch.compile(load=False)
            except BaseException:  # noqa: BLE001 - the kernel's own launch will raise it again
                traceback.print_exc()
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def _end_with(parent: int) -> None:
    """Be killed when the parent ends."""
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(0)
