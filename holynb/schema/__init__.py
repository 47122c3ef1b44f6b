"""A JSON Schema or pydantic model, and the columns it makes."""

from holynb.schema.schema import Schema, load

__all__ = ["Schema", "load"]
