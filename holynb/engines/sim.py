"""A simulator: answers, streams and every kind of failure, on demand, without a network. Deterministic in prompt and seed.

    sim/echo     the prompt, at once
    sim/stream   60 words at 10 a second
    sim/flaky    24 words, and at four attempts in ten something that goes wrong
    sim/json     JSON that fits the schema of `--schema`; `-p broken=0.2` breaks that share of the answers

On every model `-p fault=F` injects a fault: 429, 401, quota, 500, connect, slow, stall, cut, malformed, oom, content_filter or
context_length. `connect` lasts as long as `--connect-timeout`; `-p at=MODEL` limits a fault to one model, to fail over from.
`-p times=N`: how many attempts of a row it hits (default 1; 401, quota, content_filter and context_length: all).
`-p retry_after=S`: the wait of a 429 (0.2). `-p seconds=S`: duration of slow (1) and stall (an hour). `-p latency=S`: a pause before every
answer (0). `-p thoughts=N`: N words of thinking before it. A token is a word or a punctuation mark. `max_tokens` cuts answers; the echo
only below 2048, the default of hosted routes, so that a long prompt comes back whole.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from holynb import attachments
from holynb.engines import loading
from holynb.engines.codec import mend
from holynb.engines.sample_json import sample_json
from holynb.errors import BadRoute, Fault, closest
from holynb.types import Completion, Delta, Done, Endpoint, Limits, Request, Route, Secret, Timeouts, Usage

__all__ = ["FAULTS", "FLAKY", "MODELS", "Sim", "check", "tokens"]

MODELS = ("echo", "stream", "flaky", "json")

#: Values of `-p fault=` → their aliases.
FAULTS: Mapping[str, tuple[str, ...]] = {
    "429": ("rate_limit",),
    "401": ("auth",),
    "quota": (),
    "500": ("server",),
    "connect": ("connect_timeout",),
    "slow": ("slow_first_byte",),
    "stall": ("timeout",),
    "cut": ("truncated",),
    "malformed": (),
    "oom": (),
    "content_filter": (),
    "context_length": (),
}

#: Faults that hit every attempt.
PERMANENT = ("401", "quota", "content_filter", "context_length")

#: sim/flaky: per cent of attempts with each fault. Faults that end the whole run (401, quota) are left out.
FLAKY: Mapping[str, int] = {"429": 12, "500": 10, "cut": 5, "slow": 4, "malformed": 3, "stall": 2, "oom": 2, "content_filter": 2}

WORDS, WORDS_PER_S, FLAKY_WORDS = 60, 10.0, 24
#: Duration of sim/flaky's faults: a demonstration must not hang for an hour, as an explicit stall does.
FLAKY_SECONDS: Mapping[str, float] = {"slow": 0.5, "stall": 3.0}
ECHO_LIMIT = 2048
STORY = (  # noqa: SIM905 - prose reads better as prose
    "a prompt set out from a notebook and met a gateway that said wait then a model that thought for a while and a stream that carried "
    "the answer home word by word until the table was full and the person who had asked went on with the day and nothing was lost on the way"
).split()


def check(route: Route) -> None:
    """Raises BadRoute for a model that the simulator does not have."""
    if route.model not in MODELS:
        near = closest(route.model, MODELS).replace("mean ", "mean sim/")
        raise BadRoute(f"There is no {route}.{near} The simulator has {', '.join(f'sim/{m}' for m in MODELS)}.")


class Sim:
    """An engine without a server. One per run: it counts each row's attempts, so that a fault can end. Owned by the io loop."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None]) -> None:  # noqa: ARG002 - as every engine is made
        check(endpoint.route)
        self.endpoint = endpoint
        self._attempts: Counter[tuple[int, int]] = Counter()

    async def ready(self, notice: Callable[[str], None]) -> None:
        """Nothing to prepare."""

    async def aclose(self) -> None:
        """Nothing to close."""

    async def send(self, request: Request, timeouts: Timeouts) -> AsyncIterator[Delta | Done]:
        """Answer as the model and the injected fault define. Raises Fault, like any engine."""
        fault, seconds = self._fault(request, self._attempt(request))
        if fault == "connect":
            await asyncio.sleep(timeouts.connect)
            raise Fault("timeout", f"simulated: no connection to {self.endpoint.route} within {timeouts.connect:g} s (--connect-timeout)")
        seen = await _seen(request)
        await asyncio.sleep(_number(request, "latency", 0.0))
        if fault in ("cut", "stall") and request.stream:
            yield Delta("half an ")
        if fault in ("slow", "stall"):
            await asyncio.sleep(seconds)
        elif fault is not None:
            raise _make_fault(fault, _number(request, "retry_after", 0.2))
        words, limit = self._words(request)
        start, clock = asyncio.get_running_loop().time(), asyncio.get_running_loop().time
        pace = 1 / WORDS_PER_S if self.endpoint.route.model == "stream" else 0.0
        thoughts = _thoughts(request)[:limit]
        whole, n = [*thoughts, *words], len(thoughts)
        for i, word in enumerate(whole[:limit], 1):
            if pace:
                await asyncio.sleep(start + i * pace - clock())
            if request.stream:
                yield Delta(word) if i > n else Delta("", word, i)
        text, finish = "".join(whole[n:limit]), "stop" if len(whole) <= limit else "length"
        thought = n if "thoughts" in request.sampling.extra else None
        usage = Usage(sum(len(tokens(m.content)) for m in request.messages) + seen, len(whole[:limit]), 0, tokens_reasoning=thought)
        model, tier = f"sim-{self.endpoint.route.model}", request.tiers[0] if request.tiers else None
        yield Done(Completion(text, finish, model, usage, None, n > 0, "".join(thoughts) or None, tier))

    def _words(self, request: Request) -> tuple[list[str], int]:
        """The whole answer as tokens, and how many of them `max_tokens` allows."""
        longest = request.sampling.max_tokens or ECHO_LIMIT
        if self.endpoint.route.model == "json":
            return tokens(_json(request)), longest
        if self.endpoint.route.model == "echo":
            words = tokens(_prompt(request))
            return words, longest if longest < ECHO_LIMIT else len(words) + len(_thoughts(request))
        start, count = _draw(request), WORDS if self.endpoint.route.model == "stream" else FLAKY_WORDS
        chosen = [STORY[(start + i) % len(STORY)] for i in range(count)]
        return [word if i == 0 else f" {word}" for i, word in enumerate(chosen)], longest

    def _attempt(self, request: Request) -> int:
        """Which attempt this is, counted where a fault may follow from it: of a million rows the counts would be larger than all else."""
        if "fault" not in request.sampling.extra and self.endpoint.route.model != "flaky":
            return 1
        self._attempts[request.row, request.sample] += 1
        return self._attempts[request.row, request.sample]

    def _fault(self, request: Request, attempt: int) -> tuple[str | None, float]:
        """The fault of this attempt, if any, and its duration in seconds."""
        name = request.sampling.extra.get("fault")
        if name is not None and self._applies(request.sampling.extra.get("at")):
            fault = _parse_fault(str(name))
            seconds = _number(request, "seconds", 1.0 if fault == "slow" else 3600.0)
            return fault if fault in PERMANENT or attempt <= _number(request, "times", 1) else None, seconds
        if self.endpoint.route.model == "flaky":
            draw = _draw(request, attempt) % 100
            for fault, share in FLAKY.items():
                if draw < share:
                    return fault, _number(request, "seconds", FLAKY_SECONDS.get(fault, 0.0))
                draw -= share
        return None, 0.0

    def _applies(self, at: object) -> bool:
        """Whether a fault that is limited to the model `at` applies to this one. Raises Fault for an unknown model."""
        if at is not None and at not in MODELS:
            raise Fault("bad_request", f"-p at={at}: the simulator has {', '.join(MODELS)}.{closest(str(at), MODELS)}", stops=True)
        return at in (None, self.endpoint.route.model)


