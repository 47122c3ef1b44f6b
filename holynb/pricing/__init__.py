"""What things cost: list prices, estimates, spending, and own GPUs compared."""

from holynb.pricing.estimate import Estimate, Seen
from holynb.pricing.roi import ARTICLE, Line, Load, Own, Roi, about
from holynb.pricing.spending import Spent

__all__ = ["ARTICLE", "Estimate", "Line", "Load", "Own", "Roi", "Seen", "Spent", "about"]
