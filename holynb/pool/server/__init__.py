"""A pool's server process: HTTP, tokenizing, replicas. Imports no torch."""

from holynb.pool.server.api import ApiError
from holynb.pool.server.app import Routes, refuse
from holynb.pool.server.config import PoolConfig, parse_args
from holynb.pool.server.http import ClientDisconnected, Events, read_json, run_until_disconnect, sse_event
from holynb.pool.server.lifecycle import StartError
from holynb.pool.server.metrics import Metrics, ReplicaStats
from holynb.pool.server.prepare import weights_folder
from holynb.pool.server.service import Identity, Service

__all__ = [
    "ApiError",
    "ClientDisconnected",
    "Events",
    "Identity",
    "Metrics",
    "PoolConfig",
    "ReplicaStats",
    "Routes",
    "Service",
    "StartError",
    "parse_args",
    "read_json",
    "refuse",
    "run_until_disconnect",
    "sse_event",
    "weights_folder",
]
