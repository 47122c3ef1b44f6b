"""Calls of a batch API through the engine of its endpoint: JSON in and out, and files of JSON lines read as they come. Knows no vendor."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from holynb.engines import codec
from holynb.engines.hosted import Hosted
from holynb.errors import Fault
from holynb.units import memory

__all__ = ["UPLOAD_S", "cut_off", "id_of", "json_call", "json_lines", "reason_of", "seconds_of"]

#: Longest wait for the reply to an upload, seconds.
UPLOAD_S = 900.0
#: A line of results: the longest answer there is, and what is around it.
MAX_LINE_BYTES = 32 * 2**20
#: Answers that come in one JSON.
MAX_JSON_BYTES = 256 * 2**20
#: What an id of a provider is made of: it goes into addresses, and is shown.
_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_:/-]|\.(?!\.)){0,255}")
#: Characters of a provider's reason that are shown.
_MAX_REASON = 500


async def json_call(engine: Hosted, method: str, url: str, value: Any = None, *, body: bytes | None = None, kind: str = "") -> Any:
    """The JSON of a reply. `body` of this `kind` in place of JSON. Raises Fault."""
    sent = codec.dumps(value) if value is not None else body if body is not None else b"" if method == "POST" else None
    reply = await engine.call(method, url, sent, kind, UPLOAD_S if sent else 60.0)
    try:
        data = await reply.read(MAX_JSON_BYTES)
    finally:
        await reply.aclose()
    try:
        return codec.loads(data)
    except ValueError:
        raise Fault("server", f"{engine.endpoint.route.provider} answered something that is not JSON about a batch") from None


async def json_lines(engine: Hosted, url: str) -> AsyncIterator[Any]:
    """The values of a file of JSON lines. What is no JSON is left out: its row has no answer then. Raises Fault."""
    reply = await engine.call("GET", url)
    rest = b""
    try:
        while chunk := await reply.chunk():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line.strip():
                    with suppress(ValueError):
                        yield codec.loads(line)
            if len(rest) > MAX_LINE_BYTES:
                raise Fault("server", f"{engine.endpoint.route.provider} sent a line of more than {memory(MAX_LINE_BYTES)}")
        if rest.strip():
            with suppress(ValueError):
                yield codec.loads(rest)
    finally:
        await reply.aclose()


def id_of(value: Any) -> str:
    """The id of a batch. Raises Fault where there is none in the reply."""
    if isinstance(value, str) and _ID.fullmatch(value):
        return value
    raise Fault("server", "a batch has no id in the reply")


def reason_of(value: Any) -> str:
    """Why a provider refused a batch, in its words."""
    text = value if isinstance(value, str) and value.strip() else "no reason was given"
    return text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}…"


def seconds_of(value: Any) -> float | None:
    """A time as seconds since 1970: a number, or ISO 8601."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        return dt.datetime.fromisoformat(str(value)).timestamp()
    except ValueError:
        return None


def cut_off(fault: Fault) -> bool:
    """Whether what was asked may have been done all the same: nothing says that it was not."""
    refused = fault.status is not None and 300 <= fault.status < 500
    return not (refused or fault.unreachable or fault.stops)
