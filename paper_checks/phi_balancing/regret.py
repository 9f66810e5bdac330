"""P7: regret of the harmonic average on its own objective, without a modulus."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy.optimize import minimize_scalar

from balancesim import simulate, sources, theory
from balancesim.balancers import PhiBalance
from balancesim.checks import Case, Depth, Findings, at_most, between, statement
from balancesim.potentials import LogBarrier, NegativeEntropy, PNorm, Potential, SquaredNorm, Tsallis
from balancesim.report import style
from balancesim.runs import Run
from balancesim.sources import Source
from balancesim.types import Float64Array
from paper_checks.intervals import half_width
from paper_checks.phi_balancing.potentials import POTENTIALS, name_of

_E, _K = 6, 2
_BOUNDED: tuple[Potential, ...] = (NegativeEntropy(), SquaredNorm(), PNorm(1.5), PNorm(3.0), Tsallis(1.5))
_SHOWN: tuple[Potential, ...] = (NegativeEntropy(), SquaredNorm())


class WidePareto(sources.Pareto):
    """Drawn in float64, as scores of 10^5 round a price in float32."""

    dtype = np.dtype(np.float64)


class WideCauchy(sources.Cauchy):
    """Drawn in float64."""

    dtype = np.dtype(np.float64)


_SOURCES: dict[str, Source] = {
    "normal": sources.Normal(n_experts=_E, offsets="iqr"),
    "Cauchy": WideCauchy(n_experts=_E, offsets="iqr"),
    "Pareto 0.5": WidePareto(n_experts=_E, tail_index=0.5, offsets="iqr"),
}


def _averages(run: Run, potential: Potential, strength: float, bias: Float64Array) -> Float64Array:
    """The m that go with biases."""
    origin = potential.gradient(np.full(bias.shape[-1], 1.0 / bias.shape[-1]))
    rows = [potential.conjugate_gradient(origin - run.k / strength * row) for row in np.atleast_2d(bias)]
    return np.array(rows)


def _strength(source: Source, k: int) -> float:
    """Lambda of the size of the scores' spread at the boundary: P7 knows no other unit."""
    return theory.boundary_spread(source, k)


def _against_bounds(
    potential: Potential, source: Source, k: int, rate: Any, horizon: int, seeds: Sequence[int]
) -> tuple[float, float]:
    """Largest regret over the bound along the run, and over its logarithmic ceiling; one token a batch."""
    strength = _strength(source, k)
    n_experts, worst, highest = source.n_experts, 0.0, 0.0
    for seed in seeds:
        rule = PhiBalance(potential=potential, ema_rate=rate, strength=strength)
        run = simulate(
            rule, source, n_tokens=1, k=k, horizon=horizon, seed=seed, comparator="rule", n_exact=0,
            n_records=horizon,
        )  # fmt: skip
        target = _averages(run, potential, strength, run.comparator.bias)[0]
        path = np.vstack(
            [np.full((1, n_experts), 1.0 / n_experts), _averages(run, potential, strength, run.bias)]
        )
        bound = theory.averaging_bound(potential, path, target, strength=strength)
        worst = max(worst, float((run.regret / bound).max()))
        if potential in _BOUNDED:
            ceiling = theory.averaging_ceiling(potential, target, strength=strength, k=k, horizon=run.steps)
            highest = max(
                highest,
                float((run.regret / ceiling).max()),
                float((bound / ceiling).max()) * (rate == "harmonic"),
            )
    return worst, highest


def _curves(
    rules: Sequence[PhiBalance], source: Source, n_tokens: int, horizon: int, n_seeds: int
) -> list[list[Run]]:
    """Runs of every rule, by seed."""
    n_records = 1 + 10 * round(np.log10(horizon))
    return [
        simulate(
            rules, source, n_tokens=n_tokens, k=_K, horizon=horizon, seed=700 + seed, comparator="rule",
            n_exact=0, n_records=n_records,
        )
        for seed in range(n_seeds)
    ]  # fmt: skip


def _growth(runs: Sequence[Run]) -> tuple[float, float, float]:
    """Regret gained in the last decade of steps over the decade before, with a 99 % interval over seeds.

    Of a logarithm, 1; of a line, 10. The interval is Student's of the difference linearised at the ratio.
    """
    steps = runs[0].steps
    at = [int(np.searchsorted(steps, steps[-1] / 10**j)) for j in (2, 1, 0)]
    gains = np.diff([[run.regret[i] for i in at] for run in runs], axis=1)
    early, last = gains.mean(axis=0)
    ratio = float(last / early)
    half = 0.0
    if len(runs) > 1:
        residual = (gains[:, 1] - ratio * gains[:, 0]) / early
        half = float(half_width(residual, 0.99))
    return ratio, ratio - half, ratio + half


