"""What one cell of a race came to, read off its recorded steps.

MaxVio is smoothed: a record holds the mean over the batches since the record before. Records are log-spaced
and begin anew at a sudden shift, so that the window is one batch at first and grows in proportion to the
steps since the start or the shift.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from balancesim.driver import phase_starts
from balancesim.sweep.configuration import build_source
from balancesim.types import Float64Array, IntArray

if TYPE_CHECKING:
    import pandas as pd

GOAL = 2.0
"""A rule has arrived when its smoothed MaxVio is at most so many sampling floors, and stays so."""

AFTER_SHIFT = 0.1
"""The part of the steps after a shift over which the imbalance that it leaves is averaged."""

CURVES = ["cell", "step", "mean_max_violation", "score_lost"]
"""Columns of the trajectories that a race is judged by."""


class Curve(NamedTuple):
    """One cell's records: ``steps`` (R,), ``violation`` (R,) of the windows, ``lost`` (R,) since step 1."""

    steps: IntArray
    violation: Float64Array
    lost: Float64Array

    @property
    def lengths(self) -> IntArray:
        """Steps in each record's window, (R,)."""
        return np.diff(self.steps, prepend=0)

    def mean_violation(self, first: int, last: int) -> float:
        """Mean MaxVio of the batches after step ``first`` up to ``last``, in whole windows; NaN for none."""
        inside = (self.steps > first) & (self.steps <= last)
        return (
            float(np.average(self.violation[inside], weights=self.lengths[inside]))
            if inside.any()
            else np.nan
        )

    def lost_per_step(self, before: int) -> float:
        """Score lost per token and step after step ``before``, which is 0 or a recorded one."""
        at = int(np.searchsorted(self.steps, before, side="right")) - 1
        earlier = float(self.lost[at]) if at >= 0 else 0.0
        return (float(self.lost[-1]) - earlier) / float(self.steps[-1] - before)

    def steps_to(self, goal: float, start: int, end: float = np.inf) -> float:
        """Steps from ``start`` to the end of the first window from which on all are within the goal.

        Windows after ``end`` do not count; infinite where there is no such window.
        """
        inside = (self.steps > start) & (self.steps <= end)
        steps, above = self.steps[inside], self.violation[inside] > goal
        first = int(np.flatnonzero(above)[-1]) + 1 if above.any() else 0
        return float(steps[first] - start) if first < steps.size else np.inf


def curves_of(trajectories: "pd.DataFrame") -> dict[str, Curve]:
    """Every cell's curve, from the columns of `CURVES`."""
    return {
        str(cell): Curve(
            rows["step"].to_numpy(dtype=np.int64),
            rows["mean_max_violation"].to_numpy(dtype=np.float64),
            rows["score_lost"].to_numpy(dtype=np.float64),
        )
        for cell, rows in trajectories.groupby("cell", sort=False)
    }


def shift_of(source_parameters: str, horizon: int) -> int:
    """The first step, counted from 0, at which the source suddenly changes within the run; 0 for none."""
    starts = phase_starts(build_source(json.loads(source_parameters)))
    return next((int(start) for start in starts if start < horizon), 0)


def measures(cell: Mapping[Any, Any], curve: Curve, shift: int) -> dict[str, float]:
    """What a cell that reached its horizon came to.

    Parameters
    ----------
    cell : mapping
        A row of the summary.
    curve : Curve
        The cell's own.
    shift : int
        See `shift_of`.

    Returns
    -------
    dict
        ``lost`` and ``max_violation`` over the last tenth, or over the whole run of a current-batch rule,
        which has nothing to learn; ``overall`` (the mean MaxVio of the whole run), ``reach``,
        ``after_shift``, ``recover`` and ``drop_rate``; NaN for what there is none of.
    """
    floor, last = float(cell["max_violation_floor"]), int(cell["final_step"])
    goal = GOAL * floor
    before = last - int(cell["window_steps"]) if cell["causal"] else 0
    found = {
        "lost": curve.lost_per_step(before),
        "max_violation": curve.mean_violation(before, last),
        "overall": curve.mean_violation(0, last),
        "reach": curve.steps_to(goal, 0, shift or np.inf),
        "after_shift": np.nan,
        "recover": np.nan,
        "drop_rate": float(cell.get("drop_rate", np.nan)),
    }
    if 0 < shift < last:
        window = shift + max(1, round(AFTER_SHIFT * (last - shift)))
        found["after_shift"] = curve.mean_violation(shift, window)
        found["recover"] = curve.steps_to(goal, shift)
    return found
