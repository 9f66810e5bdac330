"""Our solver as the exact area calls it, and what its certificates say over a whole run."""

import numpy as np

from balancesim.bench.rows import Goal, Ratio, Row
from balancesim.bench.timing import Parts, estimate
from balancesim.exact import ExactSolution, SolveOutcome, solve
from balancesim.types import Float64Array

_GAP = 1e-12


class Gaps:
    """The certificates of every solve that was measured."""

    def __init__(self) -> None:
        self._seen: list[float] = []

    def add(self, found: ExactSolution) -> None:
        """Note one; a solution that is not certified counts as infinitely far off."""
        certified = found.status.outcome is SolveOutcome.OPTIMAL and found.certificate.holds(np.inf)
        self._seen.append(abs(found.gap) if certified else np.inf)

    def row(self, area: str) -> Row:
        """The largest relative gap of all."""
        return Row(
            area=area,
            case=f"largest relative gap of {len(self._seen)} solves",
            unit="",
            goal=Goal(Ratio.OURS, _GAP),
            ours=estimate([max(self._seen, default=np.inf)]),
            note="feasible and integral, all of them" if np.isfinite(max(self._seen, default=0.0)) else "",
        )


class Ours:
    """Our solver on one instance.

    Parameters
    ----------
    scores : (T, E) ndarray of float64
        The instance.
    k : int
        Experts per token.
    gaps : Gaps
        Gets every solution's certificate.
    """

    def __init__(self, scores: Float64Array, k: int, gaps: Gaps) -> None:
        self._scores, self._k, self._gaps = scores, k, gaps
        self.value = np.nan
        self.gap = np.inf

    def __call__(self) -> Parts:
        """Solve once; report the method's own account of its time."""
        found = solve(self._scores, k=self._k)
        self._gaps.add(found)
        self.value, self.gap = found.value, found.gap
        return Parts(found.effort.build_seconds, found.effort.solve_seconds)
