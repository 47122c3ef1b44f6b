"""What generation_config.json asks for where a request says nothing. Knows the file; no requests and no tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from holynb.pool.modelfields import check
from holynb.pool.modelfiles import real, truth, whole

__all__ = ["GenerationDefaults", "read_defaults"]

_MAX = 2**31 - 1
_MAX_STOPS = 64


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """A model's own way to answer. `rules`: of `LogitRules`, by name; `suppressed`: tokens that are never taken.

    `max_new`: how long an answer may be; `max_length`: with its prompt. None: the file does not say.
    """

    sampling: Mapping[str, float] = field(default_factory=dict)
    """temperature, top_p and top_k, as far as the file says them and samples at all."""
    rules: Mapping[str, float] = field(default_factory=dict)
    suppressed: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    max_new: int | None = None
    max_length: int | None = None

    def room(self, prompt: int) -> int:
        """How many tokens may follow on a prompt of so many."""
        if self.max_new is not None:
            return self.max_new
        return _MAX if self.max_length is None else max(1, self.max_length - prompt)


def read_defaults(data: Mapping[str, Any], vocab: int) -> GenerationDefaults:
    """The defaults of a file's content; `vocab`: the model's tokens. Raises ValueError."""
    check("generation_config.json", data)
    given = {name for name, value in data.items() if value is not None}
    sampling: dict[str, float] = {}
    rules: dict[str, float] = {}
    if truth(data, "do_sample"):
        sampling = {n: real(data, n, 0, most) for n, most in (("temperature", 100), ("top_p", 1)) if n in given}
        sampling |= {"top_k": whole(data, "top_k", 0, _MAX)} if "top_k" in given else {}
        rules |= {"min_p": real(data, "min_p", 0, 1)} if "min_p" in given else {}
    if (penalty := real(data, "repetition_penalty", 1e-3, 1e3, 1.0)) != 1:
        rules["repetition_penalty"] = penalty
    if least := whole(data, "min_new_tokens", 0, _MAX, 0):
        rules["min_tokens"] = least
    return GenerationDefaults(
        sampling,
        rules,
        tuple(dict.fromkeys(token for token in _ids(data, "suppress_tokens") if token < vocab)),
        _stops(data.get("stop_strings")),
        whole(data, "max_new_tokens", 1, _MAX) if "max_new_tokens" in given else None,
        whole(data, "max_length", 1, _MAX) if "max_length" in given else None,
    )


def _ids(data: Mapping[str, Any], name: str) -> list[int]:
    ids = data.get(name) or []
    if not isinstance(ids, list):
        raise ValueError(f"{name} is not a list of tokens")  # noqa: TRY004 - a file is wrong, not an argument
    return [whole({name: one}, name, 0, _MAX) for one in ids]


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or len(stops) > _MAX_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise ValueError(f"stop_strings is not a list of at most {_MAX_STOPS} non-empty texts")
    return tuple(stops)
