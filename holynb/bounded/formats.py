"""`%` and `str.format` with results whose size is known before they are made."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2.sandbox import SandboxedFormatter

from holynb.bounded.allowance import MAX_ITEMS, Allowance, TooMuch
from holynb.bounded.sizes import check_number

__all__ = ["BoundedFormat", "check_spec", "printf"]

_CONVERSION = re.compile(
    r"%(?:\((?P<key>[^()]*)\))?(?P<flags>[-#0 +]*)(?P<width>\*|\d*)(?P<precision>\.(?:\*|\d*))?[hlL]?(?P<kind>.|\Z)", re.DOTALL
)
#: Longest specification of a format: fills, widths, or the pattern of a date.
MAX_SPEC = 200

Text = Callable[[Any], str]


def check_spec(spec: str) -> None:
    """Refuse a width or precision beyond what a step may make, and the pattern of a date that is a text of its own."""
    if len(spec) > MAX_SPEC or any(int(digits) > MAX_ITEMS for digits in re.findall(r"\d+", spec)):
        raise TooMuch(f"a format makes more than {MAX_ITEMS:,} characters")


def printf(form: str, values: Any, allowance: Allowance, text: Text = str) -> str:
    """`form % values`, one conversion at a time. `text` is used for `%s` of what is no text. Raises as `%` does."""
    named = values if isinstance(values, Mapping) else None
    given = list(values) if isinstance(values, tuple) else [values]
    pieces: list[str] = []
    size = place = used = 0
    for match in _CONVERSION.finditer(form):
        literal, place = form[place : match.start()], match.end()
        piece = "%"
        if match["kind"] != "%":
            if match["key"] is None and used == len(given):
                raise TypeError("not enough arguments for format string")
            if match["key"] is not None and named is None:
                raise TypeError("format requires a mapping")
            value = given[used] if match["key"] is None or named is None else named[match["key"]]
            used += match["key"] is None
            piece = _converted(match, value, text)
        pieces += literal, piece
        size += len(literal) + len(piece)
        allowance.make(size, *_lengths(form, values), item=0)
    if named is None and used < len(given):
        raise TypeError("not all arguments converted during string formatting")
    allowance.make(size + len(form) - place, *_lengths(form, values))
    return "".join((*pieces, form[place:]))


def _converted(match: re.Match[str], value: Any, text: Text) -> str:
    """One conversion, without its key."""
    if "*" in match["width"] or "*" in (match["precision"] or ""):
        raise TooMuch("a format takes its width from a value: write the number into it")
    check_spec(match["width"] + (match["precision"] or ""))
    check_number(value)
    kind = match["kind"]
    if kind in "sra" and not isinstance(value, str):
        value, kind = text(value), "s"
    return f"%{match['flags']}{match['width']}{match['precision'] or ''}{kind}" % (value,)


def _lengths(form: str, values: Any) -> list[int]:
    inside = values.values() if isinstance(values, Mapping) else values if isinstance(values, tuple) else (values,)
    return [len(form), *(len(v) for v in inside if isinstance(v, str))]


class _Formatter(SandboxedFormatter):
    """Formats field by field, and stops where the text grows beyond what a step may make."""

    def __init__(self, env: Any, allowance: Allowance, text: Text) -> None:
        super().__init__(env)
        self._admitted = env.admitted
        self._meter, self._text = allowance, text
        self._size = 0
        self.longest = 0

    def format_field(self, value: Any, format_spec: str) -> str:
        value = self._admitted(value)
        check_spec(format_spec)
        check_number(value)
        if isinstance(value, str):
            self.longest = max(self.longest, len(value))
        piece = super().format_field(value, format_spec) if format_spec else self._text(value)
        self._size += len(piece)
        self._meter.make(self._size, self.longest, item=0)
        return str(piece)

    def convert_field(self, value: Any, conversion: Any) -> Any:
        if conversion is None:
            return value
        return super().convert_field(value, conversion) if isinstance(value, str) else self._text(value)


class BoundedFormat:
    """`str.format` or `str.format_map` of a template's text, as something to call."""

    __slots__ = ("_env", "_form", "_mapping")

    def __init__(self, env: Any, form: str, *, mapping: bool) -> None:
        self._env, self._form, self._mapping = env, form, mapping

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        values: Sequence[Any] = args
        if self._mapping:
            if kwargs or len(args) != 1:
                raise TypeError("format_map() takes one mapping")
            values, kwargs = (), args[0]
        formatter = _Formatter(self._env, self._env.allowance, self._env.text)
        result = formatter.vformat(self._form, values, kwargs)
        self._env.allowance.make(len(result), len(self._form), formatter.longest)
        return str(result)
