"""What the best assignments of a batch earn, solved exactly."""

import math

import numpy as np

from balancesim.exact import SolveOutcome, solve
from balancesim.router.runs import RewardReference
from balancesim.router.task import ClusteredTask
from balancesim.types import Float64Array, IntArray


class References:
    """References for the batches of one task, each solved once however many runs ask for it."""

    def __init__(self, task: ClusteredTask, n_tokens: int, k: int) -> None:
        self._task, self._n_tokens, self._k = task, n_tokens, k
        self._solved: dict[int, tuple[float, float, float, float]] = {}

    def at(self, steps: IntArray) -> RewardReference:
        """Return what the best assignments earn at some steps, counted from 1."""
        found = np.array([self._of(int(step)) for step in steps]).reshape(steps.size, 4)
        best, balanced, best_choice, balanced_choice = found.T.copy()
        return RewardReference(steps.copy(), best, balanced, best_choice, balanced_choice)

    def _of(self, step: int) -> tuple[float, float, float, float]:
        if step not in self._solved:
            expected = self._task.batch(step - 1, self._n_tokens).expected
            n_tokens, n_experts = expected.shape
            most = math.ceil(n_tokens * self._k / n_experts)
            loads = np.tile(np.array([0, most]), (n_experts, 1))
            top = np.sort(expected, axis=1)[:, -self._k :]
            self._solved[step] = (
                float(top[:, -1].mean()),
                _value(expected, 1, loads) / n_tokens,
                float(top.mean()),
                _value(expected, self._k, None) / (n_tokens * self._k),
            )
        return self._solved[step]


def _value(rewards: Float64Array, k: int, capacity: IntArray | None) -> float:
    """The value of the best assignment; NaN where it is not certified."""
    found = solve(rewards, k=k, capacity=capacity)
    return found.value if found.status.outcome is SolveOutcome.OPTIMAL else math.nan
