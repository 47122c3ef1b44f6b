"""One check of the doctor, and how a probe's checks are made. Knows nothing of what is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

from holynb.errors import HolynbError

__all__ = ["Check", "checked", "installed"]


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `state`: works, absent (fine until it is wanted) or broken. `cure`: the command or the advice that changes it."""

    name: str
    state: str
    says: str
    cure: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def checked(probe: Callable[[], Iterator[Check]]) -> list[Check]:
    """The checks of a probe; one broken check if it raises."""
    try:
        return list(probe())
    except Exception as exc:  # noqa: BLE001 - whatever is broken on this machine, the other checks are made
        words = str(exc) if isinstance(exc, HolynbError | OSError) else f"{type(exc).__name__}: {exc}"
        return [Check(probe.__name__.replace("_", " "), "broken", " ".join(words.split()))]


def installed(distribution: str) -> str | None:
    """The version of a distribution; None where it is not there."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
