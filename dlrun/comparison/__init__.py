"""Comparing recorded runs: leaderboards, tests and pictures. Nothing here needs torch."""

from dlrun.comparison.comparing import compare
from dlrun.comparison.comparison import Comparison
from dlrun.comparison.grouping import Row

__all__ = ["Comparison", "Row", "compare"]
