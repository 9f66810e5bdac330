"""Top-K with a capacity: tokens beyond it are dropped (Lepikhin et al. 2020, arXiv:2006.16668)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from balancesim.balancers.protocol import Assignment, BatchRule
from balancesim.errors import InputError
from balancesim.numbers import check_positive
from balancesim.problem import check_rounding, expert_capacity
from balancesim.routing import route_numba
from balancesim.types import FloatArray

_ORDERS = ("score", "position")


@dataclass(frozen=True, kw_only=True)
class CapacityDrop(BatchRule):
    """Top-K without a price, after which each expert drops the tokens beyond its capacity.

    GShard (Lepikhin et al. 2020, arXiv:2006.16668) and Switch (Fedus et al. 2021, arXiv:2101.03961) drop by
    position; Megatron Core and DeepSpeed call the orders "probs" and "position". A dropped place stays empty:
    the token is sent to no other expert in its stead. `Run.drop_rate` has the share of such places.

    Parameters
    ----------
    factor : float, optional
        An expert keeps at most factor T K / E tokens. The factor is the decimal number that it is written
        as: 1.1 times 50 is 55, and its ceiling is not 56.
    rounding : {"ceil", "floor"}, optional
        What becomes of a fractional capacity.
    order : {"score", "position"}, optional
        Whether an expert keeps the tokens with its best scores, ties to the lower token, or those that come
        first in the batch, whichever of their K places it is.
    """

    name = "capacity-drop"
    reference = "arXiv:2006.16668, arXiv:2101.03961"
    factor: float = 1.25
    rounding: Literal["ceil", "floor"] = "ceil"
    order: Literal["score", "position"] = "score"

    def __post_init__(self) -> None:
        check_positive("factor", self.factor)
        check_rounding(self.rounding)
        if self.order not in _ORDERS:
            raise InputError(f'`order` must be "score" or "position", got {self.order!r}')

    def init(self, n_experts: int, k: int) -> int:
        """Return K, all that a batch needs to know."""
        del n_experts
        return k

    def assign(self, state: int, scores: FloatArray) -> tuple[Assignment, int]:
        """Route a batch, and drop what is beyond the capacity."""
        from balancesim.kernels.capacity import drop_beyond

        n_tokens, n_experts = scores.shape
        capacity = expert_capacity(
            n_tokens, n_experts, state, rounding=self.rounding, factor=float(self.factor)
        )
        _, _, experts = route_numba(scores, np.zeros(n_experts, scores.dtype), state, experts=True)
        drop_beyond(scores, experts, capacity, self.order == "position")
        return Assignment(experts), state

    def describe(self) -> str:
        return f"capacity {self.factor:.4g} ({self.rounding}), dropped by {self.order}"
