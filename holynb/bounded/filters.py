"""Jinja2's filters and tests with bounded results: those that can grow say how large they would be before they compute."""

from __future__ import annotations

import json
import pprint
import random
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from jinja2 import filters, pass_environment
from jinja2 import tests as jinja_tests
from jinja2.exceptions import FilterArgumentError
from jinja2.nodes import EvalContext

from holynb.bounded.allowance import TooMuch
from holynb.bounded.formats import printf
from holynb.bounded.methods import check_join
from holynb.bounded.sizes import CONTAINERS, MAX_DIGITS, check_number, measure, whole

__all__ = ["FILTERS", "LEFT_OUT", "TESTS", "TEXT_FILTERS"]

#: Filters that read their value as a text.
_TEXT = """
capitalize center e escape forceescape format indent lower replace safe string striptags title trim truncate upper wordcount wordwrap
"""
TEXT_FILTERS = frozenset(_TEXT.split())
#: Not offered: its patterns take time out of all proportion on text that is made for it.
LEFT_OUT = frozenset({"urlize"})

#: Longest text for filters that read it again for each part they find.
MAX_REREAD = 100_000
#: What wrapping may take: the sum of the squares of the words' lengths.
MAX_WORD_SQUARES = 200_000_000
MAX_INDENT = 32
_DICE = random.Random()  # noqa: S311 - which item of a list a prompt takes is no secret
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "'": "&#39;", '"': "&#34;"}


def _attr(env: Any, value: Any, name: Any) -> Any:
    return env.getattr(value, str(name))


def _batch(value: Any, linecount: Any, fill_with: Any = None) -> Any:
    return filters.do_batch(value, whole(linecount), fill_with)


def _slice(value: Any, slices: Any, fill_with: Any = None) -> Any:
    return filters.sync_do_slice(list(value), whole(slices), fill_with)


def _center(env: Any, value: str, width: Any = 80) -> str:
    env.allowance.make(max(len(value), whole(width)), len(value))
    return value.center(int(width))


def _escape(env: Any, value: str) -> str:
    """HTML's characters escaped, as plain text."""
    env.allowance.make(len(value) + 4 * sum(map(value.count, _ESCAPES)), len(value))
    for character, escaped in _ESCAPES.items():
        value = value.replace(character, escaped)
    return value


def _safe(value: str) -> str:
    return value


def _format(env: Any, value: str, *args: Any, **kwargs: Any) -> str:
    if args and kwargs:
        raise FilterArgumentError("can't handle positional and keyword arguments at the same time")
    return printf(value, kwargs or args, env.allowance, env.text)


def _indent(env: Any, value: str, width: Any = 4, first: bool = False, blank: bool = False) -> str:
    step = len(width) if isinstance(width, str) else whole(width)
    env.allowance.make(len(value) + step * (len(value.splitlines()) + 1), len(value))
    return str(filters.do_indent(value, width, first, blank))


def _join(env: Any, value: Any, d: Any = "", attribute: Any = None) -> str:
    if attribute is not None:
        value = map(filters.make_attrgetter(env, attribute), value)
    texts: list[str] = [env.text(v) for v in value]
    separator: str = env.text(d)
    check_join(separator, texts, env.allowance)
    return separator.join(texts)


def _replace(env: Any, value: str, old: Any, new: Any, count: Any = None) -> str:
    return str(env.invoke(value, "replace", (env.text(old), env.text(new), -1 if count is None else whole(count)), {}))


def _trim(env: Any, value: str, chars: Any = None) -> str:
    return str(env.invoke(value, "strip", (chars,), {}))


def _random(value: Any) -> Any:
    """An item by chance, without touching the notebook's own dice."""
    return _DICE.choice(value)


def _striptags(value: str) -> str:
    if len(value) > MAX_REREAD:
        raise TooMuch(f"striptags reads at most {MAX_REREAD:,} characters")
    return filters.do_striptags(value)


