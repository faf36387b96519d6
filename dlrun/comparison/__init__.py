"""Comparing recorded runs: leaderboards, tests and pictures. Nothing here needs torch."""

from dlrun.comparison.comparison import Comparison, compare
from dlrun.comparison.grouping import Row

__all__ = ["Comparison", "Row", "compare"]
