"""What a fault says about the endpoint that it came from, and how that is told. Knows no queues and no retries."""

from __future__ import annotations

import asyncio

from holynb.errors import Fault
from holynb.scheduler.failover import EndpointState

__all__ = ["GATEWAY_STATUSES", "kind", "last_word", "refusal"]

#: A gateway's statuses for a server behind it that is gone: 502 of nginx and its kin, the others Cloudflare's.
GATEWAY_STATUSES = frozenset({502, 521, 522, 523})


def kind(endpoint: EndpointState, fault: Fault) -> str:
    """What the fault says about the endpoint: `connection` also where a gateway, or the time it took to connect, says that it is gone.

    A 503 of a server that was gone a moment ago: it starts.
    """
    gone = fault.status in GATEWAY_STATUSES and endpoint.answered
    starts = fault.status == 503 and endpoint.breaker.is_open and endpoint.breaker.kind == "connection"
    return "connection" if fault.unreachable or gone or starts else fault.kind


def refusal(endpoint: EndpointState, fault: Fault, waited: float) -> str:
    """Why a row leaves an endpoint that refuses it."""
    return f"{endpoint.route} refused for {waited:.0f} s: {fault.message}" if waited >= 1 else f"{endpoint.route}: {fault.message}"


def last_word(endpoint: EndpointState, fault: Fault) -> Fault:
    """The fault of the rows that waited for a server which did not come back."""
    waited = asyncio.get_running_loop().time() - (endpoint.breaker.failing_since or 0.0)
    words = f"{endpoint.route} did not come back within {waited:.0f} s: {fault.message}" if endpoint.answered else fault.message
    return Fault(fault.kind, words, retry=False, stops=True, status=fault.status, raw=fault.raw)
