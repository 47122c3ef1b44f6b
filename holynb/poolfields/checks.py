"""What the value of a field may be: one check for each kind of value. Knows no table of fields."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from holynb.errors import Portable

__all__ = [
    "MAX_TOP_LOGPROBS",
    "Check",
    "FieldError",
    "anything",
    "choice",
    "flag",
    "is_token_id",
    "logit_bias",
    "logprobs_count",
    "mapping",
    "number",
    "one_of",
    "response_format",
    "schema",
    "stop",
    "stream_options",
    "structured_outputs",
    "template_kwargs",
    "text",
    "token_ids",
]

MAX_STOPS, MAX_STOP_LENGTH, MAX_TOKEN_IDS = 16, 1000, 1024
#: As vLLM's; OpenAI's chats have the same, its completions five.
MAX_TOP_LOGPROBS = 20

Check = Callable[[str, Any], None]
"""Raises FieldError where the named field may not have this value. It is never None."""

#: A value as a message quotes it.
_QUOTED = 40


class FieldError(Portable, ValueError):
    """A field that is refused. `param` names it, as OpenAI's errors do; `unsupported`: no value of it would do, but a neutral one."""

    def __init__(self, param: str, message: str, *, unsupported: bool = False) -> None:
        super().__init__(message)
        self.param, self.unsupported = param, unsupported


def _must(name: str, expected: str, value: Any) -> FieldError:
    return FieldError(name, f"{name} must be {expected}, not {value!r:.{_QUOTED}}.")


def number(low: float, high: float = math.inf, *, whole: bool = False, above: bool = False) -> Check:
    """A number from `low` (`above`: above it) to `high`."""
    top = f" to {high:g}" if high < math.inf else ""
    expected = f"a {'whole ' if whole else ''}number {'above' if above else 'from'} {low:g}{top}"

    def check(name: str, value: Any) -> None:
        fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not fits or not low <= value <= high or (above and value == low) or value == math.inf:
            raise _must(name, expected, value)

    return check


def one_of(*words: str) -> Check:
    """One of these words."""

    def check(name: str, value: Any) -> None:
        if not isinstance(value, str) or value not in words:
            raise _must(name, f"one of {', '.join(words)}", value)

    return check


def flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise _must(name, "true or false", value)


def text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise _must(name, "text", value)


def mapping(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise _must(name, "an object", value)


def is_token_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def token_ids(name: str, value: Any) -> None:
    if not isinstance(value, list | tuple) or not all(map(is_token_id, value)) or len(value) > MAX_TOKEN_IDS:
        raise _must(name, f"a list of at most {MAX_TOKEN_IDS} token ids", value)


def stop(name: str, value: Any) -> None:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list | tuple) or not all(isinstance(s, str) and s for s in stops) or len(stops) > MAX_STOPS:
        raise FieldError(name, f"{name} must be a text or a list of at most {MAX_STOPS} texts, none empty.")
    if any(len(s) > MAX_STOP_LENGTH for s in stops):
        raise FieldError(name, f"{name} must hold texts of at most {MAX_STOP_LENGTH:,} characters.")


def logit_bias(name: str, value: Any) -> None:
    mapping(name, value)
    if len(value) > MAX_TOKEN_IDS:
        raise FieldError(name, f"{name} must hold at most {MAX_TOKEN_IDS} tokens, not {len(value)}.")
    for key, bias in value.items():
        if not (str(key).isascii() and str(key).isdigit() and int(key) < 2**31):
            raise FieldError(name, f"{name} must map token ids to numbers, and {key!r:.{_QUOTED}} is no token id.")
        number(-100, 100)(f"{name}.{key}", bias)


def stream_options(name: str, value: Any) -> None:
    mapping(name, value)
    for key, given in value.items():
        if key not in ("include_usage", "include_obfuscation", "continuous_usage_stats"):
            raise FieldError(f"{name}.{key}", f"{name}.{key} is no field that this pool knows.", unsupported=True)
        if given is not None:
            flag(f"{name}.{key}", given)
        if given and key == "continuous_usage_stats":
            raise FieldError(f"{name}.{key}", f"{name}.{key} is not supported by this pool; include_usage is.", unsupported=True)


def template_kwargs(name: str, value: Any) -> None:
    mapping(name, value)
    for key in value:
        if key in ("messages", "tools", "documents", "chat_template", "tokenize") or str(key).endswith("_token"):
            raise FieldError(name, f"{name} may not set {key}: it is what the pool itself gives the template.")
    if not isinstance(value.get("enable_thinking", False), bool | None):
        raise _must(f"{name}.enable_thinking", "true or false", value["enable_thinking"])


def schema(name: str, value: Any) -> None:
    """A JSON schema: an object, or its text."""
    if not isinstance(value, Mapping | str):
        raise _must(name, "a JSON schema", value)


def choice(name: str, value: Any) -> None:
    if not isinstance(value, list | tuple) or not value or not all(isinstance(v, str) and v for v in value):
        raise _must(name, "a list of texts, none empty", value)


def structured_outputs(name: str, value: Any) -> None:
    mapping(name, value)
    given = [key for key, spec in value.items() if spec is not None and spec is not False]
    for key in given:
        if key not in _KINDS:
            raise FieldError(f"{name}.{key}", f"{name}.{key} is not supported by this pool.", unsupported=True)
        _KINDS[key](f"{name}.{key}", value[key])
    if len(given) != 1:
        raise FieldError(name, f"{name} must hold one of {', '.join(_KINDS)}, not {len(given)} of them.")


def response_format(name: str, value: Any) -> None:
    kind = value.get("type") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind not in ("text", "json_object", "json_schema"):
        raise FieldError(name, f"{name} must be an object whose type is text, json_object or json_schema.")
    if kind == "json_object" and value.get("schema") is not None:
        mapping(f"{name}.schema", value["schema"])
    spec = value.get("json_schema")
    if kind == "json_schema" and not (isinstance(spec, Mapping) and isinstance(spec.get("schema"), Mapping)):
        where = f"{name}.json_schema"
        raise FieldError(f"{where}.schema", f"{where} must be an object with a schema, as {{'name': ..., 'schema': {{...}}}}.")


def logprobs_count(name: str, value: Any) -> None:
    """Completions take a number; false means none there, too."""
    if value is not False:
        number(0, MAX_TOP_LOGPROBS, whole=True)(name, value)


def anything(name: str, value: Any) -> None:
    """Read elsewhere, or of no consequence."""


#: What `structured_outputs` may hold.
_KINDS: Mapping[str, Check] = {"json": schema, "regex": text, "choice": choice, "grammar": text, "json_object": flag}
