"""What is raised and what is returned goes into another process and is copied: pickle and copy bring it back as it was."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import pickle
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

import holynb
import kernels_support.jupyter
from holynb.config import Options
from holynb.errors import Fault, HolynbError, InferError, Interrupted
from holynb.pools import PoolInfo
from holynb.results import Summary
from holynb.run import Bench, Measured, measure
from holynb.types import Limits, Outcome, Secret, Usage

#: What a constructor takes where one message is not all.
GIVEN: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "Fault": (
        ("rate_limit", "wait a moment"),
        {"wait": 1.5, "status": 429, "usage": Usage(1, 2), "model": "m", "limits": Limits(requests=3), "raw": "{}", "stops": True},
    ),
    "PoolEnding": (("connection", "it ends"), {"unreachable": True, "retry": False}),
    "ApiError": ((400, "no such field"), {"param": "n", "code": "unsupported_parameter"}),
    "FieldError": (("n", "n must be 1"), {"unsupported": True}),
    "GenerationLost": (("the rank died", "oom"), {}),
}
WAYS: list[Callable[[Any], Any]] = [
    *[lambda value, protocol=protocol: pickle.loads(pickle.dumps(value, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)],
    copy.copy,
    copy.deepcopy,
]


def classes() -> Iterator[type]:
    """Every class of holynb and kernels_support that is defined at the top of a module which imports here."""
    for package in (holynb, kernels_support.jupyter):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.endswith("__main__") or ".pool.engine." in found.name:  # torch
                continue
            try:
                module = importlib.import_module(found.name)
            except ImportError:
                continue
            yield from (v for v in vars(module).values() if isinstance(v, type) and v.__module__ == found.name)


def given(cls: type[BaseException]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments for its constructor: from the table, else a value of its kind for each parameter that has to be given."""
    own = "__init__" in {name for base in cls.__mro__ if base.__module__.startswith("holynb.") for name in vars(base)}
    wanted = [
        p for p in (inspect.signature(cls).parameters.values() if own else ()) if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    return GIVEN.get(cls.__name__, (tuple(7 if p.annotation in ("int", "float") else p.name for p in wanted) or ("what went wrong",), {}))


@pytest.fixture(scope="module")
def every() -> list[type]:
    return sorted(set(classes()), key=lambda c: (c.__module__, c.__qualname__))


def test_every_exception_comes_back_as_it_was(every: list[type]):
    errors = [c for c in every if issubclass(c, BaseException)]
    assert {Fault, HolynbError, InferError, Interrupted} < set(errors)
    for cls in errors:
        args, facts = given(cls)
        error = cls(*args, **facts)
        error.add_note("while it was tried")
        for way in WAYS:
            again = way(error)
            assert (type(again), str(again), again.args, vars(again)) == (cls, str(error), error.args, vars(error))


def test_every_frozen_dataclass_comes_back_as_it_was(every: list[type]):
    frozen = [c for c in every if dataclasses.is_dataclass(c) and c.__dataclass_params__.frozen]
    assert {Usage, Outcome, Summary, Measured, Options} < set(frozen)
    for cls in frozen:
        value = object.__new__(cls)
        for number, field in enumerate(dataclasses.fields(cls)):
            object.__setattr__(value, field.name, (field.name, number))
        for way in WAYS[2:]:  # protocols 0 and 1 know no slots
            again = way(value)
            assert type(again) is cls
            assert [getattr(again, f.name) for f in dataclasses.fields(cls)] == [getattr(value, f.name) for f in dataclasses.fields(cls)]


def test_what_a_run_returns_comes_back_as_it_was():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    run = holynb.infer(["one", "two"], "sim/echo").wait()
    (measured,) = measure(Bench(["sim/echo"], ["one"], Options(limit=2)))
    events, _ = run.journal.events_since(0)
    for value in (run.summary(), run.rows(), list(run.prompts), list(run.requests), run.options, measured, list(events)):
        for way in WAYS[2:]:
            assert way(value) == value
    for way in WAYS[2:]:
        assert way(run.frame()).equals(run.frame())
    typed = holynb.infer(["one"], "sim/json", schema=schema, retries=0)
    with suppress(InferError):
        typed.wait()
    assert pickle.loads(pickle.dumps(typed.frame())).equals(typed.frame())


def test_a_run_stays_in_its_process_and_its_error_goes_without_it():
    run = holynb.infer(["one"], "sim/echo", retries=0, p={"fault": "content_filter"}, cache=False)
    with pytest.raises(InferError) as failed:
        run.wait()
    assert copy.copy(run) is copy.deepcopy([run])[0] is run
    with pytest.raises(TypeError, match=r"run\.frame\(\)"):
        pickle.dumps(run)
    assert pickle.loads(pickle.dumps(failed.value)).args == failed.value.args
    assert pickle.loads(pickle.dumps(failed.value)).run is None
    assert copy.copy(failed.value).run is copy.deepcopy(failed.value).run is run


def test_a_key_stays_too():
    for way in (*WAYS[:-2], copy.deepcopy):
        with pytest.raises(TypeError, match="never pickled"):
            way(PoolInfo("p", "m", "ready", 1, "h", token=Secret("0123456789abcdef", "pool token")))
