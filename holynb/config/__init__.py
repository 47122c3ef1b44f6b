"""What a person configured: settings and their files, options, providers, keys."""

from holynb.config.options import BY_NAME, LATER, TABLE, Option, Options, duration, real, whole

__all__ = ["BY_NAME", "LATER", "TABLE", "Option", "Options", "duration", "real", "whole"]
