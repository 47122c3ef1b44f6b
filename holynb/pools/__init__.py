"""The client's side of local pools: start, find, status, logs. Reaches a pool through its socket alone."""

from holynb.pools.client import end_reason, find, find_status, gauges, listing, logs, not_running, start_command, status, stop
from holynb.pools.deploy import deploy
from holynb.pools.identity import identity
from holynb.pools.info import PoolInfo
from holynb.pools.launch import plan, start
from holynb.pools.logfiles import ENDED_ON_REQUEST
from holynb.pools.options import EMBEDDED

__all__ = [
    "EMBEDDED",
    "ENDED_ON_REQUEST",
    "PoolInfo",
    "deploy",
    "end_reason",
    "find",
    "find_status",
    "gauges",
    "identity",
    "listing",
    "logs",
    "not_running",
    "plan",
    "start",
    "start_command",
    "status",
    "stop",
]
