"""The nouns that every room shares: what is asked, where it goes, what comes back, what happened. Standard library only.

Everything here is a fact (frozen) or a protocol. Times are seconds; `at` is `time.time()`; what nobody told us is None, never 0.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from typing import Any, Protocol, runtime_checkable

from holynb.errors import BadRoute
from holynb.secret import Secret
from holynb.usage import Limits, Usage

__all__ = [
    "Completion",
    "Delta",
    "Done",
    "Ended",
    "Endpoint",
    "Engine",
    "Event",
    "Failed",
    "Gauge",
    "Limits",
    "Load",
    "Message",
    "Noted",
    "Outcome",
    "Paused",
    "Prompt",
    "Request",
    "Route",
    "Sampling",
    "Secret",
    "Started",
    "Timeouts",
    "Usage",
]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat. `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample. None: not said here (the run's value, then the provider's own). `extra` goes to the wire as it is (`-p`)."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def over(self, base: Sampling) -> Sampling:
        """These values where said, `base`'s elsewhere. `extra` is merged key by key."""
        said = {f.name: v for f in fields(self) if f.name != "extra" and (v := getattr(self, f.name)) not in (None, ())}
        return replace(base, **said, extra={**base.extra, **self.extra})


@dataclass(frozen=True, slots=True)
class Prompt:
    """What one row asks, before a route is chosen. `sampling` holds what this row alone says."""

    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    task_type: str | None = None

    @property
    def text(self) -> str:
        """The last user turn, for tables and previews."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def empty(self) -> bool:
        """Nothing is asked: no user or assistant turn holds anything but white space."""
        return not any(m.content.strip() for m in self.messages if m.role != "system")


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """`provider/model`. Only the first `/` divides, so `pool/org/name` is provider `pool`, model `org/name`."""

    provider: str
    model: str

    @classmethod
    def parse(cls, text: str) -> Route:
        provider, slash, model = text.strip().partition("/")
        if not slash or not provider or not model or any(c.isspace() for c in text.strip()):
            raise BadRoute(f"{text!r} is not a route. A route is provider/model, for example holysheep/gpt-4.1 or sim/echo.")
        return cls(provider, model)

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a route's requests go. Made by `settings`, read by engines; holds the key's name, never the key.

    `base_url` has no trailing slash and is part of a request's identity; empty for `sim` and for `pool` (found at the first request).
    """

    route: Route
    wire: str
    base_url: str = ""
    key_name: str | None = None
    key_page: str | None = None
    key_optional: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """`connect`: to a connected socket. `silence`: longest wait without content; the whole answer where it is not streamed."""

    connect: float = 10.0
    silence: float = 60.0


@dataclass(frozen=True, slots=True)
class Request:
    """One row on its way to one route."""

    row: int
    messages: tuple[Message, ...]
    route: Route
    sampling: Sampling = field(default_factory=Sampling)
    sample: int = 0
    stream: bool = False
    schema: Mapping[str, Any] | None = None

    def key(self, base_url: str) -> str:
        """What makes two requests the same: address, requested route, prompt, sampling, schema, sample number. Hex sha256.

        The address is the endpoint's (`''` for sim and pool), so a gateway and the provider behind it never share answers.
        """
        s = self.sampling
        how = [s.max_tokens, s.temperature, s.top_p, list(s.stop), s.seed, dict(sorted(s.extra.items()))]
        what = [base_url, str(self.route), [[m.role, m.content] for m in self.messages], how, self.sample, self.schema]
        text = json.dumps(what, ensure_ascii=False, separators=(",", ":"), default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer. An empty one says only that the server is at work (leaves the silence clock at zero)."""

    text: str


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer. `model` as the server named it; `finish_reason`: stop, length, content_filter, tool, its own word; `note`: for people."""

    text: str
    finish_reason: str
    model: str | None = None
    usage: Usage = field(default_factory=Usage)
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The last thing an engine says of a request."""

    completion: Completion
    limits: Limits | None = None


@runtime_checkable
class Engine(Protocol):
    """One endpoint that answers. Lives on the io loop; raises `errors.Fault` alone, already translated and masked.

    `send` yields Deltas (none where not streamed) and then exactly one Done, and cleans up when closed early.
    `ready` is awaited once per run before its first request; it may start a pool, and says so through `notice`.
    """

    endpoint: Endpoint

    def send(self, request: Request, timeouts: Timeouts) -> AsyncIterator[Delta | Done]: ...

    async def ready(self, notice: Callable[[str], None]) -> None: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a row ended. `attempts` equals the requests that servers saw; `cost` is over all of them."""

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


@dataclass(frozen=True, slots=True)
class Started:
    """An attempt goes out."""

    row: int
    attempt: int
    route: str
    at: float


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt ended without an answer. `wait` is the pause before the next one; None where there is none. `raw` is masked and cut."""

    row: int
    attempt: int
    route: str
    kind: str
    message: str
    at: float
    wait: float | None = None
    usage: Usage | None = None
    raw: str | None = None


@dataclass(frozen=True, slots=True)
class Paused:
    """An endpoint asked everybody to wait (429, overload)."""

    route: str
    seconds: float
    kind: str
    at: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a row; exactly one each, whatever happens."""

    row: int
    outcome: Outcome
    at: float


@dataclass(frozen=True, slots=True)
class Noted:
    """Something a person should read: a pool that starts, a log that cannot be written, a price that is unknown."""

    text: str
    at: float
    level: str = "info"


@dataclass(frozen=True, slots=True)
class Gauge:
    """Memory of one device, bytes; `total` 0: not said. `ours`: what this run's workers hold; `parts` splits it (weights, kv, rest)."""

    device: str
    used: int
    total: int
    at: float
    ours: int | None = None
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a server of one's own says it is: requests running and waiting, the share of its KV cache in use (0 to 1)."""

    route: str
    at: float
    running: int | None = None
    waiting: int | None = None
    kv: float | None = None


Event = Started | Failed | Paused | Ended | Noted | Gauge | Load
