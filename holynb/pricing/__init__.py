"""What things cost: list prices, estimates, spending, and own GPUs compared."""

from holynb.pricing.estimate import Estimate, MeasuredAnswer
from holynb.pricing.roi import ARTICLE, OwnGpus, Roi, RoiLine, Workload, round_dollars
from holynb.pricing.spending import SpendingLine

__all__ = ["ARTICLE", "Estimate", "MeasuredAnswer", "OwnGpus", "Roi", "RoiLine", "SpendingLine", "Workload", "round_dollars"]
