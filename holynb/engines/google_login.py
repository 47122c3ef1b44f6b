"""Google Cloud's application default credentials, by google-auth: a token, and the project that they name. Blocks; knows no wire."""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass
from typing import Any

from holynb.config.logins import LOGINS
from holynb.engines.tokens import Token
from holynb.errors import Fault

__all__ = ["NAME", "SCOPE", "Credentials"]

#: The name of such a Secret.
NAME = "the Google Cloud token"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
#: Seconds that a token is taken to hold whose end is not told.
UNTOLD_S = 600.0


@dataclass(slots=True)
class Credentials:
    """What the login of this machine gives. `project` and `quota_project` are known after the first `fetch`."""

    provider: str
    project: str | None = None
    quota_project: str | None = None

    def fetch(self) -> Token:
        """A token. Raises Fault."""
        try:
            import google.auth
            from google.auth import exceptions
            from google.auth.transport.requests import Request
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - of the packages that it imports, too
            raise self._fault(f"google-auth cannot be loaded: {_first_words(exc)}; pip install 'holynb[google]'") from None
        try:
            credentials, self.project = google.auth.default(scopes=[SCOPE])
            credentials.refresh(Request())  # type: ignore[no-untyped-call]
            self.quota_project = _payer(credentials)
            ends = getattr(credentials, "expiry", None)  # UTC, and says so nowhere
            expires = ends.replace(tzinfo=dt.UTC).timestamp() if ends else time.time() + UNTOLD_S
            return Token.read(credentials.token, NAME, expires)
        except exceptions.DefaultCredentialsError as exc:
            raise self._fault(_first_words(exc)) from None
        except (exceptions.GoogleAuthError, OSError, ValueError) as exc:
            away = isinstance(exc, exceptions.TransportError) and not isinstance(exc, exceptions.RefreshError)
            raise self._fault(_first_words(exc), away=away) from None
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - what a damaged file of credentials makes of google-auth's own code
            raise self._fault(f"google-auth cannot read it: {type(exc).__name__}: {_first_words(exc)}") from None

    def _fault(self, reason: str, *, away: bool = False) -> Fault:
        login = LOGINS["google"]
        words = f"{self.provider}: the {login.title} login gave no token ({reason.rstrip('.')}). Run {login.cure} in a terminal."
        return Fault("connection" if away else "auth", words, stops=not away)


def _payer(credentials: Any) -> str | None:
    """The project that pays, which goes into a header. Raises ValueError."""
    payer = getattr(credentials, "quota_project_id", None)
    if payer is None or (isinstance(payer, str) and payer.isascii() and payer.isprintable()):
        return payer
    raise ValueError("its quota_project_id is not the name of a project")


def _first_words(exc: BaseException) -> str:
    """The first sentence: what follows is advice, and a refused refresh repeats the server's answer."""
    words = " ".join(str(exc.args[0] if exc.args else exc).split())
    return words.partition(". ")[0][:200] or type(exc).__name__
