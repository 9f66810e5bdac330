"""W6: sigmoid and softmax gates, and what a step of the bias is beside their scores."""

from typing import Any

import numpy as np

import balancesim as bs
from balancesim import simulate, sources
from balancesim.balancers import AlfLB, NoBalance
from balancesim.checks import Case, Depth, Findings, at_most, statement
from balancesim.runs import Run
from balancesim.sources import Source
from balancesim.sources.base import Transform
from paper_checks.loss_free.runs import (
    PAPER,
    STREAM_REMARK,
    TOKENS,
    E,
    K,
    coarse,
    floor,
    level,
    window_violation,
)

_STEPS = (1e-3, 3e-4, 1e-4)
_GATES: tuple[Transform, ...] = ("sigmoid", "softmax")


def _source(name: str, gate: Transform) -> Source:
    """The same logits behind a gate."""
    if name == "normal":
        return sources.Normal(n_experts=E, offsets="iqr", transform=gate, seed=841)
    return sources.TokenStream(transform=gate, seed=842)


def _differing(name: str, gate: Transform) -> float:
    """Share of tokens whose experts are not those of the logits, without a bias; float32 as drawn."""
    logits, scores = (_source(name, one).batch(0, 2**14) for one in ("raw", gate))
    sets = [bs.route(one, k=K, experts=True).experts for one in (logits, scores)]
    pairs = [np.sort(np.asarray(one), axis=1) for one in sets]
    return float((pairs[0] != pairs[1]).any(axis=1).mean())


def _runs(source: Source, horizon: int) -> list[Run]:
    """No balancing, then every step size."""
    rules: list[Any] = [NoBalance(), *(AlfLB(schedule="sign", step_size=step) for step in _STEPS)]
    return simulate(
        rules, source, n_tokens=TOKENS, k=K, horizon=horizon, comparator="none", n_exact=0,
        n_records=horizon,
    )  # fmt: skip


@statement(
    label="W6",
    paper=PAPER,
    title="Sigmoid and softmax gates",
    claim="Either gate is balanced without a loss. Both order a token's experts as the logits do; they "
    "differ in the unit of the bias, so that the step has to follow the spread of the gate's scores.",
    hypotheses=(
        "a step moves less than half a standard deviation of an average expert's sampled load",
        "the run is longer than max |p*| / u",
    ),
    statistic="share of tokens whose experts differ from the logits' without a bias; late batch MaxVio "
    "over the sampling floor, and MaxVio of all late loads over that without balancing, with the largest "
    "of u = 1e-3, 3e-4, 1e-4 that meets the first hypothesis",
    control="the sigmoid's step behind a softmax, on the token stream",
)
def gates(depth: Depth) -> Findings:
    """Run the same logits behind both gates, with steps in proportion to their gaps."""
    horizon = depth.pick(3_000, 50_000)
    base = floor()
    cases: list[Case] = []
    same, batch = "share of tokens with other experts than by logits", "late batch MaxVio / sampling floor"
    for name in ("normal", "token stream"):
        for gate in _GATES:
            source = _source(name, gate)
            instance = f"{name}, {gate}, E={E}, K={K}, T={TOKENS}"
            # In float32 two scores of one token may round to the same number.
            cases.append(at_most(instance, same, _differing(name, gate), 1e-3))
            none, *runs = _runs(source, horizon)
            why = [coarse(source, runs[-1], step) for step in _STEPS]
            chosen = why.index(None) if None in why else len(why) - 1
            found, place = level(runs[chosen], 0.5, 1.0, base), f"{instance}, u={_STEPS[chosen]:g}"
            part = window_violation(runs[chosen]) / window_violation(none)
            cases += [
                at_most(
                    place, batch, found.value, 1.25, low=found.low, high=found.high, unmet=why[chosen],
                    decide="more steps",
                ),
                at_most(place, "MaxVio of all late loads / without balancing", part, 0.02, unmet=why[chosen]),
            ]  # fmt: skip
            if gate == "softmax" and name == "token stream":
                found = level(runs[0], 0.5, 1.0, base)
                cases.append(
                    at_most(
                        f"{instance}, u={_STEPS[0]:g}", batch, found.value, 1.25, low=found.low,
                        high=found.high, control="the step of the sigmoid gate",
                    )
                )  # fmt: skip
    remark = (
        "Published (second-hand): softmax gate 0.027 global MaxVio, worse perplexity than the sigmoid's. "
        "Which gate makes the better model is out of reach here."
    )
    return Findings(cases, {}, (STREAM_REMARK, remark))
