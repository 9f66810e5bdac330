"""Expert choice: experts take their best tokens (Zhou et al. 2022, arXiv:2202.09368)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from balancesim.balancers.protocol import Assignment, BatchRule
from balancesim.problem import check_rounding, expert_capacity
from balancesim.types import FloatArray


@dataclass(frozen=True, kw_only=True)
class ExpertChoice(BatchRule):
    """Each expert takes the C = T K / E tokens of the batch that score it highest.

    Loads are balanced by construction; the number of experts of a token is not: it may be none, and more
    than K. `Run.drop_rate` counts the places that stay empty among each token's first K. Ties go to the lower
    token; masked tokens are never taken, so that an expert with fewer than C unmasked ones takes all of them.
    A constant added to a token's scores changes the choice: the published rule takes the softmax over
    experts, ``transform="softmax"`` of a source.

    Parameters
    ----------
    rounding : {"floor", "ceil"}, optional
        What becomes of a fractional C. By the floor fewer than T K places are filled, by the ceiling more.
    """

    name = "expert-choice"
    reference = "arXiv:2202.09368"
    rounding: Literal["floor", "ceil"] = "floor"

    def __post_init__(self) -> None:
        check_rounding(self.rounding)

    def init(self, n_experts: int, k: int) -> int:
        """Return K, all that a batch needs to know."""
        del n_experts
        return k

    def assign(self, state: int, scores: FloatArray) -> tuple[Assignment, int]:
        """Let the experts of a batch choose."""
        from balancesim.kernels.expert_choice import choose_tokens, list_experts

        n_tokens, n_experts = scores.shape
        capacity = expert_capacity(n_tokens, n_experts, state, rounding=self.rounding)
        chosen, held = np.empty(scores.shape, np.bool_), np.empty(n_tokens, np.int64)
        choose_tokens(np.ascontiguousarray(scores), capacity, chosen, held)
        experts = np.empty((n_tokens, max(state, int(held.max()))), np.int64)
        list_experts(chosen, experts)
        return Assignment(experts), state

    def describe(self) -> str:
        return f"expert choice, {self.rounding} of T K / E"
