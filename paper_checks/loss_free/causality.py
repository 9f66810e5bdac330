"""W4: a batch is routed with what past batches taught, and no token with what comes after it."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

import balancesim as bs
from balancesim import simulate, sources
from balancesim.balancers import (
    BIP,
    AlfLB,
    BatchRule,
    Exact,
    ExpertChoice,
    Momentum,
    PhiBalance,
    PriceRule,
    QuantileBalance,
    Rule,
)
from balancesim.checks import Case, Depth, Findings, at_least, at_most, statement
from balancesim.runs import Run
from balancesim.sources import Source
from balancesim.types import Float64Array, FloatArray
from paper_checks.loss_free.runs import PAPER, STREAM_REMARK

_TOKENS, _CHANGED = 64, 12
_RULES: tuple[PriceRule, ...] = (
    AlfLB(schedule="sign", step_size=1e-3),
    AlfLB(schedule="constant", step_size=0.1),
    AlfLB(schedule="harmonic", step_size=1.0),
    AlfLB(schedule="sqrt", step_size=0.3),
    PhiBalance(),
    QuantileBalance(),
    Momentum(),
)
_CURRENT: tuple[BatchRule, ...] = (BIP(), Exact(), ExpertChoice())


@dataclass(frozen=True, eq=False)
class Changed(Source):
    """One source's scores but for the tokens from a place of a step on, which are another's."""

    name = "changed"
    first: Source
    other: Source
    n_experts: int
    step: int
    token: int
    seed: int = 0

    def batch(self, step: int, n_tokens: int) -> FloatArray:
        scores = self.first.batch(step, n_tokens)
        if step < self.step:
            return scores
        place = self.token if step == self.step else 0
        return np.concatenate([scores[:place], self.other.batch(step, n_tokens)[place:]])

    def with_seed(self, seed: int) -> Self:
        return replace(self, seed=seed)


def _in_force(run: Run) -> Float64Array:
    """The bias that each step's batch is routed with, (steps, E)."""
    if not run.rule.causal:
        return run.bias
    return np.vstack([np.zeros((1, run.bias.shape[1])), run.bias[:-1]])


def _looked_ahead(rule: Rule, source: Source, k: int) -> tuple[int, int]:
    """At how many steps up to the changed batch the bias in force differs, and at how many afterwards."""
    other = source.with_seed(source.seed + 1)
    changed = Changed(source, other, source.n_experts, _CHANGED, 0)
    same = Changed(source, source, source.n_experts, _CHANGED, 0)
    one, two = (
        simulate(rule, one, n_tokens=_TOKENS, k=k, horizon=20, comparator="none", n_exact=0, n_records=20)
        for one in (same, changed)
    )
    differs = (_in_force(one) != _in_force(two)).any(axis=1)
    return int(differs[: _CHANGED + 1].sum()), int(differs[_CHANGED + 1 :].sum())


def _chosen(rule: Rule, bias: Float64Array, scores: FloatArray, k: int) -> list[frozenset[int]]:
    """Each token's experts."""
    if isinstance(rule, BatchRule):
        experts = rule.assign(rule.init(scores.shape[1], k), scores.copy())[0].experts
    else:
        experts = bs.route(scores, bias.astype(scores.dtype), k=k, experts=True).experts
    if experts is None:
        raise AssertionError(f"{rule.describe()} assigned nothing")
    return [frozenset(int(e) for e in row if e >= 0) for row in experts]


def _leaked(rule: Rule, source: Source, k: int) -> float:
    """Share of the first half's tokens whose experts change when the second half is replaced."""
    bias = np.zeros(source.n_experts)
    if isinstance(rule, PriceRule):
        run = simulate(rule, source, n_tokens=_TOKENS, k=k, horizon=_CHANGED, comparator="none", n_exact=0)
        bias = run.bias[-1]
    half = _TOKENS // 2
    changed = Changed(source, source.with_seed(source.seed + 1), source.n_experts, _CHANGED, half)
    batches = source.batch(_CHANGED, _TOKENS), changed.batch(_CHANGED, _TOKENS)
    before, after = (_chosen(rule, bias, scores, k)[:half] for scores in batches)
    return sum(a != b for a, b in zip(before, after, strict=True)) / half


@statement(
    label="W4",
    paper=PAPER,
    title="Causality",
    claim="A batch is routed with the bias that past batches taught; no token's experts depend on tokens "
    "after it.",
    hypotheses=("the bias is updated after the batch was routed, from its loads or scores",),
    statistic="steps up to a changed batch at which the bias in force differs in a bit; share of a "
    "batch's first half whose experts change when its second half is replaced",
    control="rules that see the batch they assign: BIP, the exact assignment, expert choice",
)
def causality(depth: Depth) -> Findings:
    """Change a batch, or its second half, and see what differs before it."""
    seeds = depth.pick((811,), tuple(range(811, 831)))
    ahead, later = "steps at which the bias differs too early", "steps at which it differs afterwards"
    leak = "share of earlier tokens with other experts"
    cases: list[Case] = []
    for seed in seeds:
        places: tuple[tuple[Source, int], ...] = (
            (sources.Normal(n_experts=16, offsets="iqr", transform="sigmoid", seed=seed), 2),
            (sources.TokenStream(transform="sigmoid", seed=seed), 8),
        )
        for source, k in places:
            for rule in (*_RULES, *_CURRENT):
                instance = f"{rule.describe()}, {source.name}, E={source.n_experts}, K={k}, T={_TOKENS}"
                control = None if rule.causal else "the rule sees the batch"
                cases.append(at_most(instance, leak, _leaked(rule, source, k), 0.0, control=control))
                if isinstance(rule, ExpertChoice):
                    continue  # it has no price
                early, late = _looked_ahead(rule, source, k)
                cases.append(at_most(instance, ahead, early, 0, control=control))
                if rule.causal:
                    # That it learns from the change at all.
                    cases.append(at_least(instance, later, late, 1))
    return Findings(cases, {}, (STREAM_REMARK,))
