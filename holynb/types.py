"""The types that every room shares: prompts, routes, requests, completions and outcomes. Standard library only.

Everything here is immutable or a protocol. Times are in seconds; `at` is `time.time()`; an unknown value is None, never 0.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, runtime_checkable

from holynb import identity
from holynb.attached import Attachment
from holynb.cache_mark import CacheMark
from holynb.errors import BadRoute
from holynb.secret import Secret
from holynb.timeouts import Timeouts
from holynb.usage import Limits, Usage

__all__ = [
    "SERVICE_TIERS",
    "SIMULATED",
    "THINK_LEVELS",
    "Attachment",
    "Completion",
    "Delta",
    "Done",
    "Embedding",
    "Endpoint",
    "Engine",
    "Limits",
    "Message",
    "Outcome",
    "Prompt",
    "Request",
    "Route",
    "Sampling",
    "Secret",
    "Timeouts",
    "Usage",
]

#: The levels of `Sampling.think`, least first.
THINK_LEVELS = ("off", "low", "medium", "high", "max")
#: The service tiers that can be asked for, cheapest first.
SERVICE_TIERS = ("flex", "standard", "priority")
#: Providers whose dollars nobody is billed: the simulator, and the demo, which makes up a price for this machine's own pool.
SIMULATED = ("sim", "demo")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat. `role` is system, user or assistant. `attachments`: in the order in which they go along."""

    role: str
    content: str
    attachments: tuple[Attachment, ...] = ()

    @property
    def identity(self) -> list[Any]:
        """What makes two turns the same; of one without attachments, what it was before there were any."""
        known = [self.role, self.content]
        return [*known, [a.identity for a in self.attachments]] if self.attachments else known


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters. None: not set here (the run's value, then the provider's own, applies). `extra` is sent as it is (`-p`).

    `think`: how much the model thinks first, one of THINK_LEVELS or a number of tokens; each wire sends the nearest that its model can.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    think: str | int | None = None

    def over(self, base: Sampling) -> Sampling:
        """These values where set, `base`'s elsewhere. `extra` is merged key by key."""
        own = {f.name: v for f in fields(self) if f.name != "extra" and (v := getattr(self, f.name)) not in (None, ())}
        return replace(base, **own, extra={**base.extra, **self.extra})


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt of one row, before a route is chosen. `sampling` holds what is set for this row alone."""

    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    task_type: str | None = None

    @property
    def text(self) -> str:
        """The last user turn, for tables and previews."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def empty(self) -> bool:
        """Whether no user or assistant turn holds anything but white space, nor an attachment."""
        return not any(m.content.strip() or m.attachments for m in self.messages if m.role != "system")


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """`provider/model`, split at the first `/`: `pool/org/name` is provider `pool`, model `org/name`."""

    provider: str
    model: str

    @classmethod
    def parse(cls, text: str) -> Route:
        """The route that `text` spells. Raises BadRoute."""
        provider, slash, model = text.strip().partition("/")
        if not slash or not provider or not model or any(c.isspace() or "\ud800" <= c <= "\udfff" for c in text.strip()):
            raise BadRoute(f"{text!r} is not a route. A route is provider/model, for example openai/gpt-6-luna or sim/echo.")
        if "," in model and all("/" in part for part in text.split(",")):
            raise BadRoute(
                f"{text[:80]} is several routes: --compare {text[:80]} asks each, and --fallback names the next where one fails."
            )
        return cls(provider, model)

    def __str__(self) -> str:
        return _spelled(self.provider, self.model)


