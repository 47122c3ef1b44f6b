"""The AWS chain: the region and the keys that botocore would use, as environment, files and profiles say. Asks no network, holds no key.

Keys of a role of this machine come over the network when a request is signed, so they are not looked up here. Without botocore the region
is still found: a bearer token needs nothing else.
"""

from __future__ import annotations

import configparser
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from holynb.config import dotenv

__all__ = ["EXTRA", "Chain", "describe", "installed", "look", "region", "region_of_arn", "uses_fips"]

#: What brings botocore.
EXTRA = "pip install 'holynb[aws]'"
#: Settings of a profile that lead to keys.
_SOURCES = (
    "aws_access_key_id",
    "role_arn",
    "sso_session",
    "sso_start_url",
    "credential_process",
    "web_identity_token_file",
    "login_session",
)


@dataclass(frozen=True, slots=True)
class Chain:
    """What was found. `keys`: where they are, in words; None where they would come with a request. `problem`: what botocore cannot read."""

    region: str | None = None
    keys: str | None = None
    problem: str | None = None

    @property
    def where(self) -> str:
        """`keys`, or what it means that there are none."""
        return self.keys or "no AWS keys found (a role of this machine is looked up when a request is signed)"


def installed() -> bool:
    """Whether botocore is there."""
    return find_spec("botocore") is not None


def look(configured: str = "") -> Chain:
    """Region and keys. `configured`: the region of config.toml. Needs botocore."""
    from botocore.exceptions import BotoCoreError
    from botocore.session import get_session

    session = get_session()
    try:
        return Chain(region(configured, session), _keys(session))
    except BotoCoreError as exc:  # a profile that is not there, a file that cannot be read
        return Chain(problem=str(exc))


def describe(configured: str = "") -> str:
    """`look` in a few words for lists."""
    if not installed():
        return f"AWS keys need botocore: {EXTRA}"
    chain = look(configured)
    if chain.problem:
        return f"no AWS keys: {chain.problem.rstrip('.')}"
    return f"{chain.where}, {f'region {chain.region}' if chain.region else 'no region: set AWS_DEFAULT_REGION'}"


def region(configured: str = "", session: Any = None) -> str | None:
    """The region of config.toml, else what botocore's `session` says, else the environment's and the profile's. Raises BotoCoreError."""
    name = configured or (session.get_config_variable("region") if session is not None else _region_of_files())
    # A .env file is not botocore's; Lambda and the SDKs of other languages set the second, which botocore does not read either.
    return name or dotenv.read_variable("AWS_DEFAULT_REGION")[0] or dotenv.read_variable("AWS_REGION")[0]


def region_of_arn(model: str) -> str:
    """The region in the ARN of a model or an endpoint; empty for another name."""
    parts = model.split(":")
    return parts[3] if len(parts) > 5 and parts[0] == "arn" else ""


def uses_fips(session: Any = None) -> bool:
    """Whether requests go to FIPS endpoints."""
    if session is not None:
        return bool(session.get_config_variable("use_fips_endpoint"))
    return os.environ.get("AWS_USE_FIPS_ENDPOINT", "").lower() == "true"


def _region_of_files() -> str | None:
    """AWS_DEFAULT_REGION, or the region of the profile in the files of AWS, as botocore reads them."""
    if set_here := os.environ.get("AWS_DEFAULT_REGION"):
        return set_here
    profile = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE") or "default"
    places = (("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials", profile), ("AWS_CONFIG_FILE", "~/.aws/config", f"profile {profile}"))
    for variable, usual, section in places:
        read = configparser.RawConfigParser()
        try:
            read.read(Path(os.environ.get(variable, usual)).expanduser(), encoding="utf-8")
        except (OSError, UnicodeDecodeError, configparser.Error):
            continue
        for name in (section, profile):
            if (value := read.get(name, "region", fallback=None)) is not None:
                return value
    return None


def _keys(session: Any) -> str | None:
    """Where the chain finds keys without a request; None if it finds none. Raises BotoCoreError for a profile that is not there."""
    if os.environ.get("AWS_ACCESS_KEY_ID") and os.environ.get("AWS_SECRET_ACCESS_KEY"):
        return "keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    profile, name = session.get_scoped_config(), session.profile or "default"
    return f"keys of the profile {name}" if any(profile.get(key) for key in _SOURCES) else None
