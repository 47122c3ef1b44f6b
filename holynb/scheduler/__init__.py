"""Rows to endpoints and outcomes back: limits, quotas, retries, failover, budget, validation. asyncio only; imports no engine."""

from holynb.scheduler.attempt import ok_outcome, record_usage
from holynb.scheduler.budget import Budget, Money
from holynb.scheduler.empty_answers import check_empty
from holynb.scheduler.ends import RowEnds, shared_outcome
from holynb.scheduler.failover import EndpointState, Tier, WorkItem
from holynb.scheduler.limiter import Limiter
from holynb.scheduler.prompt_cache import NOTHING, CacheHead, CacheTerms, PromptCache
from holynb.scheduler.queues import Backlog
from holynb.scheduler.registry import shared_limiter
from holynb.scheduler.retry import Policy
from holynb.scheduler.scheduler import Scheduler
from holynb.scheduler.validation import ResponseValidator, supports_schema

__all__ = [
    "NOTHING",
    "Backlog",
    "Budget",
    "CacheHead",
    "CacheTerms",
    "EndpointState",
    "Limiter",
    "Money",
    "Policy",
    "PromptCache",
    "ResponseValidator",
    "RowEnds",
    "Scheduler",
    "Tier",
    "WorkItem",
    "check_empty",
    "ok_outcome",
    "record_usage",
    "shared_limiter",
    "shared_outcome",
    "supports_schema",
]
