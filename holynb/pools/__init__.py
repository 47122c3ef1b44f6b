"""The client's side of local pools: start, find, status, logs. Reaches a pool through its socket alone."""

from holynb.pools.client import command, epitaph, find, gauges, glance, listing, logs, plan, start, status, stop
from holynb.pools.info import PoolInfo
from holynb.pools.options import EMBEDDED

__all__ = [
    "EMBEDDED",
    "PoolInfo",
    "command",
    "epitaph",
    "find",
    "gauges",
    "glance",
    "listing",
    "logs",
    "plan",
    "start",
    "status",
    "stop",
]