def _unwanted(potential: Potential, n_steps: int) -> Float64Array:
    """Regret over lambda after each step of theory.md's counterexample: two experts, K = 1, scores (d, 0).

    With d = 2 lambda N the second is never chosen, so that m_n = (1 - 1/(2n), 1/(2n)).
    """
    n = np.arange(1, n_steps + 1)
    d = 2.0 * n_steps
    m = np.stack([1.0 - 0.5 / n, 0.5 / n], axis=1)
    v = np.array([potential.gradient(row) for row in m])
    if (d - v[:, 0] < -v[:, 1]).any():
        raise AssertionError(f"{potential!r}: the second expert is chosen")
    values = d - v[:, 0] + np.array([potential.conjugate(row) for row in v])

    def lacking(logarithm: float) -> float:
        share = float(np.exp(logarithm))
        return d * share + potential.value([1.0 - share, share])

    # The least of the dual is the largest of the primal, at a share of the second expert below 1.
    least = d - min(
        float(minimize_scalar(lacking, bounds=(-40.0, -0.7), method="bounded").fun),
        potential.value([1.0, 0.0]),
    )
    return np.asarray(np.cumsum(values - least))


def _draw(findings: Findings) -> Figure:
    """Regret against the ceiling; the counterexample; what imbalance is left."""
    data = findings.data
    figure = style.new_figure(3.0)
    left, middle, right = (style.add_axes(figure, 0.5 + 2.28 * i, 0.95, 1.75, 1.75) for i in range(3))
    handles = []
    styles: tuple[Any, Any] = ("-", (0, (3, 1, 1, 1)))
    for i, source in enumerate(data["sources"]):
        colour = style.distinct_look(i)["color"]
        for j in range(len(data["shown"])):
            left.plot(data["steps"], data["regret"][i, j], color=colour, linestyle=styles[j], linewidth=1.2)
            right.plot(
                data["steps"], data["imbalance"][i, j], color=colour, linestyle=styles[j], linewidth=1.2
            )
            right.plot(
                data["steps"][-1], data["limit"][i, j], color=colour, marker="<", markersize=4, clip_on=False
            )
        handles.append(Line2D([], [], color=colour, linewidth=1.2, label=str(source)))
    for j, name in enumerate(data["shown"]):
        left.plot(data["steps"], data["ceiling"][j], color=style.INK, linestyle=styles[j], linewidth=0.9)
        handles.append(
            Line2D(
                [], [], color=style.INK, linewidth=0.9, linestyle=styles[j], label=f"{name} (left: ceiling)"
            )
        )
    for i, name in enumerate(data["unwanted_names"]):
        look = style.distinct_look(i + 3)
        middle.plot(data["unwanted_steps"], data["unwanted"][i], markersize=3.5, linewidth=1.0, **look)
        handles.append(Line2D([], [], label=f"extreme: {name}", markersize=3.5, linewidth=1.0, **look))
    style.decades(left, x=True)
    left.set_ylim(0.0, None)
    left.yaxis.set_major_locator(MaxNLocator(5))
    left.set_title("regret / lambda, own objective", loc="left")
    style.decades(middle, x=True, y=True)
    middle.set_title("the same, extreme scores", loc="left")
    style.decades(right, x=True)
    right.set_ylim(0.0, None)
    right.set_title("MaxVio of all loads so far", loc="left")
    for axes in (left, middle, right):
        axes.set_xlabel("steps N", labelpad=1)
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.0, 0.0), ncols=3, fontsize=6.5,
        columnspacing=1.0, handlelength=2.2, handletextpad=0.5, borderaxespad=0.3,
    )  # fmt: skip
    return figure


