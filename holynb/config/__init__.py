"""What a person configured: settings and their files, options, providers, keys."""

from holynb.config.converters import duration, duration_text, integer, number, whole_number
from holynb.config.options import BY_NAME, PLANNED, TABLE, Option, Options

__all__ = ["BY_NAME", "PLANNED", "TABLE", "Option", "Options", "duration", "duration_text", "integer", "number", "whole_number"]
