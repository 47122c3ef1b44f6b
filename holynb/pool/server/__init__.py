"""A pool's server process: HTTP, tokenizing, replicas. Imports no torch.

Hands out what needs no HTTP library; the ASGI side is imported by path, so that grammars and configuration load without one.
"""

from holynb.pool.server.apierror import ApiError, error_body
from holynb.pool.server.config import PoolConfig, parse_args
from holynb.pool.server.metrics import Metrics, ReplicaStats
from holynb.pool.server.service import Identity, Service

__all__ = ["ApiError", "Identity", "Metrics", "PoolConfig", "ReplicaStats", "Service", "error_body", "parse_args"]
