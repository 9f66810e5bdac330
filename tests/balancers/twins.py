"""What tests of several rules share: a rule kept out of the kernel, one turned round, a batch's optimum."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linprog

from balancesim.balancers import PriceRule


@dataclass(frozen=True)
class InPython(PriceRule):
    """Another rule through its Python protocol alone."""

    rule: PriceRule
    name = "in-python"

    @property
    def needs_scores(self) -> bool:  # type: ignore[override]
        return self.rule.needs_scores

    @property
    def threshold(self) -> bool:  # type: ignore[override]
        return self.rule.threshold

    def init(self, n_experts: int, k: int) -> Any:
        return self.rule.init(n_experts, k)

    def bias(self, state: Any) -> Any:
        return self.rule.bias(state)

    def observe(self, state: Any, scores: Any) -> Any:
        return self.rule.observe(state, scores)

    def update(self, state: Any, loads: Any, probabilities: Any) -> Any:
        return self.rule.update(state, loads, probabilities)


class Flipped(InPython):
    """Another rule with its price's sign turned round: what pushes loads apart, the negative control."""

    def bias(self, state: Any) -> Any:
        return -self.rule.bias(state)


def relaxed_optimum(scores: Any, k: int) -> float:
    """The value of the balanced assignment's relaxation, min D, by an independent solver."""
    n_tokens, n_experts = scores.shape
    tokens = np.kron(np.eye(n_tokens), np.ones(n_experts))
    experts = np.kron(np.ones(n_tokens), np.eye(n_experts))
    loads = np.full(n_experts, n_tokens * k / n_experts)
    found = linprog(
        -scores.ravel().astype(np.float64),
        A_eq=np.concatenate([tokens, experts]),
        b_eq=np.concatenate([np.full(n_tokens, k), loads]),
        bounds=(0.0, 1.0),
    )
    return -float(found.fun)
