"""Models on disk: found, downloaded, checked, converted."""

from holynb.pool.models.convert import ConvertError, config_of
from holynb.pool.models.weights import WeightsError, ready

__all__ = ["ConvertError", "WeightsError", "config_of", "ready"]