def _wordwrap(  # noqa: PLR0917 - as Jinja2's own
    env: Any, value: str, width: Any = 79, break_long_words: bool = True, wrapstring: Any = None, break_on_hyphens: bool = True
) -> str:
    if sum(len(word) ** 2 for word in value.split()) > MAX_WORD_SQUARES:
        raise TooMuch("it wraps words of more than ten thousand characters")
    joint = len(env.newline_sequence if wrapstring is None else wrapstring)
    # Two lines that follow each other are longer than the width together, so that these are all breaks and more.
    lines = len(value.splitlines())
    env.allowance.spend(10 * lines)
    breaks = min(len(value), lines + 3 * len(value) // max(whole(width), 1))
    env.allowance.make(len(value) + joint * breaks, len(value))
    return filters.do_wordwrap(env, value, int(width), break_long_words, wrapstring, break_on_hyphens)


def _sum(env: Any, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    if attribute is not None:
        value = map(filters.make_attrgetter(env, attribute), value)
    total = start
    for one in value:
        env.allowance.spend()
        total = env.call_binop(None, "+", total, one)
    return total


def _short(value: Any) -> Any:
    """A number, or a text that is not too long to be read as one."""
    check_number(value)
    if isinstance(value, str | bytes) and len(value) > MAX_DIGITS:
        raise TooMuch(f"a text of more than {MAX_DIGITS:,} characters is not a number")
    return value


def _int(value: Any, default: Any = 0, base: Any = 10) -> Any:
    return filters.do_int(_short(value), default, base)


def _float(value: Any, default: Any = 0.0) -> Any:
    return filters.do_float(_short(value), default)


def _round(value: Any, precision: Any = 0, method: Any = "common") -> Any:
    check_number(value)
    if abs(whole(precision)) > MAX_DIGITS:
        raise TooMuch(f"it rounds to more than {MAX_DIGITS:,} digits")
    return filters.do_round(value, int(precision), method)


def _filesizeformat(value: Any, binary: bool = False) -> str:
    return filters.do_filesizeformat(_short(value), binary)


def _urlencode(env: Any, value: Any) -> str:
    if not isinstance(value, CONTAINERS):
        value = env.text(value)
        env.allowance.make(3 * len(value.encode("utf-8", "replace")), len(value))
    else:
        size = measure(value)
        env.allowance.make(size.items * 8 + 12 * size.chars, size.longest)
    return filters.do_urlencode(value)


def _xmlattr(env: Any, value: Mapping[str, Any], autospace: bool = True) -> str:
    size = measure(value)
    env.allowance.make(size.items * 8 + 5 * size.chars, size.longest)
    return str(filters.do_xmlattr(EvalContext(env), value, autospace))


def _pprint(value: Any) -> str:
    size = measure(value)
    if size.items + size.chars > MAX_REREAD:
        raise TooMuch(f"pprint takes at most {MAX_REREAD:,} characters and items")
    return pprint.pformat(value)


def to_json(env: Any, value: Any, indent: Any = None, **options: Any) -> str:
    """JSON that is not escaped for HTML and keeps non-ASCII characters, as chat templates expect it."""
    size = measure(value)
    step = 0 if indent is None else len(indent) if isinstance(indent, str) else whole(indent)
    if step > MAX_INDENT:
        raise TooMuch(f"JSON is indented by at most {MAX_INDENT} characters")
    env.allowance.make(size.chars + size.items * (4 + step * (size.depth + 1)), size.longest)
    return json.dumps(value, indent=indent, **{"ensure_ascii": False, **options})


def _number(test: Callable[..., bool]) -> Callable[..., bool]:
    """A test of a number: of a text `%` would be formatting."""

    def tested(value: Any, *args: Any) -> bool:
        if any(not hasattr(v, "__index__") and not isinstance(v, float | Decimal) for v in (value, *args)):
            raise TypeError(f"this test takes a number, not {type(value).__name__}")
        return test(value, *args)

    return tested


def _comparison(operator: str) -> Callable[..., Any]:
    def compared(env: Any, value: Any, other: Any) -> Any:
        return env.compared(value, operator, other)

    return pass_environment(compared)


FILTERS: Mapping[str, Callable[..., Any]] = {
    "attr": pass_environment(_attr),
    "batch": _batch,
    "center": pass_environment(_center),
    "e": pass_environment(_escape),
    "escape": pass_environment(_escape),
    "filesizeformat": _filesizeformat,
    "float": _float,
    "forceescape": pass_environment(_escape),
    "format": pass_environment(_format),
    "indent": pass_environment(_indent),
    "int": _int,
    "join": pass_environment(_join),
    "pprint": _pprint,
    "random": _random,
    "replace": pass_environment(_replace),
    "round": _round,
    "safe": _safe,
    "slice": _slice,
    "striptags": _striptags,
    "sum": pass_environment(_sum),
    "tojson": pass_environment(to_json),
    "trim": pass_environment(_trim),
    "urlencode": pass_environment(_urlencode),
    "wordwrap": pass_environment(_wordwrap),
    "xmlattr": pass_environment(_xmlattr),
}

#: Jinja2's names of comparisons → what the compiler calls them.
_COMPARISONS = {
    "eq": "== eq equalto",
    "ne": "!= ne",
    "gt": "> gt greaterthan",
    "gteq": ">= ge",
    "lt": "< lt lessthan",
    "lteq": "<= le",
    "in": "in",
}
TESTS: Mapping[str, Callable[..., Any]] = {
    "odd": _number(jinja_tests.test_odd),
    "even": _number(jinja_tests.test_even),
    "divisibleby": _number(jinja_tests.test_divisibleby),
    **{name: _comparison(operator) for operator, names in _COMPARISONS.items() for name in names.split()},
}
