"""W5: a bias acts on the choice alone, so that the task's gradient is left as it is; a loss adds its own."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from balancesim.balancers import AlfLB, NoBalance, PhiBalance, Rule, SwitchLoss
from balancesim.checks import Case, Depth, Findings, at_most, between, statement
from balancesim.report import style
from balancesim.router import ClusteredTask, Router, train_router
from balancesim.types import Float64Array
from paper_checks.choices import marks
from paper_checks.differences import gradient_by_differences
from paper_checks.loss_free.runs import PAPER

_TASK = ClusteredTask(n_experts=8, n_clusters=12, n_features=6, seed=821)
_TOKENS, _K, _BEFORE = 128, 2, 25
_Gate = Literal["renormalised", "raw", "sigmoid"]
_GATES: tuple[_Gate, ...] = ("renormalised", "raw", "sigmoid")
_FAMILIES = ("loss-free", "Switch's loss", "phi-balancing, gradient")


def _gates(kind: _Gate, logits: Float64Array, chosen: Float64Array) -> Float64Array:
    """Gate weights of the chosen experts, by their definitions."""
    if kind == "sigmoid":
        shares = chosen / (1.0 + np.exp(-logits))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    whole = powers if kind == "raw" else powers * chosen
    return np.asarray(chosen * powers / whole.sum(axis=1, keepdims=True))


class _Step(NamedTuple):
    """One training step: what it did to the weights, and what the task's own gradient would have."""

    taken: Float64Array
    task: Float64Array

    @property
    def apart(self) -> float:
        """Length of the difference over the length of the task's gradient."""
        return float(np.linalg.norm(self.taken - self.task) / np.linalg.norm(self.task))


def _next_step(rule: Rule, gate: _Gate, *, biased_gate: bool = False) -> _Step:
    """Train, and hold one more step against the reward's gradient with the experts as they are chosen.

    ``biased_gate``: the reward whose gate weights are those of the biased logits, for a control.
    """
    settings: dict[str, Any] = {
        "router": Router(gate=gate, initial_scale=1.0),
        "n_tokens": _TOKENS,
        "k": _K,
        "n_exact": 0,
        "n_records": 400,
    }
    before, after = (train_router(rule, _TASK, horizon=_BEFORE + more, **settings) for more in (0, 1))
    batch = _TASK.batch(_BEFORE, _TOKENS)
    bias = np.zeros(8) if rule.needs_probabilities else before.price[-1]
    chosen = marks(batch.features @ before.weights.T + bias, _K)
    added = bias if biased_gate else np.zeros(8)

    def reward(weights: Float64Array) -> float:
        gates = _gates(gate, batch.features @ weights.T + added, chosen)
        return float((gates * batch.rewards).sum(axis=1).mean())

    taken = (after.weights - before.weights) / before.learning_rate
    return _Step(taken, gradient_by_differences(reward, before.weights))


class _Late(NamedTuple):
    """MaxVio and reward of late batches, mean over seeds."""

    violation: Float64Array
    reward: Float64Array


def _late(rules: Sequence[Rule], horizon: int, seeds: Sequence[int]) -> _Late:
    """Train a router of sixteen experts under each rule."""
    task = ClusteredTask(n_experts=16)
    found = []
    for seed in seeds:
        runs = train_router(
            rules, task, n_tokens=512, k=_K, horizon=horizon, seed=seed, n_records=10, n_exact=0
        )
        found.append([[run.mean_max_violation[-1], run.mean_reward[-1]] for run in runs])
    return _Late(*np.mean(found, axis=0).T)


def _draw(findings: Findings) -> Figure:
    """How much each rule adds to the gradient; reward against imbalance."""
    data = findings.data
    figure = style.new_figure(2.75)
    left = style.add_axes(figure, 0.6, 0.8, 2.5, 1.65)
    right = style.add_axes(figure, 4.0, 0.8, 2.8, 1.65)
    handles = []
    for i, name in enumerate(_FAMILIES):
        look = {**style.distinct_look(i), "markersize": 4.5, "linewidth": 1.0}
        own = data["family"] == i
        left.plot(data["size"][own], np.maximum(data["apart"][own], 1e-12), **look)
        right.plot(data["violation"][own], data["reward"][own], **{**look, "linewidth": 1.0 if i else 0.0})
        handles.append(Line2D([], [], label=name, **look))
    right.plot(data["plain"][0], data["plain"][1], color=style.INK, marker="*", markersize=7, linewidth=0.0)
    for size, x, y in zip(
        *(data[key][data["family"] == 0] for key in ("size", "violation", "reward")), strict=True
    ):
        right.annotate(
            f"u={size:g}", (x, y), (4, -7), fontsize=6,
            textcoords="offset points",
        )  # fmt: skip
    style.decades(left, x=True, y=True)
    left.set_title("part added to the task's gradient", loc="left")
    left.set_xlabel("weight of the loss, or step u", labelpad=1)
    right.set_xscale("log")
    right.set_xticks([0.2, 0.5, 1.0, 2.0], ["0.2", "0.5", "1", "2"])
    right.minorticks_off()
    right.margins(y=0.15)
    right.set_title("reward per token against late batch MaxVio", loc="left")
    right.set_xlabel("MaxVio", labelpad=1)
    handles.append(
        Line2D([], [], color=style.INK, marker="*", markersize=6, linewidth=0.0, label="no balancing")
    )
    style.legend_below(figure, handles)
    return figure


