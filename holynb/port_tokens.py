"""Named tokens for the ports of this machine's pools: who may ask, and how many tokens a day. Knows files; no pools and no HTTP.

`HOLYNB_HOME/pool-tokens.json` (0600) holds a SHA-256 of each, never the token itself. A fast hash is enough: a token is 32 random bytes,
which nobody guesses (slow hashes are for what people choose: NIST SP 800-63B, 5.1.1.2).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

from holynb.words import composed
from kernels_support.jupyter.files import private_folder
from kernels_support.jupyter.lock import Lock

__all__ = [
    "PortToken",
    "TokenNameError",
    "add",
    "add_all",
    "change",
    "check_name",
    "digest",
    "new_token",
    "path",
    "read",
    "remove",
]

_NAME = re.compile(r"[\w.@-]{1,64}")


class TokenNameError(ValueError):
    """No name for a token, or one that is taken, or that no token has; the message says what to do."""


@dataclass(frozen=True, slots=True)
class PortToken:
    """One named token. `tokens_per_day`: None is without a limit. `expires`: a time in ISO 8601 with its zone; empty: never."""

    name: str
    sha256: str
    tokens_per_day: int | None = None
    added: str = ""
    expires: str = ""

    @property
    def is_expired(self) -> bool:
        return bool(self.expires) and datetime.fromisoformat(self.expires) <= datetime.now().astimezone()


def path(home: Path) -> Path:
    return home / "pool-tokens.json"


def digest(token: bytes) -> str:
    return hashlib.sha256(token).hexdigest()


def read(home: Path) -> list[PortToken]:
    """Every named token; none where there is no file. Raises OSError, ValueError where the file is not one of ours."""
    try:
        entries = json.loads(path(home).read_text(encoding="utf-8"))["tokens"]
    except FileNotFoundError:
        return []
    except (KeyError, TypeError) as exc:
        raise ValueError(f"{path(home)} is no list of tokens") from exc
    return [_entry(entry, home) for entry in entries]


def new_token() -> str:
    """256 random bits, with a beginning by which they are known and masked wherever they stand."""
    return f"hnb_{secrets.token_urlsafe(32)}"


def check_name(name: str) -> None:
    """Raises TokenNameError."""
    if not _NAME.fullmatch(composed(name)):
        raise TokenNameError(f"A token's name is 1 to 64 letters, digits, '.', '-', '_' and '@', not {name!r}.")


def add(home: Path, name: str, tokens_per_day: int | None = None, expires: str = "") -> str:
    """A new token of this name, which is said once. Raises TokenNameError, OSError, ValueError."""
    if not (tokens := add_all(home, [name], tokens_per_day, expires)):
        raise TokenNameError(f"There is a token {name} already. Remove it first (pool token remove {name}), or take another name.")
    return tokens[composed(name)]


def add_all(home: Path, names: Sequence[str], tokens_per_day: int | None = None, expires: str = "") -> Mapping[str, str]:
    """Name → its new token, for each that has none yet; all of them or none. Raises TokenNameError, OSError, ValueError."""
    for name in names:
        check_name(name)
    today = date.today().isoformat()  # noqa: DTZ011 - the day of whoever adds it
    with _lock(home):
        before = read(home)
        taken = {t.name for t in before}
        tokens = {name: new_token() for name in dict.fromkeys(map(composed, names)) if name not in taken}
        if tokens:
            added = [PortToken(name, digest(token.encode()), tokens_per_day, today, expires) for name, token in tokens.items()]
            _write(home, [*before, *added])
    return tokens


def change(home: Path, names: Collection[str], changed: Callable[[PortToken], PortToken]) -> None:
    """Change tokens that stay as they are otherwise; all or none. Raises TokenNameError, OSError, ValueError."""
    wanted = {*map(composed, names)}
    with _lock(home):
        tokens = read(home)
        _check_there(tokens, names, "Add it: pool token add {name}")
        _write(home, [changed(t) if t.name in wanted else t for t in tokens])


def remove(home: Path, *names: str) -> None:
    """Pools refuse them from their next request on; all are removed or none. Raises TokenNameError, OSError, ValueError."""
    wanted = {*map(composed, names)}
    with _lock(home):
        tokens = read(home)
        _check_there(tokens, names, f"{'There are: ' + ', '.join(t.name for t in tokens) if tokens else 'There are none'}.")
        _write(home, [t for t in tokens if t.name not in wanted])


def _check_there(tokens: Sequence[PortToken], names: Collection[str], advice: str) -> None:
    """Raises TokenNameError for the first name that no token has."""
    there = {t.name for t in tokens}
    if (lost := next((n for n in names if composed(n) not in there), None)) is not None:
        raise TokenNameError(f"There is no token {lost}. {advice.replace('{name}', lost)}")


def _entry(entry: Any, home: Path) -> PortToken:
    try:
        token = PortToken(**entry)
        token.is_expired  # noqa: B018 - raises where its time is none
    except (TypeError, ValueError) as exc:
        raise ValueError(f"{path(home)} is no list of tokens") from exc
    limit = token.tokens_per_day
    if not (isinstance(token.name, str) and isinstance(token.sha256, str) and (limit is None or (type(limit) is int and limit >= 0))):
        raise ValueError(f"{path(home)} is no list of tokens")
    return replace(token, name=composed(token.name))


def _lock(home: Path) -> Lock:
    return Lock(home / "pool-tokens.lock")


def _write(home: Path, tokens: Sequence[PortToken]) -> None:
    """Put a whole file in the place of the old one: a pool may be reading it."""
    private_folder(home)
    aside = path(home).with_suffix(f".{os.getpid()}")
    # A pool that was started by an earlier version knows no `expires`, and would let nobody in.
    entries = [{k: v for k, v in asdict(token).items() if k != "expires" or v} for token in tokens]
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump({"tokens": entries}, file, ensure_ascii=False, indent=1)
    aside.replace(path(home))
