"""The assignment problem: validated data that every method and the certificate share."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from balancesim.batches import check_masks, checked_scores, in_parts
from balancesim.errors import InputError
from balancesim.problem import load_limits
from balancesim.types import Float64Array, IntArray

LARGEST_SCORE = 1e300
"""Largest finite score: differences and prices must not overflow."""


@dataclass(frozen=True, eq=False)
class AssignmentProblem:
    """Maximise the sum of chosen scores: K experts a token, loads within limits.

    Attributes
    ----------
    scores : (T, E) ndarray of float64
        C-contiguous; minus infinity masks an expert for a token.
    k : int
        Experts per token.
    low, high : (E,) ndarray of int64
        Least and largest load of each expert; ``sum(low) <= T K <= sum(high)``.
    converted : bool
        Whether the scores came in float32.
    """

    scores: Float64Array
    k: int
    low: IntArray
    high: IntArray
    converted: bool = False

    @classmethod
    def of(cls, scores: ArrayLike, *, k: int, capacity: ArrayLike | None = None) -> "AssignmentProblem":
        """Validate scores and capacity; arguments and errors as those of `balancesim.solve`."""
        array, _ = checked_scores(scores, None, k)
        k = int(k)
        exact: Float64Array = np.ascontiguousarray(array, dtype=np.float64)

        ranges = in_parts(lambda first, last: (exact[first:last].min(), exact[first:last].max()), exact.shape)
        least, largest = np.min([low for low, _ in ranges]), np.max([high for _, high in ranges])
        masked = not (np.isfinite(least) and np.isfinite(largest))
        if masked:
            check_masks(exact, k)
            least = exact[exact > -np.inf].min()
        if max(-least, largest) > LARGEST_SCORE:
            raise InputError(
                f"`scores` must lie within {LARGEST_SCORE:g} of zero, got {least:g} to {largest:g}; "
                "mask an expert with minus infinity"
            )
        n_tokens, n_experts = exact.shape
        low, high = load_limits(capacity, n_tokens, n_experts, k)
        problem = cls(exact, k, low, high, array.dtype != np.float64)
        if masked:
            problem._check_demand(np.isfinite(exact))
        return problem

    @property
    def n_tokens(self) -> int:
        """T."""
        return int(self.scores.shape[0])

    @property
    def n_experts(self) -> int:
        """E."""
        return int(self.scores.shape[1])

    def _check_demand(self, available: Any) -> None:
        """Refuse demands that one expert alone cannot meet; the others show while solving."""
        reach = available.sum(axis=0)
        forced = available[available.sum(axis=1) == self.k].sum(axis=0)
        for expert in range(self.n_experts):
            if reach[expert] < self.low[expert]:
                raise InputError(
                    f"`scores` leave expert {expert} to {reach[expert]} of {self.n_tokens} tokens, below its "
                    f"least load {self.low[expert]}: infeasible; unmask it or lower its `capacity`"
                )
            if forced[expert] > self.high[expert]:
                raise InputError(
                    f"`scores` leave {forced[expert]} tokens no choice but expert {expert}, above its "
                    f"largest load {self.high[expert]}: infeasible; unmask others or raise its `capacity`"
                )
