"""P6: what the selection form's routing converges to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import balancesim as bs
from balancesim import simulate, sources
from balancesim.balancers import AlfLB, NoBalance, PhiBalance
from balancesim.checks import Case, Depth, Findings, at_most, between, statement
from balancesim.penalised import penalised_minimiser, share_slope
from balancesim.potentials import NegativeEntropy, PNorm, Potential, SquaredNorm
from balancesim.report import style
from balancesim.runs import Run
from balancesim.sources import Source
from balancesim.types import Float64Array, FloatArray
from paper_checks.choices import marks
from paper_checks.intervals import half_width
from paper_checks.phi_balancing.potentials import name_of

_RATES = (0.1, 0.03, 0.01)
_BLOCKS = 12
_LEAST, _MOST = 0.85, 1.15
"""What the mean divergence may be, over its first-order prediction.

Not derived, and no record says that it was set before the first runs. Intervals at default depth have
half widths up to 11 %, at the smallest rate, whose runs decorrelate slowest (seen: 0.996 to 1.026,
intervals from 0.89 to 1.11). The control is 7 to 65 times off.
"""
_LARGE = 1e4
_FRESH, _TOKENS, _K = sources.Normal(n_experts=8, offsets="iqr", seed=601), 64, 2


@dataclass(frozen=True, eq=False)
class Again(Source):
    """The same batch at every step."""

    name = "again"
    scores: Float64Array
    n_experts: int
    seed: int = 0

    def batch(self, step: int, n_tokens: int) -> FloatArray:
        del step
        return np.resize(self.scores, (n_tokens, self.n_experts))

    def with_seed(self, seed: int) -> Self:
        return replace(self, seed=seed)


class Late(NamedTuple):
    """Over the second half of a run: shares of all loads, and score per token."""

    shares: Float64Array
    score: float


def late(run: Run) -> Late:
    """Average a run's routing over the second half of its steps."""
    start = int(np.searchsorted(run.steps, run.horizon / 2))
    n = run.horizon - int(run.steps[start])
    loads = run.window_loads[start + 1 :].sum(axis=0)
    kept = run.top_score - run.score_lost
    return Late(loads / loads.sum(), float(kept[-1] - kept[start]) / n)


def _optimum(scores: Float64Array, potential: Potential, strength: float, k: int) -> float:
    """Solve P6's program on one batch by a conic solver that knows nothing of prices."""
    from importlib import import_module

    cp: Any = import_module("cvxpy")

    n_tokens, n_experts = scores.shape
    x = cp.Variable((n_tokens, n_experts))
    m = cp.sum(x, axis=0) / (k * n_tokens)
    phi = cp.sum_squares(m) / 2.0 if isinstance(potential, SquaredNorm) else cp.sum(-cp.entr(m))
    gain = cp.sum(cp.multiply(scores, x)) / n_tokens - strength * phi
    found = cp.Problem(cp.Maximize(gain), [x >= 0, x <= 1, cp.sum(x, axis=1) == k])
    return float(found.solve(solver="CLARABEL"))


def _gaps(
    scores: Float64Array, potential: Potential, k: int, strength: float, factor: float, horizon: int
) -> Float64Array:
    """What each rate's time-averaged routing lacks of the optimum, in parts of what unbalanced routing lacks.

    The rule has ``factor`` times the program's strength.
    """
    rules: list[Any] = [NoBalance()]
    rules += [PhiBalance(potential=potential, ema_rate=rate, strength=factor * strength) for rate in _RATES]
    source = Again(scores, scores.shape[1])
    runs = simulate(
        rules, source, n_tokens=len(scores), k=k, horizon=horizon, comparator="none", n_exact=0, n_records=40
    )
    best = _optimum(scores, potential, strength, k)
    lacks = [best - (found.score - strength * potential.value(found.shares)) for found in map(late, runs)]
    return np.array(lacks[1:]) / lacks[0]


class _Hover(NamedTuple):
    """For each rate: mean divergence from m* and what is predicted; how far the time average is from m*.

    ``half`` is the half-width of the divergence's 99 % interval over blocks of steps.
    """

    divergence: Float64Array
    half: Float64Array
    predicted: Float64Array
    distance: Float64Array


