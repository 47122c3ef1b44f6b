"""An endpoint of AWS: its address by region, requests signed with SigV4, or a bearer token in a signature's place. Knows no wire's JSON.

Keys come from the AWS chain, by botocore: environment, profile, single sign-on, role. It is loaded by the first request that needs it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from holynb.config import aws_chain
from holynb.engines import http
from holynb.engines.aws_errors import advice
from holynb.engines.codec import Body
from holynb.engines.hosted import Hosted, Traits, Wire, encoded
from holynb.engines.tokens import FETCH_S
from holynb.errors import BadKey, BadRoute, BadSetting, Fault, UserError
from holynb.types import Endpoint, Request, Secret, Timeouts

__all__ = ["AwsHosted", "AwsService"]

#: Beginning of a region's name → where its addresses end. botocore's partitions; the test compares them.
_SUFFIXES: Mapping[str, str] = {
    "cn-": "amazonaws.com.cn",
    "eusc-": "amazonaws.eu",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "us-isof-": "csp.hci.ic.gov",
    "eu-isoe-": "cloud.adc-e.uk",
}
#: Errors of botocore that say that whoever has the keys was not reached; the class of a metadata service's is the third.
_AWAY = ("HTTPClientError", "ConnectionError", "MetadataRetrievalError")
T = TypeVar("T")
#: Headers that proxies may change, and so stay unsigned.
_UNSIGNED = ("user-agent", "accept-encoding")


@dataclass(frozen=True, slots=True)
class AwsService:
    """`signing`: its name in a signature; `host`: its address before the region; `bearer`: whether it takes a token instead.

    `always_fips`: the beginning of regions in which its one address is the FIPS one.
    """

    signing: str
    host: str
    bearer: bool = False
    always_fips: str = "-"

    def address(self, region: str, *, fips: bool = False) -> str:
        """Where it is in a region."""
        first, dot, rest = self.host.partition(".")
        suffix = next((s for start, s in _SUFFIXES.items() if region.startswith(start)), "amazonaws.com")
        marked = fips and not region.startswith(self.always_fips)
        return f"https://{first}{'-fips' if marked else ''}{dot}{rest}.{region}.{suffix}"


class AwsHosted(Hosted):
    """One endpoint of a service of AWS."""

    def __init__(self, endpoint: Endpoint, key: Callable[[], Secret | None], wire: Wire, service: AwsService) -> None:
        super().__init__(endpoint, key, wire)
        self._service = service
        self._session: Any = None
        self._signed_with: tuple[Secret, ...] = ()
        self._region = ""
        self._fips = False

    async def ready(self, notice: Callable[[str], None]) -> None:
        """Find region and keys, perhaps from the machine's metadata service. Raises BadKey, BadSetting, BadRoute."""
        await super().ready(notice)
        try:
            await self._prepare()
        except Fault as fault:
            raise BadKey(fault.message) from None

    async def _prepare(self) -> None:
        if self._token(self._key()) is not None:
            if not self._region:
                self._find_region(None)
        elif self._session is None:
            await _in_time(self._find_credentials)

    def _token(self, secret: Secret | None) -> Secret | None:
        return secret if self._service.bearer else None

    def _find_region(self, session: Any) -> None:
        """The region: the model's own, where an ARN names it, else the configured one, else the chain's. Raises BadSetting."""
        provider, options = self.endpoint.route.provider, self.endpoint.options
        named = aws_chain.region_of_arn(self.endpoint.route.model)
        region = named or aws_chain.region(str(options.get("region") or ""), session) or ""
        if region and not re.fullmatch(r"[a-z0-9-]+", region):
            raise BadSetting(f"{region[:60]!r} is not the name of a region: set AWS_DEFAULT_REGION to one such as eu-west-1.")
        if not region and (session is not None or not self.endpoint.base_url):  # a token for a given address needs none
            raise BadSetting(
                f"{provider}/… needs a region: set AWS_DEFAULT_REGION, or [provider.{provider}.options] region in config.toml."
            )
        self._region, self._fips = region, aws_chain.uses_fips(session)

    def _find_credentials(self) -> None:
        provider = self.endpoint.route.provider
        try:
            from botocore.session import get_session
        except ImportError as exc:
            token = f", or set {self.endpoint.key_name}, which needs no botocore" if self.endpoint.key_name else ""
            raise BadRoute(f"{provider}/… signs its requests with botocore: {aws_chain.EXTRA}{token}.") from exc
        session = _ask_chain(get_session)
        _ask_chain(lambda: self._find_region(session))
        if _ask_chain(session.get_credentials) is None:
            token = f", or {self.endpoint.key_name}" if self.endpoint.key_name else ""
            raise BadKey(
                f"No AWS keys were found. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE{token}, and run the cell again."
            )
        self._session = session

    async def _post(self, request: Request, traits: Traits, secret: Secret | None, timeouts: Timeouts) -> http.Reply:
        await self._prepare()
        return await super()._post(request, traits, secret, timeouts)

    async def _request_headers(self, url: str, body: Body, secret: Secret | None) -> list[tuple[bytes, bytes]]:
        """Signed headers. In another thread, since the keys of a role are fetched again when they expire. Raises Fault."""
        if self._token(secret) is not None:
            return await super()._request_headers(url, body, secret)
        return await _in_time(lambda: encoded(self._signed(url, body, self._wire.headers(self.endpoint, None))))

    def _signed(self, url: str, body: Body, headers: Mapping[str, str]) -> Mapping[str, str]:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        credentials = _ask_chain(lambda: self._session.get_credentials().get_frozen_credentials())
        values = [credentials.secret_key, credentials.access_key, *([credentials.token] if credentials.token else [])]
        if not all(isinstance(v, str) and v and v.isascii() and v.isprintable() for v in values):
            raise _unusable("they contain characters that no key has")  # they go into headers
        if [s.reveal() for s in self._signed_with] != values:  # a role's keys change while it runs
            self._signed_with = tuple(Secret(v, "AWS key") for v in values)
        signed = {k: v for k, v in headers.items() if k not in _UNSIGNED}
        request = AWSRequest("POST", url, headers=signed, data=body)
        SigV4Auth(credentials, self._service.signing, self._region).add_auth(request)
        return {**headers, **{k.lower(): v for k, v in request.headers.items()}}

    def _url(self, request: Request, wire: Wire) -> str:
        base = self.endpoint.base_url or self._service.address(self._region, fips=self._fips)
        return base + wire.url(self.endpoint, request)

    def _secrets(self, secret: Secret | None) -> tuple[Secret, ...]:
        """The AWS keys, too: a server's message about a signature may repeat what was signed."""
        return (*super()._secrets(secret), *self._signed_with)

    def _advise(self, fault: Fault, secret: Secret | None) -> str:
        return advice(fault, self.endpoint, self._region, keyed=self._token(secret) is not None) or super()._advise(fault, secret)


