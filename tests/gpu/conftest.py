"""Triton's interpreter, without what it does over again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def language_is_made_ready_once() -> Iterator[None]:
    """A launch puts numpy's side in place of Triton's language and back; each device function that it calls does so again, in a third of all time."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        yield
        return
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    make_ready, languages = interpreter._patch_lang, (interpreter.tl, interpreter.tl.core)
    spoken: dict[FunctionType, list[Any]] = {}

    def once(function: FunctionType) -> Any:
        if function not in spoken:
            spoken[function] = [v for v in function.__globals__.values() if any(v is language for language in languages)]
        if all(language.range.__name__ == "_new_range" for language in spoken[function]):
            return interpreter._LangPatchScope()
        return make_ready(function)

    interpreter._patch_lang = once
    yield
    interpreter._patch_lang = make_ready
