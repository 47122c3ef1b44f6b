"""Every public name as somebody's own program uses it. Never run: test_packaging.py has mypy read it against the installed wheel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_type

from IPython.core.interactiveshell import InteractiveShell

import holynb
from holynb import (
    HolynbError,
    InferError,
    Interrupted,
    Run,
    UserError,
    infer,
    last,
    load_ipython_extension,
    read,
    runs,
    unload_ipython_extension,
)
from holynb.types import Outcome


def answers(frame: Any) -> int:
    run = infer("Summarize: {{ text }}", "sim/echo", df=frame, max_tokens=60, cache=False)
    assert_type(run, Run)
    try:
        assert_type(run.wait(timeout=30.0), Run)
    except InferError as refused:
        print(refused.run)
    except Interrupted as stopped:
        print(stopped.run)
    except (UserError, HolynbError) as wrong:
        print(f"{wrong}")
    finally:
        run.cancel()
    return len(run.frame())


async def awaited() -> str | None:
    run = await infer(["What is a cache?", {"prompt": "What is a queue?", "max_tokens": 5}])
    assert_type(run, Run)
    assert_type(run.rows(), Sequence[Outcome | None])
    first = run.rows()[0]
    return first.text if first else None


def read_again() -> int:
    frame = read("labels")
    print(frame.attrs["holynb"])
    return len(frame)


def looked_at(run: Run) -> None:
    assert_type(run.start(), Run)
    assert_type(run.check(), Run)
    assert_type(run.done, bool)
    assert_type(run.elapsed, float)
    assert_type(run.n, int)
    assert_type(run.name, str | None)
    assert_type(run.summary().errors.total(), int)
    print(run.result(), run.chunks(), run.plot())


def of_an_earlier_session() -> int:
    return len(read("nightly"))


def of_the_session(shell: InteractiveShell) -> None:
    assert_type(holynb.last, Run | None)
    assert_type(last, Run | None)
    assert_type(runs, Sequence[Run])
    assert_type(holynb.__version__, str)
    load_ipython_extension(shell)
    unload_ipython_extension(shell)