async def _in_time(work: Callable[[], T]) -> T:
    """What needs the chain's keys, in another thread: a sign-in, or a program of the profile, may wait for what never comes."""
    try:
        async with asyncio.timeout(FETCH_S):
            return await asyncio.to_thread(work)
    except TimeoutError:
        words = (
            f"The AWS keys did not come within {FETCH_S:g} s: the source that the profile names does not answer. Sign in again, or set "
            "AWS_PROFILE to another."
        )
        raise Fault("connection", words) from None


def _ask_chain(ask: Callable[[], T]) -> T:
    """What the chain answers. Raises Fault: a role, a program of the profile and a damaged file raise more than botocore's own errors."""
    try:
        return ask()
    except UserError:
        raise
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - ClientError, OSError, ValueError, TypeError and others were seen
        away = any(base.__name__ in _AWAY for base in type(exc).__mro__)
        raise _unusable(str(exc) or type(exc).__name__, away=away) from None


def _unusable(reason: str, *, away: bool = False) -> Fault:
    """Why the chain gives no keys, and what to do."""
    words = " ".join(reason.split()).rstrip(".")[:400]
    ended = re.search(r"\bsso\b|token", words, re.IGNORECASE)
    cure = (
        "run aws sso login in a terminal, then the cell again"
        if ended
        else "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )
    return Fault("connection" if away else "auth", f"The AWS keys cannot be used ({words}): {cure}.", stops=not away)
