"""Quota and retry headers of a reply: durations, dates, limits. Pure; what does not parse is None."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from math import isfinite

from holynb.types import Limits

__all__ = ["LASTING_S", "anthropic", "openai", "retry_in_words", "seconds", "wait"]

#: A wait from here on is no pace: what is used up is the allowance of a day or longer.
LASTING_S = 3600.0

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)")
_WORDS = re.compile(
    r"(?:(?:try again|retry)\s+(?:in|after)|please wait)\s+(?:about\s+)?((?:\d+(?:\.\d+)?\s*(?:ms|d|h|m(?!s)|s)\s*)+|\d+(?:\.\d+)?\s*(?:milli)?seconds?)",
    re.IGNORECASE,
)
#: A number from here on is a time since 1970, not a duration: in seconds, or from a thousand times as much in milliseconds.
_EPOCH = 1e9


def seconds(text: str | None, now: float | None = None) -> float | None:
    """Seconds from now: `6m0s`, `100ms`, `37`, a time since 1970, an RFC 3339 or an HTTP date. None for anything else."""
    text = (text or "").strip()
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        return _duration(text) if _PART.match(text) and "-" not in text else _until(text, now)
    if not isfinite(number) or number < 0:
        return None
    if number >= _EPOCH:
        return max(0.0, (number / 1000 if number >= _EPOCH * 1000 else number) - (time.time() if now is None else now))
    return number


def wait(headers: Mapping[str, str]) -> float | None:
    """Retry-After-ms, else Retry-After, in seconds. A date is relative to the server's own Date header where there is one."""
    if (exact := seconds(headers.get("retry-after-ms"))) is not None:
        return exact / 1000
    return seconds(headers.get("retry-after"), _moment(headers.get("date", "")))


def retry_in_words(message: str) -> float | None:
    """Seconds in "Please retry after 37 seconds" or "Please try again in 6m0s"; None for any other message."""
    match = _WORDS.search(message)
    if match is None:
        return None
    text = re.sub(r"\s", "", match.group(1).lower()).rstrip(".")
    text = text.replace("milliseconds", "ms").replace("millisecond", "ms").replace("seconds", "s").replace("second", "s")
    return _duration(text)


def openai(headers: Mapping[str, str]) -> Limits | None:
    """x-ratelimit-{limit,remaining,reset}-{requests,tokens}."""
    return _limits(headers, _names("x-ratelimit-{0}-requests"), _names("x-ratelimit-{0}-tokens"))


def anthropic(headers: Mapping[str, str]) -> Limits | None:
    """anthropic-ratelimit-{requests,tokens}-{limit,remaining,reset}; of the token limits, the server names the tightest."""
    tokens = "tokens" if "anthropic-ratelimit-tokens-limit" in headers else "input-tokens"
    return _limits(headers, _names("anthropic-ratelimit-requests-{0}"), _names(f"anthropic-ratelimit-{tokens}-{{0}}"))


@lru_cache
def _names(pattern: str) -> tuple[str, str, str]:
    """The headers of one quota."""
    return pattern.format("limit"), pattern.format("remaining"), pattern.format("reset")


def _limits(headers: Mapping[str, str], requests: tuple[str, str, str], tokens: tuple[str, str, str]) -> Limits | None:
    of_requests, of_tokens = _triple(headers, requests), _triple(headers, tokens)
    return None if of_requests is of_tokens is _NOTHING else Limits(*of_requests, *of_tokens)


_NOTHING = (None, None, None)


def _triple(headers: Mapping[str, str], names: tuple[str, str, str]) -> tuple[int | None, int | None, float | None]:
    """Limit, remaining, seconds until full. Azure sends -1 and 0 where there is no limit, so those are ignored."""
    if (left := _whole(headers.get(names[1]))) is None:
        return _NOTHING
    limit, reset = _whole(headers.get(names[0])), seconds(headers.get(names[2]))
    if (limit is not None and limit <= 0) or left < 0 or (limit is None and left == 0 and reset is None):
        return _NOTHING
    return limit, left, reset


def _whole(text: str | None) -> int | None:
    try:
        return None if not text else int(text) if text.isdecimal() and len(text) < 16 else int(float(text))
    except (ValueError, OverflowError):
        return None


def _duration(text: str) -> float | None:
    """A duration in Go's notation, seconds."""
    total, at = 0.0, 0
    while at < len(text):
        part = _PART.match(text, at)
        if part is None:
            return None
        total += float(part.group(1)) * _UNITS[part.group(2)]
        at = part.end()
    return total


def _until(text: str, now: float | None) -> float | None:
    moment = _moment(text)
    return None if moment is None else max(0.0, moment - (time.time() if now is None else now))


def _moment(text: str) -> float | None:
    """An RFC 3339 or an HTTP date as seconds since 1970."""
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = read(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return None
