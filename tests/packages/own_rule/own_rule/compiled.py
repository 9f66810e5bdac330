from dataclasses import dataclass

import numpy as np
from balancesim.balancers import CompiledRule, rule_kernel


@rule_kernel
def update(parameters, step, n_tokens, k, loads, price, memory):
    step_size, leak = parameters[0], parameters[1]
    for e in range(price.size):
        violation = loads[e] * price.size - n_tokens * k
        price[e] = (1 - leak) * price[e] - step_size * np.sign(violation)


@dataclass(frozen=True, kw_only=True)
class Leaky(CompiledRule):
    """Steps against the sign of the violation, from a price that leaks."""

    name = "leaky"
    reference = "docs/own_rule.md"
    compiled_update = staticmethod(update)
    step_size: float = 0.01
    leak: float = 0.001

    def parameters(self):
        return self.step_size, self.leak