@lru_cache(maxsize=256)
def _spelled(provider: str, model: str) -> str:
    """One text for all rows of a route: each names it in its events, its outcome and its payments."""
    return f"{provider}/{model}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a route's requests go. Built by `settings`, read by engines; holds the name of the key's variable, never the key.

    `base_url` has no trailing slash and is part of a request's identity; empty for `sim`, and for `pool`, whose address is looked up at
    the first request. `address_file`: the file of the project that names it, None where the user or holynb does; `untrusted_file`: one
    that decides where the key goes, and that the user has not trusted with it. `login`: what stands in for a key that is not set.
    """

    route: Route
    wire: str
    base_url: str = ""
    key_name: str | None = None
    key_page: str | None = None
    key_optional: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    address_file: str | None = None
    untrusted_file: str | None = None
    login: str | None = None


@dataclass(frozen=True, slots=True)
class Embedding:
    """That a request asks for vectors, one for each of its messages. `dimensions`: of each; None: as many as the model's own have."""

    dimensions: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One row on its way to one route. No part of the identity: `tiers`, service tiers to ask, in order; `default_limit`: nobody said how
    long the answer may be, so another route has its own default; `attach_urls`: addresses go out as they are; `cache`: how it is sent.
    """

    row: int
    messages: tuple[Message, ...]
    route: Route
    sampling: Sampling = field(default_factory=Sampling)
    sample: int = 0
    stream: bool = False
    schema: Mapping[str, Any] | None = None
    tiers: tuple[str, ...] = ()
    default_limit: bool = False
    embedding: Embedding | None = None
    attach_urls: bool = False
    cache: CacheMark | None = None

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """Those of all turns."""
        for message in self.messages:  # nearly every request has none, and is asked five times
            if message.attachments:
                return tuple([a for m in self.messages for a in m.attachments])
        return ()

    def key(self, base_url: str) -> str:
        """The request's identity as hex SHA-256: address, requested route, messages, sampling, schema and sample number.

        `base_url` is the endpoint's (`''` for sim, of a pool what it runs), so a gateway and the provider behind it never share answers.
        """
        turns = [identity.text_of(m.identity) if m.attachments else identity.turn(m.role, m.content) for m in self.messages]
        return self.key_with(base_url, turns)

    def key_with(self, base_url: str, turns: Iterable[str]) -> str:
        """The key of the same request with these messages, as `identity.turn` writes them."""
        kind = base_url, self.route, id(self.sampling), self.sample, id(self.schema), id(self.embedding)
        return identity.hashed(identity.around(kind) or self._keep(kind, base_url), turns)

    def _keep(self, kind: tuple[object, ...], base_url: str) -> identity.Around:
        s = self.sampling
        sampling: list[Any] = [s.max_tokens, s.temperature, s.top_p, list(s.stop), s.seed, dict(sorted(s.extra.items()))]
        sampling += [] if s.think is None else [s.think]  # keys of requests without it stay what they were
        after = [sampling, self.sample, self.schema]
        after += [] if self.embedding is None else [{"embedding": self.embedding.dimensions}]
        return identity.keep(kind, ([base_url, str(self.route)], after), (s, self.schema, self.embedding))


class Delta(NamedTuple):
    """A piece of an answer, or of what is thought before it. An empty one means that the server is at work; each resets the timeout.

    `tokens_reasoning`: tokens thought so far, where the server counts while it thinks. A tuple, as one is made for every token.
    """

    text: str
    reasoning: str = ""
    tokens_reasoning: int | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer. `model` as the server named it; `finish_reason` in our words; `note`: for the user; `thinking`: tokens went to it.

    `reasoning`: what was thought, None where the server does not say it; `tier`: the service tier that the server says it used.
    `vectors`: of an `embedding`, one for each message: float32, little-endian.
    """

    text: str
    finish_reason: str
    model: str | None = None
    usage: Usage = field(default_factory=Usage)
    note: str | None = None
    thinking: bool = False
    reasoning: str | None = None
    tier: str | None = None
    vectors: tuple[bytes, ...] | None = None

    def on_tier(self, tier: str | None) -> Completion:
        """The same, served on this tier. For every answer: `replace` takes twice as long."""
        whole = self.text, self.finish_reason, self.model, self.usage, self.note, self.thinking, self.reasoning
        return Completion(*whole, tier, self.vectors)


@dataclass(frozen=True, slots=True)
class Done:
    """The last item that an engine yields for a request."""

    completion: Completion
    limits: Limits | None = None


@runtime_checkable
class Engine(Protocol):
    """A client of one endpoint, on the io loop. Raises only `errors.Fault`, already classified and with keys masked.

    `send` yields Deltas (none where not streamed) and then exactly one Done, and cleans up when closed early.
    `ready` is awaited once per run before its first request; it may start a pool, and reports that through `notice`.
    """

    endpoint: Endpoint

    def send(self, request: Request, timeouts: Timeouts) -> AsyncIterator[Delta | Done]: ...

    async def ready(self, notice: Callable[[str], None]) -> None: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a row ended. `attempts` is the number of requests that servers received; `cost` is over all of them, in dollars.

    `tier`: the service tier that served the answer, None where the server does not say it. `vector`: of `--embed`, little-endian float32
    (several texts' in turn); `text` then says what it is. `score`, `score_reason`: a judge's, or why it gave none.
    """

    status: str
    text: str | None = None
    error_type: str | None = None
    error: str | None = None
    route: str | None = None
    model: str | None = None
    attempts: int = 0
    usage: Usage = field(default_factory=Usage)
    cost: Decimal | None = None
    latency_s: float | None = None
    ttft_s: float | None = None
    finish_reason: str | None = None
    cached: bool = False
    reasoning: str | None = None
    tier: str | None = None
    vector: bytes | None = None
    score: int | None = None
    score_reason: str | None = None
