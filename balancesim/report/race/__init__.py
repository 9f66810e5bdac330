"""The report "race": score given up against imbalance left, how fast, and what a sudden shift does."""

from balancesim.report.race.report import REPORT

__all__ = ["REPORT"]
