"""Rules that go wrong: named, with the step, and without harm to the others."""

from typing import Any

import numpy as np
import pytest

from balancesim.balancers import CompiledRule, OwnObjective, PhiBalance, PriceRule, rule_kernel
from balancesim.errors import InputError
from balancesim.runs import Outcome
from balancesim.simulation import simulate
from balancesim.sources import Normal, Source
from tests.simulated import RULES, SHORT, SOURCE, same


class _Broken(PriceRule):
    """A rule that goes wrong in the way it is told to, at the third update unless it is told when."""

    name = "broken"

    def __init__(self, way: str, when: int = 3) -> None:
        self.way, self.when = way, when

    def init(self, n_experts: int, k: int) -> tuple[int, int]:
        del k
        if self.way == "init":
            raise ZeroDivisionError("no experts")
        return n_experts, 0

    def bias(self, state: tuple[int, int]) -> np.ndarray:
        n_experts, step = state
        if self.way == "shape" and step == self.when:
            return np.zeros(n_experts + 1)
        return np.full(n_experts, np.nan if self.way == "nan" and step == self.when else 0.0)

    def update(self, state: tuple[int, int], loads: np.ndarray, probabilities: None) -> tuple[int, int]:
        del loads, probabilities
        if self.way == "raise" and state[1] == 2:
            raise ZeroDivisionError("no load")
        return state[0], state[1] + 1


def test_a_rule_that_goes_wrong_is_named_with_its_step() -> None:
    source = Normal(n_experts=5)
    with pytest.raises(InputError, match=r"\(5,\), got \(6,\) \(rule broken, step 3\)"):
        simulate(_Broken("shape"), source, n_tokens=8, horizon=6)
    with pytest.raises(ZeroDivisionError, match="no load") as found:
        simulate(_Broken("raise"), source, n_tokens=8, horizon=6)
    assert found.value.__notes__ == ["in balancing rule broken, at step 3"]
    status = simulate(_Broken("nan"), source, n_tokens=8, horizon=6).status
    assert status.outcome is Outcome.BIAS_NOT_FINITE
    assert "broken, at step 3 of 6" in status.reason


@rule_kernel
def still(parameters, step, n_tokens, k, loads, price, memory):  # the protocol's
    pass


class _Start(CompiledRule):
    """A compiled rule that never moves, and the price that it starts from."""

    name = "start"
    compiled_update = staticmethod(still)

    def __init__(self, price: Any) -> None:
        self.price = price

    def parameters(self) -> tuple[float, ...]:
        return ()

    def start(self, n_experts: int, k: int) -> Any:
        del n_experts, k
        return self.price


@pytest.mark.parametrize("rule", [_Broken("nan", 0), _Start(np.full(5, np.nan)), _Start(np.full(5, 1e36))])
def test_a_first_price_that_is_no_number_ends_the_run_before_it_begins(rule: PriceRule) -> None:
    source = Normal(n_experts=5)
    run, other = simulate([rule, RULES[1]], source, n_tokens=8, horizon=6)
    assert run.status.outcome is Outcome.BIAS_NOT_FINITE
    assert run.status.step == 0
    assert f"({rule.name}, before the first step)" in run.status.reason
    assert run.steps.size == run.regret.size == run.exact_steps.size == 0
    assert same(other, simulate(RULES[1], source, n_tokens=8, horizon=6))
    alone = simulate(rule, source, n_tokens=8, horizon=6)
    assert alone.status == run.status


def test_a_rule_that_goes_wrong_before_the_first_step_is_named() -> None:
    source = Normal(n_experts=5)
    with pytest.raises(InputError, match=r"\(5,\), got \(6,\) \(rule broken, before the first step\)"):
        simulate(_Broken("shape", 0), source, n_tokens=8, horizon=6)
    with pytest.raises(
        InputError, match=r"must start from .* got \(6,\) \(rule start, before the first step\)"
    ):
        simulate(_Start(np.zeros(6)), source, n_tokens=8, horizon=6)
    with pytest.raises(ZeroDivisionError, match="no experts") as found:
        simulate(_Broken("init"), source, n_tokens=8, horizon=6)
    assert found.value.__notes__ == ["in balancing rule broken, before the first step"]


class _Owner(_Broken):
    """A rule in Python that says it has an objective of its own."""

    def own_objective(self, source: Source, n_tokens: int, k: int) -> OwnObjective:
        del n_tokens, k
        return OwnObjective(np.zeros(source.n_experts), 0.0)


class _CompiledOwner(_Start):
    own_objective = _Owner.own_objective


def test_an_own_objective_whose_term_nobody_sums_is_refused() -> None:
    """Its first cell of memory would be another rule's."""
    for rule, lacks in ((_Owner("not"), "no kernel form"), (_CompiledOwner(np.zeros(8)), "no memory")):
        with pytest.raises(InputError, match=rf"needs the objective's term of rule {rule.name}, .* {lacks}"):
            simulate([PhiBalance(), rule], SOURCE, **SHORT, comparator="rule")
        assert simulate(rule, SOURCE, **SHORT).comparator.kind == "population"
