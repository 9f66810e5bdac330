"""Rules that tests need beside those of the package."""

# ruff: noqa: ARG001, ARG002  -- one signature for all rules

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from balancesim.balancers import (
    CompiledPenalty,
    CompiledRule,
    KernelForm,
    PenaltyRule,
    PriceRule,
    rule_kernel,
)


class Loads(NamedTuple):
    m: Any


@dataclass(frozen=True, kw_only=True)
class SquaredNormOnLoads(PenaltyRule):
    """P4 with phi = |m|^2/2 (so v = m) and hard loads in place of soft probabilities, in plain Python."""

    name = "squared-norm-on-loads"
    strength: float = 1.0
    rate: float = 1.0

    def init(self, n_experts: int, k: int) -> Loads:
        return Loads(np.full(n_experts, 1.0 / n_experts))

    def penalty(self, state: Loads) -> Any:
        return self.strength * state.m

    def update(self, state: Loads, loads: Any, probabilities: Any) -> Loads:
        return Loads((1.0 - self.rate) * state.m + self.rate * (loads / loads.sum()))


@dataclass(frozen=True, kw_only=True)
class Fixed(PenaltyRule):
    """A penalty that answers to nothing."""

    name = "fixed"
    values: tuple[float, ...] = ()

    def init(self, n_experts: int, k: int) -> None:
        return None

    def penalty(self, state: None) -> Any:
        return np.array(self.values)

    def update(self, state: None, loads: Any, probabilities: Any) -> None:
        return None


@rule_kernel
def flipped(parameters, step, n_tokens, k, loads, price, memory):
    for e in range(price.size):
        price[e] = -parameters[0] * price.size * loads[e] / (n_tokens * k)


@dataclass(frozen=True, kw_only=True)
class FlippedSwitch(CompiledPenalty):
    """Switch's loss with the wrong sign."""

    name = "flipped-switch"
    compiled_update = staticmethod(flipped)
    weight: float = 0.1

    def parameters(self) -> Sequence[float]:
        return (self.weight,)


@rule_kernel
def soft(parameters, step, n_tokens, k, loads, price, memory):
    for e in range(price.size):
        price[e] = parameters[0] * memory[e]
        memory[price.size + e] += memory[e] * n_tokens + step + k


@dataclass(frozen=True, kw_only=True)
class SoftPenalty(CompiledPenalty):
    """The mean probabilities themselves as the penalty, and memory past their cells."""

    name = "soft"
    compiled_update = staticmethod(soft)
    n_micro_batches: int = 1

    def parameters(self) -> Sequence[float]:
        return (0.7,)

    def memory(self, n_experts: int, n_tokens: int, k: int) -> Any:
        return np.zeros(2 * n_experts)


@rule_kernel
def observe_mean(parameters, n_tokens, k, n_experts, tile, bias, top, token, n_lanes, memory):
    for e in range(n_experts):
        if token == 0:
            memory[e] = 0.0
        for t in range(n_lanes):
            memory[e] += tile[e, t] / n_tokens


@rule_kernel
def follow_mean(parameters, step, n_tokens, k, loads, price, memory):
    for e in range(price.size):
        price[e] -= 0.5 * memory[e]


@dataclass(frozen=True, kw_only=True)
class Observer(CompiledRule):
    """Lowers the bias by what each expert's mean score is."""

    name = "observer"
    compiled_update = staticmethod(follow_mean)
    compiled_observe = staticmethod(observe_mean)

    def parameters(self) -> Sequence[float]:
        return ()

    def memory(self, n_experts: int, n_tokens: int, k: int) -> Any:
        return np.zeros(n_experts)


@dataclass(frozen=True, kw_only=True)
class InPython(PriceRule):
    """Another price rule, without its kernel form."""

    name = "in-python"
    rule: PriceRule

    def init(self, n_experts: int, k: int) -> Any:
        return self.rule.init(n_experts, k)

    def bias(self, state: Any) -> Any:
        return self.rule.bias(state)

    def update(self, state: Any, loads: Any, probabilities: Any) -> Any:
        return self.rule.update(state, loads, probabilities)


@dataclass(frozen=True, kw_only=True, eq=False)
class OfForm(FlippedSwitch):
    """A penalty rule whose kernel form is what it was given."""

    name = "of-form"
    price: Any = None
    updates: bool = True
    memory: Any = None

    def describe(self) -> str:
        return self.name

    def kernel_form(self, n_experts: int, n_tokens: int, k: int) -> KernelForm:
        return KernelForm(
            parameters=np.full(1, self.weight),
            price=np.zeros(n_experts) if self.price is None else self.price,
            update=flipped if self.updates else None,
            memory=np.zeros(n_experts) if self.memory is None else self.memory,
        )


@dataclass(frozen=True, kw_only=True)
class Starting(Observer):
    """Starts from a price."""

    name = "starting"
    value: float

    def start(self, n_experts: int, k: int) -> Any:
        return np.full(n_experts, self.value)
