"""Jinja2 whose steps, sizes and time are bounded. Knows Jinja2 and plain values; no rows, no prompts, no models."""

from holynb.bounded.environment import BoundedEnvironment

__all__ = ["BoundedEnvironment"]
