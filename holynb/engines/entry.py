"""Where a server's words enter: keys are masked and control characters taken out of every string of an answer, a Fault or a list.

Driven by the fields of what comes in, so that a new one is masked without anybody thinking of it. Knows no wire.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from decimal import Decimal
from functools import lru_cache
from typing import Any, TypeVar, get_args, get_type_hints

from holynb import words
from holynb.errors import Fault
from holynb.secret import Mask

__all__ = ["admit", "admit_fault", "admit_words"]

T = TypeVar("T")

#: What a model wrote. It keeps its characters, and only a long run of a key is masked; everything else is a name or a message.
WRITTEN_BY_MODELS = frozenset({"text", "reasoning"})
#: Types of values without words.
NUMBERS = (int, float, bool, bytes, Decimal, type(None), ...)


def admit(value: T, mask: Mask | None) -> T:
    """A dataclass with every string in it masked and cleaned, at any depth; itself where nothing changes."""
    changes: dict[str, Any] | None = None
    kind: Any = type(value)
    for name, written, nested in _wordy_fields(kind):
        before = getattr(value, name)
        if before is None:
            continue
        if before.__class__ is str:
            after = _words(before, mask, written=written)
        else:
            after = admit(before, mask) if nested else _admitted(before, mask, written=written)
        if after is not before:
            changes = changes or {}
            changes[name] = after
    return replace(value, **changes) if changes else value  # type: ignore[type-var]


def admit_words(value: Any, mask: Mask | None) -> Any:
    """JSON, or any other nesting of containers, with every string in it masked and cleaned."""
    return _admitted(value, mask)


def admit_fault(fault: Fault, mask: Mask | None) -> None:
    """Mask and clean every string of a Fault, in place."""
    if mask is not None:
        fault.message = mask.message(fault.message)
    for name, value in vars(fault).items():
        if name != "kind":
            setattr(fault, name, _admitted(value, mask))
    # What a reply was read from stands in the exceptions that led here, JSON's with the whole text.
    fault.__cause__ = fault.__context__ = None
    # A scheduler keeps the last Fault of a row, and its traceback would keep what the frames below held: the server's own words.
    fault.__traceback__ = None


def _words(value: str, mask: Mask | None, *, written: bool) -> str:
    if written:
        return value if mask is None else mask.answer(value)
    # Cleaned first: what is taken out may stand between the characters of a key.
    plain = value if value.isascii() and value.isprintable() else words.plain(value)
    return plain if mask is None else mask.name(plain)


def _admitted(value: Any, mask: Mask | None, *, written: bool = False) -> Any:
    if isinstance(value, str):
        return _words(value, mask, written=written)
    if is_dataclass(value) and not isinstance(value, type):
        return admit(value, mask)
    if isinstance(value, Mapping):
        pairs = [(_admitted(k, mask), _admitted(v, mask)) for k, v in value.items()]
        same = all(k is was and v is value[was] for (k, v), was in zip(pairs, value, strict=True))
        return value if same else dict(pairs)
    if isinstance(value, list | tuple):
        items = [_admitted(v, mask, written=written) for v in value]
        return value if all(map(operator.is_, items, value)) else type(value)(items)
    return value


@lru_cache
def _wordy_fields(kind: Any) -> tuple[tuple[str, bool, bool], ...]:
    """The fields of a dataclass that can hold a string, whether a model writes them, and whether they are a dataclass themselves.

    Found once, since every answer passes here.
    """
    hints = get_type_hints(kind)
    return tuple((f.name, f.name in WRITTEN_BY_MODELS, is_dataclass(hints[f.name])) for f in fields(kind) if _holds_words(hints[f.name]))


def _holds_words(hint: Any) -> bool:
    if hint in NUMBERS:
        return False
    if is_dataclass(hint):
        kind: Any = hint
        return bool(_wordy_fields(kind))
    parts = get_args(hint)
    return any(map(_holds_words, parts)) if parts else True