def _hover(potential: Potential, factor: float, horizon: int) -> _Hover:
    """Run on fresh draws, against the minimiser for strength 1."""
    n_experts = _FRESH.n_experts
    best = penalised_minimiser(_FRESH, potential, strength=1.0, k=_K)
    origin = potential.gradient(np.full(n_experts, 1.0 / n_experts))
    rules = [PhiBalance(potential=potential, ema_rate=rate, strength=factor) for rate in _RATES]
    runs = simulate(
        rules,
        _FRESH,
        n_tokens=_TOKENS,
        k=_K,
        horizon=horizon,
        comparator="none",
        n_exact=0,
        n_records=horizon,
    )
    blocks, distance = [], []
    for run in runs:
        # Neighbours are alike: every fifth step says as much.
        bias = run.bias[horizon // 10 :: 5]
        averages = [potential.conjugate_gradient(origin - _K / factor * row) for row in bias]
        found = np.array([potential.divergence(m, best.shares) for m in averages])
        blocks.append([part.mean() for part in np.array_split(found, _BLOCKS)])
        distance.append(n_experts * np.abs(np.mean(averages, axis=0) - best.shares).max())
    table = np.array(blocks)
    predicted = _predicted(potential, best.bias, best.shares)
    return _Hover(table.mean(axis=1), half_width(table.T, 0.99), predicted, np.array(distance))


def _predicted(potential: Potential, bias: Float64Array, shares: Float64Array) -> Float64Array:
    """Half the stationary mean of |R (m - m*)|^2, R the root of Hess phi: theory.md, "P5 in a rule"."""
    tokens = np.asarray(_FRESH.with_seed(2**63 - 9).batch(0, 2**17), dtype=np.float64) + bias
    root = np.sqrt(potential.curvature(shares))
    scaled = root[:, None] * root
    beta, modes = np.linalg.eigh(np.eye(shares.size) + scaled * share_slope(_FRESH, bias, k=_K) / _K)
    parts = np.einsum("ei,ef,fi->i", modes, scaled * np.cov(marks(tokens, _K).T / _K, bias=True), modes)
    rates = np.array(_RATES)[:, None]
    return np.asarray((0.5 * rates * parts / (_TOKENS * beta * (2.0 - rates * beta))).sum(axis=1))


class _Tradeoff(NamedTuple):
    """Imbalance E max m - 1 and score lost per token, by strength: of P6's solution, and of runs."""

    imbalance: Float64Array
    cost: Float64Array
    seen_imbalance: Float64Array
    seen_cost: Float64Array


def _tradeoff(potential: Potential, scaled: Sequence[float], horizon: int) -> tuple[_Tradeoff, Late]:
    """Solve and run at several strengths times f''(1/E); ALF-LB's late averages are the limit."""
    strengths = [one / float(potential.curvature([1.0 / 8])[0]) for one in scaled]
    tokens = _FRESH.with_seed(2**63 - 11).batch(0, 2**17)
    free = bs.route(tokens, k=_K).score
    solved = []
    for strength in strengths:
        best = penalised_minimiser(_FRESH, potential, strength=strength, k=_K)
        kept = bs.route(tokens, best.bias.astype(tokens.dtype), k=_K).score
        solved.append([8 * best.shares.max() - 1.0, (free - kept) / len(tokens)])
    rules: list[Any] = [PhiBalance(potential=potential, ema_rate=0.02, strength=s) for s in strengths]
    rules += [AlfLB(step_size="auto"), NoBalance()]
    runs = simulate(
        rules, _FRESH, n_tokens=1024, k=_K, horizon=horizon, comparator="none", n_exact=0, n_records=40
    )
    *found, limit, unbalanced = map(late, runs)
    seen = [[8 * one.shares.max() - 1.0, unbalanced.score - one.score] for one in found]
    table = np.array(solved).T, np.array(seen).T
    return _Tradeoff(*table[0], *table[1]), Late(limit.shares, unbalanced.score - limit.score)


def _draw(findings: Findings) -> Figure:
    """Hovering against the rate; imbalance against the strength; imbalance against cost."""
    data = findings.data
    figure = style.new_figure(2.75)
    left, middle, right = (style.add_axes(figure, 0.55 + 2.28 * i, 0.8, 1.7, 1.65) for i in range(3))
    handles = []
    for i, name in enumerate(data["names"]):
        look = {**style.distinct_look(i), "markersize": 3.5, "linewidth": 0.0}
        line = {"color": look["color"], "linewidth": 0.9}
        left.plot(data["rates"], data["divergence"][i], **look)
        left.plot(data["rates"], data["predicted"][i], **line)
        middle.plot(data["strengths"], data["seen_imbalance"][i], **look)
        middle.plot(data["strengths"], data["imbalance"][i], **line)
        right.plot(data["seen_cost"][i], data["seen_imbalance"][i], **look)
        right.plot(data["cost"][i], data["imbalance"][i], **line)
        handles.append(Line2D([], [], label=str(name), **{**look, "linewidth": 0.9}))
    left.plot(
        data["rates"],
        data["wrong"],
        color=style.INK,
        linewidth=0.9,
        linestyle=":",
        marker="x",
        markersize=3.5,
    )
    middle.plot(
        data["strengths"][1:], data["first_order"][1:], color=style.INK, linewidth=0.9, linestyle=style.BOUND
    )
    right.plot(
        data["limit_cost"], 0.0, color=style.INK, marker="*", markersize=7, linewidth=0.0, clip_on=False
    )
    style.decades(left, y=True)
    left.set_xscale("log")
    left.set_xlim(0.007, 0.14)
    left.set_xticks(_RATES, [f"{rate:g}" for rate in _RATES])
    left.minorticks_off()
    left.set_title("mean divergence of m from m*", loc="left")
    left.set_xlabel("rate", labelpad=1)
    style.decades(middle, x=True, y=True)
    middle.set_ylim(None, 2.0)
    middle.set_title("imbalance left, E max m - 1", loc="left")
    middle.set_xlabel("strength times f''(1/E) [score units]", labelpad=1)
    right.set_ylim(0.0, None)
    right.set_xlim(0.0, None)
    right.set_title("imbalance against score lost", loc="left")
    right.set_xlabel("score lost per token", labelpad=1)
    handles += [
        Line2D([], [], color=style.INK, linewidth=0.9, linestyle=":", marker="x", markersize=3.5,
               label="control: twice the strength"),
        Line2D([], [], color=style.INK, linewidth=0.9, linestyle=style.BOUND, label="first order"),
        Line2D([], [], color=style.INK, linewidth=0.0, marker="*", markersize=6, label="ALF-LB"),
    ]  # fmt: skip
    style.legend_below(figure, handles)
    return figure


@statement(
    label="P6",
    paper="our derivation for the selection form of [P] arXiv:2605.15403",
    title="Selection form solves a penalised program",
    claim="With a small rate the time-averaged routing tends to the solution of max (1/T) sum gamma x - "
    "lambda phi(A/(KT)); with a constant rate m hovers at a mean squared distance of order eta. As lambda "
    "grows the imbalance falls like 1/lambda, towards the balanced assignment of ALF-LB.",
    hypotheses=(
        "phi strictly convex",
        "the same scores at every step, or independent ones",
        "eta beta_i < 2",
    ),
    statistic="what the averaged routing lacks of the optimum by a conic solver, over what unbalanced "
    "routing lacks; mean divergence of m from m* over its first-order prediction, and its power of eta; "
    "distance of the time-averaged m from m*; imbalance over -(K/(lambda f''(1/E))) p* at lambda f''(1/E) "
    "= 10^4",
    control="the rule's strength is twice the program's",
    figure=_draw,
    caption="Left: mean divergence of m from m* falls in proportion to the rate (lines: prediction; "
    "crosses: a rule of twice the program's strength stays away from its m*). Middle: imbalance left at "
    "each strength, runs (markers) on the program's solution (lines; dashed: first order in 1/lambda). "
    "Right: the trade-off; the star is ALF-LB. Normal scores, offsets over one interquartile range, E=8, "
    "K=2.",
)
def selection_form(depth: Depth) -> Findings:
    """Hold runs on one batch and on fresh draws against the program's solution."""
    n_fixed, n_fresh, n_strength = depth.pick((6_000, 30_000, 1_500), (60_000, 400_000, 20_000))
    small = np.random.default_rng(602).normal(size=(48, 4)) + np.array([1.0, 0.3, 0.0, -0.5])
    stream = np.asarray(sources.TokenStream(seed=603).batch(0, 64), dtype=np.float64)
    wrong = "strength of the rule twice the program's"
    cases: list[Case] = []
    batches: tuple[tuple[Potential, Float64Array, int, float, str], ...] = (
        (NegativeEntropy(), small, 1, 1.0, "normal, E=4, K=1, T=48"),
        (SquaredNorm(), small, 1, 1.0, "normal, E=4, K=1, T=48"),
        (SquaredNorm(), stream, 8, 256.0, "token stream, E=64, K=8, T=64"),
    )
    for potential, batch, k, strength, text in batches:
        for factor, control in ((1.0, None), (2.0, wrong)):
            gaps = _gaps(batch, potential, k, strength, factor, n_fixed)
            # The conic solver's own tolerance is 1e-8.
            cases.append(
                between(
                    f"{name_of(potential)}, lambda={strength:g}, one batch, {text}, rate {_RATES[-1]:g}",
                    "share of unbalanced routing's loss that is left", gaps[-1], -1e-5, 0.01, control=control,
                )
            )  # fmt: skip
    potentials: tuple[Potential, ...] = (NegativeEntropy(), SquaredNorm(), PNorm(3.0))
    # In units of 1/f''(1/E), so that potentials can be compared.
    scaled = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
    hovers = [_hover(potential, 1.0, n_fresh) for potential in potentials]
    trades, limits = zip(*(_tradeoff(phi, scaled, n_strength) for phi in potentials), strict=True)
    off = _hover(NegativeEntropy(), 2.0, n_fresh)
    for potential, found, control in [
        *((potential, found, None) for potential, found in zip(potentials, hovers, strict=True)),
        (NegativeEntropy(), off, wrong),
    ]:
        instance = f"{name_of(potential)}, normal, E=8, K=2, T={_TOKENS}"
        power = float(np.polyfit(np.log(_RATES), np.log(found.divergence), 1)[0])
        cases += [
            between(
                f"{instance}, rate {rate:g}", "mean divergence from m* / predicted", ratio, _LEAST, _MOST,
                low=ratio - half, high=ratio + half, control=control, decide="more steps",
            )
            for rate, ratio, half in zip(
                _RATES, found.divergence / found.predicted, found.half / found.predicted, strict=True
            )
        ]  # fmt: skip
        cases += [
            between(instance, "power of the rate in it", power, 0.9, 1.1, control=control),
            at_most(instance, "E max |time average of m - m*|", found.distance[-1], 0.02, control=control),
        ]
    balanced = _FRESH.population_bias()
    if balanced is None:
        raise AssertionError(_FRESH.describe())
    for potential in potentials:
        bend = float(potential.curvature([1.0 / 8])[0])
        expected = 8 * _K / _LARGE * float(-balanced.min())
        for strength, control in ((_LARGE / bend, None), (0.5 * _LARGE / bend, "half the strength")):
            shares = penalised_minimiser(_FRESH, potential, strength=strength, k=_K).shares
            cases.append(
                between(
                    f"{name_of(potential)}, normal, lambda = {_LARGE / bend:g}",
                    "imbalance / first order in 1/lambda", (8 * shares.max() - 1.0) / expected, 0.95, 1.05,
                    control=control,
                )
            )  # fmt: skip
    for potential, trade in zip(potentials, trades, strict=True):
        cases += [
            between(
                f"{name_of(potential)}, normal, lambda f''(1/E) = {scaled[i]:g}, T=1024",
                "imbalance of the run / solution's", trade.seen_imbalance[i] / trade.imbalance[i], 0.9, 1.1,
            )
            for i in range(4)
        ]  # fmt: skip
    data = {
        "names": np.array([name_of(potential) for potential in potentials]),
        "rates": np.array(_RATES),
        "divergence": np.array([found.divergence for found in hovers]),
        "predicted": np.array([found.predicted for found in hovers]),
        "wrong": off.divergence,
        "strengths": np.array(scaled),
        **{name: np.array([getattr(trade, name) for trade in trades]) for name in _Tradeoff._fields},
        "first_order": 8 * _K * float(-balanced.min()) / np.array(scaled),
        "limit_cost": limits[0].score,
    }
    return Findings(cases, data)
