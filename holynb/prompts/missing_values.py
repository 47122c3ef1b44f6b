"""Missing values where they would leave a hole: a number of `%` and `format`, the filters of numbers, an order or a sum of a list.

Elsewhere a missing value is empty, or null in JSON. Here it is an error that names the column; `default` and `is none` say what is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from jinja2 import pass_environment
from jinja2.exceptions import SecurityError
from jinja2.filters import make_attrgetter

from holynb.bounded import Stream
from holynb.prompts.values import Missing, lacking, missing

__all__ = ["check_printf", "is_gone", "of_items", "of_numbers"]


def of_numbers(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or test of numbers, that says which value is missing: Jinja2's `int` would make it 0, and a text would have a hole."""
    first = 1 if getattr(function, "jinja_pass_arg", None) is not None else 0
    defaults = {"int": 0, "float": 0}.get(name)

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        given = args[first:]
        if defaults is not None and given and is_gone(given[0]) and (len(given) > 1 or "default" in kwargs):
            return kwargs["default"] if "default" in kwargs else given[1]
        for value in (*given, *kwargs.values()):
            _check_there(value, name)
        return function(*args, **kwargs)

    return checked


def of_items(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that compares or adds up the items of a list. A missing one is neither smaller nor larger: any order would do."""

    @pass_environment
    def checked(env: Any, values: Any, *args: Any, **kwargs: Any) -> Any:
        values = list(values) if isinstance(values, Stream) else values
        attribute = kwargs.get("attribute", args[0] if args and name == "sum" else None)
        if isinstance(values, list | tuple):
            read = make_attrgetter(env, attribute) if attribute is not None else None
            if any(is_gone(value if read is None else read(value)) for value in values):
                what = "an item" if attribute is None else f"{attribute} of an item"
                leave_out = "reject('none')" if attribute is None else f"rejectattr('{attribute}', 'none')"
                raise SecurityError(f"{what} is missing, and {name} takes values: leave it out with |{leave_out}|list")
        return function(env, values, *args, **kwargs)

    return checked


def _check_there(value: Any, by: str, called: str = "a value") -> None:
    """Raise SecurityError where a value is missing, with the column or key that it was read from."""
    if is_gone(value):
        raise SecurityError(lacking(value.called if isinstance(value, Missing) else called, by))


def is_gone(value: Any) -> bool:
    return isinstance(value, Missing) or missing(value)


def check_printf(form: str, values: Any) -> None:
    """Raise SecurityError where a missing value would go into the text."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            if f"%({key})" in form:
                _check_there(value, "%", str(key))
        return
    for value in values if isinstance(values, tuple) else (values,):
        _check_there(value, "%")
