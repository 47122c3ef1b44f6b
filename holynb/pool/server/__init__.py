"""A pool's server process: HTTP, tokenizing, replicas. Imports no torch."""

from holynb.pool.server.api import ApiError
from holynb.pool.server.app import Routes, refuse
from holynb.pool.server.config import PoolConfig, plan_of
from holynb.pool.server.http import Events, Gone, body, event, unless_gone
from holynb.pool.server.lifecycle import StartError
from holynb.pool.server.metrics import Metrics, ReplicaStats
from holynb.pool.server.prepare import weights_folder
from holynb.pool.server.service import Identity, Service

__all__ = [
    "ApiError",
    "Events",
    "Gone",
    "Identity",
    "Metrics",
    "PoolConfig",
    "ReplicaStats",
    "Routes",
    "Service",
    "StartError",
    "body",
    "event",
    "plan_of",
    "refuse",
    "unless_gone",
    "weights_folder",
]
