"""What happens in a run, as its journal holds it. Frozen dataclasses; `at` is `time.time()`, an unknown value is None, never 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from holynb.types import Outcome
from holynb.usage import Usage

__all__ = ["Ended", "Event", "Failed", "Gauge", "Load", "Noted", "Paused", "Started"]


@dataclass(frozen=True, slots=True)
class Started:
    """An attempt is sent."""

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
    """An endpoint takes no requests for `seconds`: it refuses them (`rate_limit`), or its server is gone (any other kind of fault)."""

    route: str
    seconds: float
    kind: str
    at: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a row. Exactly one per row, whatever happens."""

    row: int
    outcome: Outcome
    at: float


@dataclass(frozen=True, slots=True)
class Noted:
    """A note for the user: a pool is starting, the log cannot be written, a price is unknown."""

    text: str
    at: float
    level: str = "info"


@dataclass(frozen=True, slots=True)
class Gauge:
    """Memory of one device, in bytes; `total` 0: unknown. `ours`: held by this run's workers; `parts` splits it (weights, kv, rest)."""

    device: str
    used: int
    total: int
    at: float
    ours: int | None = None
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Load:
    """Load that a self-hosted server reports: requests running and waiting, the share of its KV cache in use (0 to 1)."""

    route: str
    at: float
    running: int | None = None
    waiting: int | None = None
    kv: float | None = None


Event = Started | Failed | Paused | Ended | Noted | Gauge | Load
