"""P4: the published gradient form, on a router that learns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from balancesim.balancers import NoBalance, PenaltyRule, PhiBalance, SwitchLoss
from balancesim.checks import Case, Depth, Findings, at_most, statement
from balancesim.potentials import LogBarrier, NegativeEntropy, PNorm, Potential, SquaredNorm
from balancesim.router import ClusteredTask, Router, train_router
from balancesim.types import Float64Array, IntArray
from paper_checks.differences import gradient_by_differences
from paper_checks.intervals import half_width
from paper_checks.phi_balancing.potentials import PAPER, name_of

_TASK = ClusteredTask(n_experts=8, n_clusters=12, n_features=6, seed=401)
_TOKENS, _K, _STRENGTH, _RATE = 64, 2, 0.5, 0.3


@dataclass(frozen=True, kw_only=True)
class LoadAverage(PenaltyRule):
    """P4 on hard load fractions in the place of soft probabilities: v = strength grad phi(m)."""

    name = "load-average"
    potential: Potential
    strength: float
    rate: float

    def init(self, n_experts: int, k: int) -> Float64Array:
        del k
        return np.full(n_experts, 1.0 / n_experts)

    def penalty(self, state: Float64Array) -> Float64Array:
        return self.strength * self.potential.gradient(state)

    def update(
        self, state: Float64Array, loads: IntArray, probabilities: Float64Array | None
    ) -> Float64Array:
        del probabilities
        return (1.0 - self.rate) * state + self.rate * loads / float(loads.sum())


@dataclass(frozen=True, kw_only=True)
class Flipped(PenaltyRule):
    """Another rule's penalty with the wrong sign."""

    name = "flipped"
    rule: PenaltyRule

    def init(self, n_experts: int, k: int) -> Any:
        return self.rule.init(n_experts, k)

    def penalty(self, state: Any) -> Float64Array:
        return -self.rule.penalty(state)

    def update(self, state: Any, loads: IntArray, probabilities: Float64Array | None) -> Any:
        return self.rule.update(state, loads, probabilities)


def _softmax(logits: Float64Array) -> Float64Array:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _of_the_loss(potential: Potential, seed: int, detached: bool) -> Callable[[Float64Array], float]:
    """The loss of the first batch: strength <mean r, v>, v = grad phi of the average after it."""
    features = _TASK.with_seed(seed).batch(0, _TOKENS).features
    start = Router(initial_scale=1.0).initial_weights(8, 6, seed)

    def price(weights: Float64Array) -> Float64Array:
        m = (1.0 - _RATE) / 8 + _RATE * _softmax(features @ weights.T).mean(axis=0)
        return _STRENGTH * potential.gradient(m)

    held = price(start)

    def loss(weights: Float64Array) -> float:
        mean = _softmax(features @ weights.T).mean(axis=0)
        return float(mean @ (held if detached else price(weights)))

    return loss


def _gradient_error(
    potential: Potential, seeds: Sequence[int], *, detached: bool = True, flipped: bool = False
) -> float:
    """Largest relative difference of what one training step does and the finite differences."""
    worst = 0.0
    rule: PenaltyRule = PhiBalance(form="gradient", potential=potential, ema_rate=_RATE, strength=_STRENGTH)
    rules = [Flipped(rule=rule) if flipped else rule, NoBalance()]
    for seed in seeds:
        start = Router(initial_scale=1.0).initial_weights(8, 6, seed)
        priced, plain = train_router(
            rules, _TASK, n_tokens=_TOKENS, k=_K, horizon=1, learning_rate=1.0, seed=seed, weights=start,
            n_exact=0,
        )  # fmt: skip
        expected = -gradient_by_differences(_of_the_loss(potential, seed, detached), start)
        error = np.abs(priced.weights - plain.weights - expected).max() / np.abs(expected).max()
        worst = max(worst, float(error))
    return worst


def _switch_error(rule: PenaltyRule, weight: float, horizon: int) -> float:
    """How far a rule's router ends from Switch's, relative to how far that has moved."""
    start = Router().initial_weights(8, 6, _TASK.seed)
    one, switch = train_router(
        [rule, SwitchLoss(weight=weight)], _TASK, n_tokens=_TOKENS, k=_K, horizon=horizon, weights=start,
        n_exact=0,
    )  # fmt: skip
    return float(np.abs(one.weights - switch.weights).max() / np.abs(switch.weights - start).max())


