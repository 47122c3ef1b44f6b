"""A question to the person at the front end, put from inside a cell. Knows IPython's input; starts nothing.

While a cell is awaited, ipykernel's handler of an interrupt cancels a task, which a kernel that waits for an answer never gets to; so
Python's own is in its place here, and a question that nobody answers is ended by the same way.
"""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from holynb.errors import BadOption

__all__ = ["WAIT_S", "yes_or_no"]

#: How long an answer is waited for: a Run All must not stand still for ever.
WAIT_S = 60.0


def yes_or_no(question: str, flag: str, wait_s: float = WAIT_S) -> bool:
    """The answer. Raises BadOption where an interrupt comes instead, or nothing for `wait_s` seconds; `flag`: what says yes beforehand."""
    overdue = threading.Event()
    try:
        with _interruptible(), _interrupted_after(wait_s, overdue):
            return input(question).strip().lower() in ("y", "yes")
    except KeyboardInterrupt:
        pass
    except EOFError:
        raise BadOption(f"There is no way to ask here, so nothing was sent. {flag}") from None
    why = f"No answer came within {wait_s:g} s" if overdue.is_set() else "Interrupted"
    raise BadOption(f"{why}: nothing was sent. {flag}")


@contextmanager
def _interruptible() -> Iterator[None]:
    """An interrupt raises KeyboardInterrupt, whatever handles it outside."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.SIG_DFL)


@contextmanager
def _interrupted_after(seconds: float, overdue: threading.Event) -> Iterator[None]:
    """Interrupt the main thread after so long."""
    lock, ended = threading.Lock(), False

    def interrupt() -> None:
        with lock:
            if ended:
                return
            overdue.set()
            if hasattr(signal, "pthread_kill"):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # which also wakes a read from a terminal
            else:
                _thread.interrupt_main()

    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            ended = True
        timer.cancel()
