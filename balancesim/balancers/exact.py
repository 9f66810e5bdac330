"""The exact optimum of every batch: what no rule with balanced loads can beat."""

from dataclasses import dataclass
from typing import NamedTuple

from balancesim.balancers.protocol import Assignment, BatchRule
from balancesim.errors import InputError
from balancesim.exact import SolveOutcome, solve
from balancesim.types import Float64Array, FloatArray


class ExactState(NamedTuple):
    """K, and the optimal bias of the batch before, which the next solve starts from."""

    k: int
    bias: Float64Array | None


@dataclass(frozen=True)
class Exact(BatchRule):
    """The exact optimum of each batch, solved with the batch in hand.

    Every load is the floor or the ceiling of T K / E, and no assignment with such loads has a larger score
    (`balancesim.solve`). A batch without such an assignment, or without a certified one, ends the run.
    """

    name = "exact"
    reference = "ours (balancesim.solve; docs/theory.md, the assignment problem)"

    def init(self, n_experts: int, k: int) -> ExactState:
        """Start without a bias."""
        del n_experts
        return ExactState(k, None)

    def assign(self, state: ExactState, scores: FloatArray) -> tuple[Assignment, ExactState]:
        """Solve the batch, from the bias of the one before."""
        try:
            found = solve(scores, k=state.k, bias=state.bias)
        except InputError as error:  # masks that leave no balanced assignment
            return Assignment(None, reason=str(error)), state
        if found.status.outcome is not SolveOutcome.OPTIMAL:
            return Assignment(None, reason=found.status.reason), state
        return Assignment(found.experts, found.bias), ExactState(state.k, found.bias)

    def describe(self) -> str:
        return "exact optimum of each batch"
