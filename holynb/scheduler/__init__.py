"""Rows to endpoints and outcomes back: limits, quotas, retries, failover, budget, validation. asyncio only; imports no engine."""
