"""An endpoint that takes the token of a login where no key is set: fetched before the first row, dropped once refused. Knows no vendor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from holynb.engines import entry
from holynb.engines.hosted import Hosted, Wire
from holynb.engines.tokens import Tokens
from holynb.errors import BadKey, Fault
from holynb.types import Endpoint, Secret

__all__ = ["LoggedIn"]


class LoggedIn(Hosted, ABC):
    """`tokens`: those of the login, None where only a key will do; `token_name`: that of their Secrets, which tells them from a key."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None], wire: Wire, tokens: Tokens | None, token_name: str) -> None:
        super().__init__(endpoint, key, wire)
        self._tokens, self._token_name = tokens, token_name

    async def ready(self, notice: Callable[[str], None]) -> None:
        """Log in where there is no key, so that a login that fails is said once and not for each row. Raises BadKey."""
        await super().ready(notice)
        try:
            await self._authorized()
        except Fault as fault:
            if fault.kind == "auth":  # else its server is away, which the rows may outlast
                raise BadKey(fault.message) from None
        else:
            self._check_login()

    def _check_login(self) -> None:
        """What else a request needs, and only the login may know. Raises UserError."""

    async def _authorized(self) -> Secret | None:
        secret = self._key()
        return secret if secret is not None or self._tokens is None else await self._tokens.get()

    def _describe(self, fault: Fault, secret: Secret | None) -> None:
        if fault.kind != "auth" or self._tokens is None or secret is None or secret.name != self._token_name:
            super()._describe(fault, secret)
            return
        if self._tokens.forget(secret):
            fault.retry, fault.stops, fault.wait = True, False, 0.0
        fault.message = self._login_refused(fault.message)
        entry.admit_fault(fault, self._mask_of(secret))

    @abstractmethod
    def _login_refused(self, words: str) -> str:
        """What to say of a refused token, and what to do; `words`: the server's."""