def _balance(rules: Sequence[PenaltyRule], seeds: Sequence[int]) -> list[tuple[float, float, float]]:
    """Each rule's late MaxVio over that without: geometric mean over seeds, Student's 99 % interval."""
    logs = []
    for seed in seeds:
        *priced, plain = train_router(
            [*rules, NoBalance()], ClusteredTask(n_experts=16), n_tokens=256, horizon=400, seed=seed,
            n_records=10, n_exact=0,
        )  # fmt: skip
        logs.append([np.log(run.mean_max_violation[-1] / plain.mean_max_violation[-1]) for run in priced])
    mean = np.mean(logs, axis=0)
    half = half_width(logs, 0.99)
    return [tuple(float(x) for x in row) for row in np.exp([mean, mean - half, mean + half]).T]  # type: ignore[misc]  # three


@statement(
    label="P4",
    paper=PAPER,
    title="Gradient form",
    claim="The router's loss gains lambda <mean probabilities, v>, v = grad phi(m) held constant, m the "
    "average of the probabilities: d/d logit_ik = lambda r_ik (v_k - <r_i, v>)/T, which balances. "
    "Switch's loss is the squared norm, rate 1, with hard load fractions and lambda = weight E.",
    hypotheses=("softmax probabilities over all experts, before the choice", "v carries no gradient"),
    statistic="relative difference of a training step and central differences of the loss; relative "
    "distance of two trained routers; late MaxVio over that without a rule (geometric mean over seeds, 99 "
    "% interval)",
    control="sign flipped; v not held constant; an average with rate 0.5 or another potential for Switch's",
)
def gradient_form(depth: Depth) -> Findings:
    """Hold steps of the training loop against differences, and Switch's loss against its special case."""
    seeds, horizon = depth.pick((1, 2), tuple(range(1, 21))), depth.pick(40, 400)
    cases = []
    error, distance = "largest error of a step / largest entry", "distance of weights / distance moved"
    for potential in (NegativeEntropy(), SquaredNorm(), PNorm(3.0), LogBarrier()):
        # Differences of width h err by h^4 = 1e-12 times fifth derivatives, and by rounding / h = 1e-13.
        found = _gradient_error(potential, seeds)
        cases.append(at_most(f"{name_of(potential)}, E=8, K=2, T=64", error, found, 1e-8))
    instance = "negative entropy, E=8, K=2, T=64"
    flipped = _gradient_error(NegativeEntropy(), seeds, flipped=True)
    cases.append(at_most(instance, error, flipped, 1e-8, control="sign flipped"))
    attached = _gradient_error(NegativeEntropy(), seeds, detached=False)
    cases.append(at_most(instance, error, attached, 1e-8, control="gradient through v too"))

    def switch(potential: Potential, rate: float, control: str | None = None) -> Case:
        rule = LoadAverage(potential=potential, strength=0.05 * 8, rate=rate)
        instance = f"{name_of(potential)}, rate {rate:g}, hard loads, {horizon} steps"
        # The same numbers multiplied in another order: rounding, and what the training makes of it.
        return at_most(instance, distance, _switch_error(rule, 0.05, horizon), 1e-9, control=control)

    cases += [
        switch(SquaredNorm(), 1.0),
        switch(SquaredNorm(), 0.5, "an average with rate 0.5"),
        switch(PNorm(3.0), 1.0, "another potential"),
    ]
    rule = PhiBalance(form="gradient", strength=0.3)
    runs = depth.pick(tuple(range(8)), tuple(range(40)))
    instance = f"negative entropy, E=16, K=2, T=256, {len(runs)} seeds"
    ratios = _balance([rule, Flipped(rule=rule)], runs)
    for (mean, low, high), control in zip(ratios, (None, "sign flipped"), strict=True):
        cases.append(
            at_most(
                instance, "late MaxVio / without a rule", mean, 1.0, low=low, high=high, control=control,
                decide="more seeds",
            )
        )  # fmt: skip
    return Findings(cases)