@statement(
    label="W5",
    paper=PAPER,
    title="No interference with the gradient",
    claim="The bias enters the choice of experts and neither gate weights nor gradient, so that a "
    "training step is that of the task alone with the chosen experts; an auxiliary loss adds a gradient "
    "of its own, in proportion to its weight.",
    hypotheses=("no gradient flows through the choice", "gates are those of the unbiased logits"),
    statistic="length of the difference of a training step and central differences of the task's reward, "
    "over the latter's length, after 25 steps; the power of its weight in what Switch's loss adds",
    control="Switch's loss; phi-balancing's gradient form; gate weights of the biased logits",
    figure=_draw,
    caption="Left: what a rule adds to the gradient of the task, in parts of it, after 25 steps (values "
    "below 1e-12 are drawn there). Right: what comes of it after training, for each weight or step: "
    "reward per token against late batch MaxVio (E=16, K=2, T=512, mean over seeds); the star has no "
    "balancing.",
)
def no_interference(depth: Depth) -> Findings:
    """Hold single steps against finite differences, and trained routers against each other."""
    n_seeds, horizon = depth.pick((3, 800), (16, 4_000))
    apart = "part added to the task's gradient"
    cases: list[Case] = []
    for gate in _GATES:
        instance = f"{gate} gate, E=8, K={_K}, T={_TOKENS}"
        biases = (AlfLB(schedule="sign", step_size=0.02), PhiBalance(strength=0.5, ema_rate=0.1))
        # Differences err by h^4 = 1e-12 times fifth derivatives, and by rounding / h = 1e-13.
        cases += [
            at_most(f"{rule.describe()}, {instance}", apart, _next_step(rule, gate).apart, 1e-8)
            for rule in biases
        ]
        step = _next_step(AlfLB(schedule="sign", step_size=0.02), gate, biased_gate=True)
        cases.append(
            at_most(f"ALF-LB, {instance}", apart, step.apart, 1e-8, control="gates of the biased logits")
        )
        for loss in (SwitchLoss(weight=0.01), PhiBalance(form="gradient", strength=0.01)):
            added = _next_step(loss, gate).apart
            control = "a loss in the place of the bias"
            cases.append(at_most(f"{loss.describe()}, {instance}", apart, added, 1e-8, control=control))
    sizes = (0.003, 0.01, 0.03, 0.1)
    rules: list[tuple[int, float, Rule]] = [
        *((0, size, AlfLB(schedule="sign", step_size=size)) for size in sizes),
        *((1, size, SwitchLoss(weight=size)) for size in sizes),
        (1, 0.3, SwitchLoss(weight=0.3)),
        *((2, size, PhiBalance(form="gradient", strength=size)) for size in sizes),
    ]
    parts = [_next_step(rule, "renormalised").apart for _, _, rule in rules]
    of_switch = [part for part, (family, *_) in zip(parts, rules, strict=True) if family == 1]
    power = float(np.polyfit(np.log(sizes[:3]), np.log(of_switch[:3]), 1)[0])
    cases.append(
        between("Switch's loss, renormalised gate", "power of its weight in the added part", power, 0.9, 1.1)
    )
    found = _late([NoBalance(), *(rule for _, _, rule in rules)], horizon, range(830, 830 + n_seeds))
    data = {
        "family": np.array([family for family, _, _ in rules]),
        "size": np.array([size for _, size, _ in rules]),
        "apart": np.array(parts),
        "violation": found.violation[1:],
        "reward": found.reward[1:],
        "plain": np.array([found.violation[0], found.reward[0]]),
    }
    best = [data["reward"][data["family"] == i].max() for i in range(3)]
    least = [data["violation"][data["family"] == i].min() for i in range(3)]
    remark = (
        "That a loss which balances costs the task shows for large weights alone: on this task small ones "
        f"raise the reward, from {found.reward[0]:.3f} to {best[1]:.3f}, as they spread the experts early "
        f"(loss-free {best[0]:.3f}). The lowest late MaxVio is {least[0]:.2f} with the bias, {least[1]:.2f} "
        "with Switch's loss."
    )
    return Findings(cases, data, (remark,))