async def _seen(request: Request) -> int:
    """Tokens of the attachments, each read as for any server. Raises Fault."""
    if not (attached := request.attachments):
        return 0
    async with loading.written(request, "sim", lambda r: "".join(a.source.address for a in r.attachments).encode()):
        return sum(attachments.tokens("echo", a)[1] for a in attached)


def _thoughts(request: Request) -> list[str]:
    """The words that it is asked to think first."""
    return [f" {STORY[i % len(STORY)]}" if i else STORY[0] for i in range(int(_number(request, "thoughts", 0.0)))]


def tokens(text: str) -> list[str]:
    """`text` as words and marks, each with the white space before it; joined they give `text`."""
    return re.findall(r"\s*(?:\w+|[^\w\s])|\s+\Z", text)


def _parse_fault(name: str) -> str:
    canonical = next((fault for fault, others in FAULTS.items() if name == fault or name in others), None)
    if canonical is None:
        raise Fault("bad_request", f"-p fault={name}: the simulator knows {', '.join(FAULTS)}.{closest(name, FAULTS)}", stops=True)
    return canonical


def _json(request: Request) -> str:
    """An instance of the request's schema, cut in half for the share `broken` of prompts."""
    draw = _draw(request)
    text = json.dumps(sample_json(request.schema or {"type": "object"}, draw), ensure_ascii=False)
    return text[: len(text) // 2] if draw % 1000 < 1000 * _number(request, "broken", 0.0) else text


def _number(request: Request, name: str, default: float) -> float:
    value = request.sampling.extra.get(name, default)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not number >= 0:
        raise Fault("bad_request", f"-p {name}={value} should be a number from 0.", stops=True)
    return number


def _make_fault(name: str, wait: float) -> Fault:
    """The Fault that a real engine raises in this case."""
    faults: Mapping[str, tuple[str, str, dict[str, Any]]] = {
        "429": ("rate_limit", "429: too many requests", {"status": 429, "wait": wait, "limits": Limits(600, 0, wait)}),
        "401": ("auth", "401: the key was refused", {"status": 401, "stops": True}),
        "quota": ("quota", "429: the credit is used up", {"status": 429, "stops": True}),
        "500": ("server", "500: internal error", {"status": 500}),
        "cut": ("truncated", "the stream ended in the middle of the answer", {}),
        "malformed": ("server", "the answer was not JSON", {"raw": "<html>502 Bad Gateway</html>"}),
        "oom": ("oom", "out of memory on the device; the batch was halved", {"status": 500}),
        "content_filter": ("content_filter", "400: the prompt was refused by the content filter", {"status": 400}),
        "context_length": ("context_length", "400: the prompt is longer than the model's context", {"status": 400}),
    }
    kind, words, facts = faults[name]
    return Fault(kind, f"simulated{'' if words[0].isdigit() else ':'} {words}", **facts)


def _prompt(request: Request) -> str:
    return mend(next((m.content for m in reversed(request.messages) if m.role == "user"), ""))


def _draw(request: Request, attempt: int = 0) -> int:
    """A pseudorandom number from the prompt, the seed, the sample and the attempt."""
    text = f"{request.sampling.seed}|{request.sample}|{attempt}|{_prompt(request)}"
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:4])
