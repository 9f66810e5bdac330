from dataclasses import dataclass

import numpy as np
from balancesim.balancers import PriceRule


@dataclass(frozen=True, kw_only=True)
class LeakyInPython(PriceRule):
    """Steps against the sign of the violation, from a price that leaks."""

    name = "leaky-python"
    reference = "docs/own_rule.md"
    step_size: float = 0.01
    leak: float = 0.001

    def init(self, n_experts, k):
        return np.zeros(n_experts)

    def bias(self, state):
        return state

    def update(self, state, loads, probabilities):
        return (1 - self.leak) * state - self.step_size * np.sign(loads - loads.mean())