@statement(
    label="P7",
    paper="our derivation for [P] arXiv:2605.15403",
    title="Logarithmic regret without a modulus",
    claim="With rate 1/(n+1) from uniform shares, regret on P6's dual objective is at most lambda [D(m_1, "
    "m*) + sum (n+1) D(m_{n+1}, m_n)] for every sequence of scores: logarithmic for the squared norm, "
    "p-norms, Tsallis with q > 1 and the entropy, with a constant that no distribution enters. Not in "
    "general for the log barrier or Tsallis with q < 1.",
    hypotheses=("rate 1/(n+1), m_1 uniform", "f''(m) m bounded at zero load for the logarithm"),
    statistic="largest regret over the bound along a run and over the logarithmic ceiling, at every step "
    "of every seed with one token a batch; regret gained in the last decade of steps over the decade "
    "before (99 % interval over seeds); for scores (d, 0), d = 2 lambda N, regret at 10 N over regret at "
    "N",
    control="a constant rate; the first term of the bound alone; log barrier and Tsallis 0.5 on scores "
    "that leave an expert out for N steps",
    figure=_draw,
    caption="Left: mean regret on the own objective over lambda is below the ceiling whatever the tails "
    "(E=6, K=2, one token a batch). Middle: where scores leave an expert out for N steps the log "
    "barrier's regret is a line and Tsallis' a power. Right: the imbalance that the same runs leave, "
    "which tends to that of the penalised solution (arrowheads), not to zero.",
)
def without_modulus(depth: Depth) -> Findings:
    """Hold every step of runs against the bounds, and growth against the counterexamples'."""
    n_steps, n_seeds, horizon, n_growth = depth.pick((600, 2, 1_000, 96), (5_000, 8, 100_000, 128))
    seeds = range(n_seeds)
    cases: list[Case] = []
    along, ahead = "largest regret / bound along the run", "largest regret or bound / logarithmic ceiling"
    places = [(name, source, _K) for name, source in _SOURCES.items()]
    for potential in POTENTIALS:
        for name, source, k in places:
            instance = f"{name_of(potential)}, {name}, E={source.n_experts}, K={k}, T=1, N={n_steps}"
            worst, highest = _against_bounds(potential, source, k, "harmonic", n_steps, seeds)
            cases.append(at_most(instance, along, worst, 1.0))
            if potential in _BOUNDED:
                cases.append(at_most(instance, ahead, highest, 1.0))
    stream = sources.TokenStream()
    worst, highest = _against_bounds(SquaredNorm(), stream, 8, "harmonic", n_steps, seeds)
    instance = f"squared norm, token stream, E=64, K=8, T=1, N={n_steps}"
    cases += [at_most(instance, along, worst, 1.0), at_most(instance, ahead, highest, 1.0)]
    for potential in _SHOWN:
        _, highest = _against_bounds(potential, _SOURCES["normal"], _K, 0.5, n_steps, seeds)
        instance = f"{name_of(potential)}, normal, E={_E}, K={_K}, T=1, N={n_steps}"
        cases.append(at_most(instance, ahead, highest, 1.0, control="constant rate 0.5"))

    gained = "regret gained in the last decade / decade before"
    regret, imbalance, limit, ceiling = [], [], [], []
    for name, source in _SOURCES.items():
        strength = _strength(source, _K)
        rules = [PhiBalance(potential=phi, ema_rate="harmonic", strength=strength) for phi in _SHOWN]
        rules.append(PhiBalance(ema_rate=0.1, strength=strength))
        by_rule = list(zip(*_curves(rules, source, 1, horizon, n_growth), strict=True))
        instance = f"{name}, E={_E}, K={_K}, T=1, N={horizon:,}, {n_growth} seeds"
        for potential, runs in zip(_SHOWN, by_rule, strict=False):
            ratio, low, high = _growth(runs)
            cases.append(
                between(
                    f"{name_of(potential)}, {instance}", gained, ratio, 0.6, 1.4, low=low, high=high,
                    decide="more seeds",
                )
            )  # fmt: skip
        ratio, low, high = _growth(by_rule[-1])
        cases.append(
            between(
                f"negative entropy, {instance}", gained, ratio, 0.6, 1.4, low=low, high=high,
                control="constant rate 0.1",
            )
        )  # fmt: skip
        regret.append([np.mean([run.regret for run in runs], axis=0) / strength for runs in by_rule[:2]])
        paths = [
            [_averages(run, phi, strength, run.bias) for run in runs[:16]]
            for phi, runs in zip(_SHOWN, by_rule, strict=False)
        ]
        imbalance.append([_E * np.mean([path.max(axis=1) for path in one], axis=0) - 1.0 for one in paths])
        targets = [
            _averages(runs[0], phi, strength, runs[0].comparator.bias)[0]
            for phi, runs in zip(_SHOWN, by_rule, strict=False)
        ]
        limit.append([_E * target.max() - 1.0 for target in targets])
        steps = by_rule[0][0].steps
        ceiling.append(
            [
                theory.averaging_ceiling(phi, target, strength=1.0, k=_K, horizon=steps)
                for phi, target in zip(_SHOWN, targets, strict=True)
            ]
        )
        start = NegativeEntropy().divergence(np.full(_E, 1.0 / _E), targets[0])
        if name == "normal":
            cases.append(
                at_most(
                    f"negative entropy, {instance}", "mean regret / bound",
                    float(regret[-1][0][-1]) / start, 1.0, control="first term of the bound alone",
                )
            )  # fmt: skip
    extreme: tuple[tuple[Potential, str | None], ...] = (
        (NegativeEntropy(), None),
        (SquaredNorm(), None),
        (Tsallis(0.5), "Tsallis with q < 1"),
        (LogBarrier(), "log barrier"),
    )
    n_extreme = np.array([10, 100, 1_000, 10_000])
    unwanted = []
    for potential, control in extreme:
        curve = np.array([_unwanted(potential, int(n))[-1] for n in n_extreme])
        unwanted.append(curve)
        cases.append(
            at_most(
                f"{name_of(potential)}, scores (d, 0), d = 2 lambda N, N={n_extreme[-2]:,}",
                "regret at 10 N / regret at N", float(curve[-1] / curve[-2]), 2.0, control=control,
            )
        )  # fmt: skip
    data = {
        "sources": np.array(list(_SOURCES)),
        "shown": np.array([name_of(phi) for phi in _SHOWN]),
        "steps": steps,
        "regret": np.array(regret),
        "ceiling": np.max(ceiling, axis=0),
        "imbalance": np.array(imbalance),
        "limit": np.array(limit),
        "unwanted_names": np.array([name_of(phi) for phi, _ in extreme]),
        "unwanted_steps": n_extreme,
        "unwanted": np.array(unwanted),
    }
    return Findings(cases, data)
