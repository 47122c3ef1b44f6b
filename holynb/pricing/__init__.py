"""What things cost: list prices, estimates, spending, and own GPUs compared."""

from holynb.pricing.estimate import Estimate, Seen
from holynb.pricing.roi import ARTICLE, Own, Roi, RoiLine, Workload, about
from holynb.pricing.spending import Spent

__all__ = ["ARTICLE", "Estimate", "Own", "Roi", "RoiLine", "Seen", "Spent", "Workload", "about"]
