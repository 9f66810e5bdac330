"""What W1-W3 and W6 share: sources, rules by name, levels of imbalance and what a step moves."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

import balancesim as bs
from balancesim import simulate, sources, theory
from balancesim.balancers import AlfLB, NoBalance, PriceRule
from balancesim.runs import Run
from balancesim.sources import Source
from balancesim.types import Float64Array, IntArray
from paper_checks.intervals import half_width

PAPER = "[W] arXiv:2408.15664"
STREAM_REMARK = (
    "The token streams' scores are made from recorded routing statistics; they are not router logits."
)
E, K, TOKENS = 64, 8, 1024
FRESH_TOKENS, _PROBE_TOKENS = 2**18, 2**15
_BLOCKS = 10
SECOND_HAND = (
    "Published global MaxVio (second-hand, other routers and batches): 0.04 for sign steps of 1e-3, 0.028 "
    "to 0.040 for proportional ones. Compared in kind only."
)

SOURCES: Mapping[str, Source] = {
    "normal": sources.Normal(n_experts=E, offsets="iqr", transform="sigmoid", seed=801),
    "clustered": sources.Clustered(n_experts=E, transform="sigmoid", seed=802),
    "stream, layer 7": sources.TokenStream(layer=7, transform="sigmoid", seed=803),
    "stream, layer 15": sources.TokenStream(layer=15, transform="sigmoid", seed=804),
}


class OwnSteps(PriceRule):
    """A rule in Python whose state is its price, from zero; what it adds is left to say."""

    def init(self, n_experts: int, k: int) -> Float64Array:
        """Start at zero."""
        del k
        return np.zeros(n_experts)

    def bias(self, state: Float64Array) -> Float64Array:
        """Return the price."""
        return state

    def update(
        self, state: Float64Array, loads: IntArray, probabilities: Float64Array | None
    ) -> Float64Array:
        """Add the step."""
        del probabilities
        return state + self.step(loads)

    def step(self, loads: IntArray) -> Float64Array:
        """What a batch's loads add to the price."""
        raise NotImplementedError


class Level(NamedTuple):
    """A mean over batches and its 99 % interval over blocks of them."""

    value: float
    low: float
    high: float


def level(run: Run, first: float, last: float, unit: float) -> Level:
    """Mean MaxVio of the batches between two parts of the horizon, in a unit.

    The interval is Student's over blocks of steps, which are longer than a price remembers.
    """
    inside = (run.steps > first * run.horizon) & (run.steps <= last * run.horizon)
    blocks = np.array([part.mean() for part in np.array_split(run.max_violation[inside], _BLOCKS)]) / unit
    mean = float(blocks.mean())
    half = float(half_width(blocks, 0.99))
    return Level(mean, mean - half, mean + half)


def ratio(over: Level, under: Level) -> Level:
    """Quotient of two levels, the interval's ends from the worst ends of both."""
    return Level(over.value / under.value, over.low / under.high, over.high / under.low)


def global_violation(source: Source, bias: Float64Array) -> float:
    """MaxVio of 2**18 fresh tokens that are all routed with one bias, as on a validation set."""
    tokens = source.with_seed(899).batch(0, FRESH_TOKENS)
    return float(bs.max_violation(bs.route(tokens, bias.astype(tokens.dtype), k=K).loads))


def moved(source: Source, bias: Float64Array, step: float) -> Float64Array:
    """Tokens of a batch that a rise of its price by ``step`` brings to each expert, (E,)."""
    biased = np.asarray(source.with_seed(898).batch(0, _PROBE_TOKENS), dtype=np.float64) + bias
    lag = np.sort(biased, axis=1)[:, -K, None] - biased
    return np.asarray(TOKENS * ((lag > 0.0) & (lag <= step)).mean(axis=0))


def coarse(source: Source, run: Run, step: float) -> str | None:
    """Say so where a sign step moves half of what sampling does, or more, of an average expert's load."""
    deviation = (TOKENS * K / E * (1.0 - K / E)) ** 0.5
    part = float(moved(source, run.bias[-1], step).mean()) / deviation
    if part < 0.5:
        return None
    return f"a step of {step:g} moves {part:.2f} standard deviations of an average expert's load"


def _rule(name: str) -> PriceRule:
    """The rule of a name such as "sign 0.001"; proportional steps are in counts of a batch, as published."""
    kind, _, size = name.partition(" ")
    match kind:
        case "none":
            return NoBalance()
        case "sign":
            return AlfLB(schedule="sign", step_size=float(size))
        case "proportional":
            return AlfLB(schedule="constant", step_size=float(size) * TOKENS)
    return AlfLB(schedule="harmonic", step_size=float(size))


def runs_of(source: str, horizon: int, rules: Sequence[str]) -> dict[str, Run]:
    """Run rules on one of the sources with the same draws; every batch is recorded."""
    runs = simulate(
        [_rule(rule) for rule in rules], SOURCES[source], n_tokens=TOKENS, k=K, horizon=horizon,
        comparator="none", n_exact=0, n_records=horizon,
    )  # fmt: skip
    return dict(zip(rules, runs, strict=True))


def floor() -> float:
    """Expected MaxVio of a batch of a perfectly balanced random router."""
    return theory.max_violation_floor(TOKENS, E, K).value


def window_violation(run: Run) -> float:
    """MaxVio of the loads of the second half, summed."""
    return float(bs.max_violation(run.loads[run.steps > run.horizon / 2].sum(axis=0)))


def smoothed(run: Run, unit: float) -> tuple[IntArray, Float64Array]:
    """MaxVio in a unit, averaged over steps that one point of a logarithmic axis stands for."""
    edges = np.unique(np.geomspace(1, run.horizon + 1, 40).astype(np.int64))
    parts = [run.max_violation[a - 1 : b - 1].mean() / unit for a, b in pairwise(edges)]
    return edges[:-1], np.array(parts)
