"""A page of the public web, read whole and bounded. No key goes along, and no redirect is followed."""

from __future__ import annotations

import asyncio

from holynb.engines import http
from holynb.errors import Fault

__all__ = ["get"]

#: Seconds to connect, and for the whole page.
CONNECT_S, WHOLE_S = 10.0, 60.0


async def get(url: str, max_bytes: int) -> bytes:
    """The body of a page. Raises Fault."""
    client = http.borrow(url)
    try:
        async with asyncio.timeout(WHOLE_S):
            reply = await client.send("GET", url, [(b"accept", b"*/*"), (b"user-agent", b"holynb")], connect=CONNECT_S)
            try:
                if reply.status != 200:
                    where = reply.headers.get("location", "")
                    raise Fault(
                        "server", f"{url} answered {reply.status}{f' and points to {where[:200]}' if where else ''}.", status=reply.status
                    )
                return await reply.read(max_bytes)
            finally:
                await reply.aclose()
    except TimeoutError:
        raise Fault("timeout", f"{url} did not answer within {WHOLE_S:g} s.") from None
    finally:
        await http.give_back(client)
