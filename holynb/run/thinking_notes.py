"""What to say of thinking before a run: where a model cannot do what was asked, and where its thoughts may use up a short answer. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from holynb.config.model_traits import SHORT_TOKENS
from holynb.engines import thinking
from holynb.engines.dialects import guidance
from holynb.types import Endpoint, Request, Sampling

__all__ = ["notes"]


def notes(requests: Iterable[Request | None], endpoints: Sequence[Endpoint]) -> list[str]:
    """Lines for a person, for every route that some row may come to; one of a kind for each."""
    kinds: dict[tuple[object, ...], Request] = {}
    for r in requests:
        if r is not None:
            s = r.sampling
            short = s.max_tokens is not None and s.max_tokens <= SHORT_TOKENS
            kinds.setdefault((s.think, short, s.temperature is None, s.top_p is None, s.seed is None, *s.extra), r)
    lines: dict[str, str] = {}
    for endpoint in endpoints:
        for request in kinds.values():
            row = replace(request, route=endpoint.route)
            for line in (thinking.note(row, endpoint.wire), _short(row.sampling, endpoint), _twice(row, endpoint.wire)):
                if line is not None:
                    lines.setdefault(thinking.gist(line), line)
    return list(lines.values())


def _short(sampling: Sampling, endpoint: Endpoint) -> str | None:
    """A line where the thoughts of a model that thinks unasked may use up the tokens of its answer."""
    if sampling.think is not None or sampling.max_tokens is None or sampling.max_tokens > SHORT_TOKENS:
        return None
    known = guidance(endpoint.route, endpoint.wire)
    if known is None or not known.by_default:
        return None
    off = known.control.off
    paths = [known.control.field, *(off if isinstance(off, Mapping) else ())]
    if any(step in sampling.extra for path in paths for step in path.split(".")):
        return None
    what = f"{endpoint.route} thinks before it answers, and --max-tokens {sampling.max_tokens} may not be enough for both"
    if off is False:
        return f"{what}: its thinking cannot be switched off, so allow more tokens, or add --think low."
    return f"{what}: with --think off it answers at once."


def _twice(request: Request, wire: str) -> str | None:
    """A line where `-p` says what `--think` says too."""
    if request.sampling.think is None or not request.sampling.extra:
        return None
    named = next((path for path in thinking.wanted(request, wire).fields if _given(path.split("."), request.sampling.extra)), None)
    if named is None:
        return None
    name = next(step for step in named.split(".") if step in request.sampling.extra)
    return f"-p {name} is sent unchanged, and overrides --think {request.sampling.think}."


def _given(steps: Sequence[str], extra: Mapping[str, object]) -> bool:
    """Whether `-p` holds the field of this path, or a table in its place."""
    at = next((i for i, step in enumerate(steps) if step in extra), None)
    if at is None:
        return False
    inner, rest = extra[steps[at]], steps[at + 1 :]
    merged = bool(rest) and steps[at] in thinking.TABLES and isinstance(inner, Mapping)
    return not merged or (isinstance(inner, Mapping) and rest[0] in inner)
