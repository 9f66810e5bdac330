"""No balancing: the control."""

from dataclasses import dataclass

import numpy as np

from balancesim.balancers.protocol import KernelForm, PriceRule
from balancesim.types import Float64Array, IntArray


@dataclass(frozen=True)
class NoBalance(PriceRule):
    """A price that stays zero."""

    name = "none"
    reference = "the control"

    def init(self, n_experts: int, k: int) -> Float64Array:
        """Return the zero price."""
        del k
        return np.zeros(n_experts)

    def bias(self, state: Float64Array) -> Float64Array:
        """Return the zero price."""
        return state

    def update(
        self, state: Float64Array, loads: IntArray, probabilities: Float64Array | None
    ) -> Float64Array:
        """Return the state unchanged."""
        del loads, probabilities
        return state

    def kernel_form(self, n_experts: int, n_tokens: int, k: int) -> KernelForm:
        """Return a form without an update."""
        del n_tokens, k
        return KernelForm(parameters=np.zeros(0), price=np.zeros(n_experts))

    def describe(self) -> str:
        return "no balancing"
