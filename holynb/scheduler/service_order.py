"""The order of service tiers (`--tier flex,standard`): which one an attempt asks for, and where a refused one leads. Pure."""

from __future__ import annotations

from dataclasses import replace

from holynb.errors import Fault
from holynb.scheduler.failover import EndpointState, WorkItem
from holynb.types import Request

__all__ = ["at_its_tier", "moves_on"]


def at_its_tier(request: Request, item: WorkItem, endpoint: EndpointState) -> Request:
    """The request with the one service tier that the item asks for next at this endpoint; with none where that has none of them."""
    tiers = endpoint.service_tiers
    at = min(item.service_tier, len(tiers) - 1)
    return replace(request, tiers=tiers[at : at + 1] if tiers else ())


def moves_on(item: WorkItem, endpoint: EndpointState, fault: Fault) -> bool:
    """Whether the item asks at another service tier after this refusal. A tier that the model is not served at is asked for no more."""
    tiers, refused = endpoint.service_tiers, fault.tier_refused
    if fault.kind == "bad_request":
        endpoint.service_tiers = tuple(t for t in tiers if t != refused) or tiers
        return endpoint.service_tiers != tiers or refused not in tiers
    if refused not in tiers[:-1]:
        return False
    item.service_tier = tiers.index(refused) + 1
    return True
