"""T9 and T10: a rule without a unit, and its race against the best fixed multiple of 1/mu."""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

import balancesim as bs
from balancesim.balancers import AlfLB, PriceRule, SecantHarmonic
from balancesim.checks import Case, Depth, Findings, at_least, at_most, statement
from balancesim.report import style
from balancesim.theory import boundary_spread, modulus
from balancesim.types import Float64Array
from paper_checks.primal_dual.tails_instances import (
    Camps,
    families,
    normalised_gap,
    ratio_of_means,
    spread_out,
)
from paper_checks.primal_dual.tails_rules import AdaGrad, GapModulus

_MULTIPLES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0)
_DELAYED = ((1.0, 4.0), (1.5, 4.0), (1.0, 16.0))
_INDICES = (0.5, 0.8, 1.1, 1.5)
_FIRST_SEED = 5000
_ALLOWED, _ALLOWED_DELAYED = 1.75, 2.75
_TIED_SEED = 7000


class Setting(NamedTuple):
    """What a race is run on; offsets spread evenly over so many boundary spreads."""

    n_experts: int
    k: int
    n_tokens: int
    horizon: int
    n_seeds: int
    offsets: float

    @property
    def title(self) -> str:
        """For figures and tables."""
        return f"E={self.n_experts}, K={self.k}, T={self.n_tokens}, offsets {self.offsets:g}"


_SETTINGS = (
    Setting(16, 2, 64, 2000, 12, 0.0),
    Setting(16, 2, 64, 2000, 6, 1.0),
    Setting(16, 2, 64, 2000, 4, 10.0),
    Setting(8, 1, 16, 3000, 10, 1.0),
    Setting(64, 8, 256, 500, 4, 1.0),
    Setting(16, 2, 1, 3000, 8, 1.0),
)


def _race(source: Any, setting: Setting, rules: list[PriceRule]) -> tuple[Float64Array, Float64Array]:
    """Regret in boundary spreads and last mean MaxVio, (seeds, rules)."""
    regret, violation = [], []
    for seed in range(_FIRST_SEED, _FIRST_SEED + setting.n_seeds):
        runs = bs.simulate(
            rules, source, n_tokens=setting.n_tokens, k=setting.k, horizon=setting.horizon, seed=seed,
            n_records=8, n_exact=0,
        )  # fmt: skip
        regret.append([run.regret[-1] for run in runs])
        violation.append([run.mean_max_violation[-1] for run in runs])
    return np.array(regret) / boundary_spread(source, setting.k), np.array(violation)


def _draw_units(findings: Findings) -> Figure:
    data = findings.data
    figure = style.new_figure(2.5)
    for i, name in enumerate(data["names"]):
        axes = style.add_axes(figure, 0.55 + 3.3 * i, 0.5, 2.75, 1.7)
        axes.set_title(name, loc="left")
        for place, (label, row) in enumerate(zip(data["rules"], data["regret"][i], strict=True)):
            axes.plot(data["scales"], row, label=label, markersize=3, **style.distinct_look(place))
        style.decades(axes, x=True, y=True)
        axes.set_xlabel("scale of the scores")
        axes.set_ylabel("regret, boundary spreads")
    figure.axes[0].legend(loc="upper center", fontsize=6.5)
    return figure


@statement(
    label="T9",
    paper="(ours)",
    title="Secant steps have no unit",
    claim="Scores times s give the secant rule's prices times s and the same choices. A step that is "
    "fixed in score units is right at one scale: below it overshoots, above it learns nothing.",
    hypotheses=("scores times a power of two, so that floating point multiplies exactly",),
    statistic="batches whose loads differ from those at scale 1; regret over 1000 batches in boundary "
    "spreads",
    control="ALF-LB, harmonic, step 1 in score units",
    figure=_draw_units,
    caption="Regret after 1000 batches against the scale of the scores, over more than eight orders of "
    "magnitude: flat for secant steps, least at its own scale for steps fixed in score units.",
)
def units(depth: Depth) -> Findings:
    """Run the same draws at scales from 2^-14 to 2^14."""
    setting = Setting(16, 2, 64, 1000, depth.pick(1, 8), 1.0)
    exponents = np.arange(-14, 15, 4)
    rules: list[PriceRule] = [SecantHarmonic(), AlfLB(step_size=1.0), AdaGrad(step_size=1.0)]
    cases, regret = [], []
    names = ("Pareto 0.8", "normal")
    for name in names:
        base = spread_out(families(setting.n_experts, _INDICES)[name], setting.k, setting.offsets)
        rows, loads = [], []
        for exponent in (0, *exponents):
            scale = 2.0 ** int(exponent)
            source = dataclasses.replace(
                base, scale=scale, offsets=tuple(float(scale * o) for o in base.offsets)
            )
            runs = bs.simulate(rules, source, n_tokens=64, k=2, horizon=1000, seed=_FIRST_SEED, n_exact=0)
            loads.append([run.window_loads for run in runs])
            rows.append([run.regret[-1] / boundary_spread(source, setting.k) for run in runs])
        regret.append(np.array(rows[1:]).T)
        changed = [sum(int((at[i] != loads[0][i]).any()) for at in loads[1:]) for i in (0, 1)]
        quantity = "scales of 8 at which loads differ from those at scale 1"
        cases += [
            at_most(name, quantity, changed[0], 0),
            at_most(name, quantity, changed[1], 0, control="step 1 in score units"),
        ]
    labels = ["secant", "ALF-LB harmonic, step 1", "AdaGrad, step 1"]
    data = {"names": list(names), "rules": labels, "scales": 2.0**exponents, "regret": np.array(regret)}
    return Findings(cases, data)


def _draw_race(findings: Findings) -> Figure:
    data = findings.data
    figure = style.new_figure(4.9)
    n_sources = len(data["sources"])
    for i, title in enumerate(data["settings"]):
        row, column = divmod(i, 3)
        axes = style.add_axes(figure, 0.5 + 2.17 * column, 2.95 - 2.05 * row, 1.95, 1.6)
        axes.set_title(title, loc="left", fontsize=7)
        axes.axhline(1.0, color=style.INK, linewidth=0.8)
        for place, label in enumerate(data["rules"]):
            values = data["ratio"][i, :, place]
            look = style.distinct_look(place)
            axes.plot(np.arange(n_sources), values, linestyle="none", markersize=3.2, label=label, **look)
        low, high = data["low"][i], data["high"][i]
        axes.vlines(np.arange(n_sources), low, high, color=style.distinct_look(0)["color"], linewidth=0.9)
        style.decades(axes, y=True)
        axes.set_ylim(0.05, 600.0)
        labels = data["sources"] if row == 1 else [""] * n_sources
        axes.set_xticks(np.arange(n_sources), labels, rotation=60, ha="right", fontsize=6)
        if column > 0:
            axes.set_yticklabels([])
        else:
            axes.set_ylabel("regret / best multiple's")
    style.legend_below(figure, figure.axes[0].get_legend_handles_labels()[0])
    return figure


@statement(
    label="T10",
    paper="(ours)",
    title="Secant steps against the best multiple of 1/mu",
    claim=f"Without knowing mu, secant steps have at most {_ALLOWED} times the regret of the best of eight "
    f"fixed multiples of 1/mu, {_ALLOWED_DELAYED} times with the best delay too, on heavy and light "
    f"tails; with one token a batch or far offsets they have less. Seen, not proved. Regret is a logarithm "
    f"only if 2 c lambda > 1, lambda the least eigenvalue of the normalised graph of ties.",
    hypotheses=(
        "scores independent and identically distributed up to location, so that lambda = E/(E-1)",
        "c = 1, n0 = 1, one update for as many batches as give 8 tokens per expert",
    ),
    statistic="ratio of mean regrets at the horizon on shared seeds, the worst of nine sources, with its "
    "95 % t interval; the best multiple is picked after the run; in two halves of experts that seldom tie, "
    "gain from N/4 to N over that from N/16 to N/4, 1 for a logarithm, 4^(1 - 2 c lambda) for a power",
    control="ALF-LB, harmonic, step 1 in score units, on exponential scores at scales 2^-7 and 2^7, 2 seeds; "
    "c = 1 where halves seldom tie",
    figure=_draw_race,
    caption="Regret of rules that know no modulus over that of the best undelayed harmonic step c/mu, c = "
    "0.25 to 10, which knows it; bars are 95 % intervals of the secant rule's. Offsets in boundary spreads.",
)
def race(depth: Depth) -> Findings:
    """Race all rules on nine sources in six settings."""
    cases: list[Case] = []
    ratios, lows, highs, chosen = [], [], [], []
    names = list(families(2, _INDICES))
    for base in _SETTINGS:
        setting = base._replace(n_seeds=base.n_seeds * depth.pick(1, 8))
        found = [_compare(name, setting) for name in names]
        ratios.append([[f.undelayed[0], f.gap, f.adagrad, f.one] for f in found])
        lows.append([f.undelayed[1] for f in found])
        highs.append([f.undelayed[2] for f in found])
        chosen.append([f.best for f in found])
        for quantity, allowed, column in (
            ("regret over the best multiple's", _ALLOWED, [f.undelayed for f in found]),
            ("regret over the best multiple's with a delay", _ALLOWED_DELAYED, [f.delayed for f in found]),
        ):
            worst = max(range(len(names)), key=[value for value, _, _ in column].__getitem__)
            value, low, high = column[worst]
            where = f"{setting.title}, worst: {names[worst]}"
            cases.append(at_most(where, quantity, value, allowed, low=low, high=high, decide="more seeds"))
        excess = max(f.violation for f in found)
        cases.append(at_most(setting.title, "last MaxVio over the best multiple's (seen)", excess, 1.1))
    for exponent in (-7, 7):
        value = _wrong_unit(exponent)
        where = f"exponential, {_SETTINGS[1].title}, scale 2^{exponent}"
        cases.append(
            at_most(
                where, "regret over the best multiple's", value, _ALLOWED, control="step 1 in score units"
            )
        )
    cases += _seldom_tied(depth.pick(24, 96))
    cases.append(at_least("all settings", "settings in which the worst ratio is below 1", _below(ratios), 2))
    data = {
        "settings": [setting.title for setting in _SETTINGS],
        "sources": names,
        "rules": ["secant", "one modulus from gaps", "AdaGrad, step 1", "ALF-LB, 1/mu"],
        "ratio": np.array(ratios),
        "low": np.array(lows),
        "high": np.array(highs),
        "best_multiple": np.array(chosen),
    }
    remark = (
        f"{_ALLOWED} and {_ALLOWED_DELAYED} were set before these seeds were run, after a first race on "
        "others; 1.1 for MaxVio is room on what was seen, not derived; gains may have the geometric mean of "
        "a logarithm's ratio and the power's."
    )
    return Findings(cases, data, (remark,))


def _seldom_tied(n_seeds: int) -> list[Case]:
    """Growth of regret where two halves of the experts tie seldom: lambda is 0.19 there."""
    n_experts, k, horizon = 8, 1, 8192
    places = np.linspace(-0.2, 0.2, n_experts)
    source = Camps(n_experts=n_experts, offsets=tuple(float(x) for x in places))
    ties = source.ties(k)
    gap, least = normalised_gap(ties), float(np.linalg.eigvalsh(ties)[1])
    rules: dict[str, PriceRule] = {
        "secant, c = 1": SecantHarmonic(),
        "secant, c = 1/lambda": SecantHarmonic(multiple=1.0 / gap),
        "ALF-LB, step 1/lambda_2": AlfLB(step_size=1.0 / least),
    }
    found = []
    for seed in range(_TIED_SEED, _TIED_SEED + n_seeds):
        runs = bs.simulate(
            list(rules.values()), source, n_tokens=64, k=k, horizon=horizon, seed=seed, n_records=horizon,
            n_exact=0, comparator=-places,
        )  # fmt: skip
        found.append([run.regret[[horizon // 16 - 1, horizon // 4 - 1, horizon - 1]] for run in runs])
    gains = np.diff(np.array(found), axis=2)
    where, cases = f"two halves that seldom tie, lambda {gap:.3f}", []
    for i, rule in enumerate(rules):
        value, low, high = ratio_of_means(gains[:, i, 1], gains[:, i, 0])
        control = "2 c lambda below 1" if i == 0 else None
        cases.append(
            at_most(f"{where}: {rule}", "last gain over the one before (seen)", value,
                    2.0 ** (1.0 - 2.0 * gap), low=low, high=high, control=control, decide="more seeds")
        )  # fmt: skip
    return cases


def _below(ratios: list[list[list[float]]]) -> int:
    return sum(max(row[0] for row in setting) < 1.0 for setting in ratios)


class _Compared(NamedTuple):
    undelayed: tuple[float, float, float]
    delayed: tuple[float, float, float]
    gap: float
    adagrad: float
    one: float
    best: float
    violation: float


def _compare(name: str, setting: Setting) -> _Compared:
    source = spread_out(families(setting.n_experts, _INDICES)[name], setting.k, setting.offsets)
    mu = modulus(source, setting.k).value
    unit = setting.n_experts / (setting.k * setting.n_tokens)
    oracles: list[PriceRule] = [AlfLB(step_size=c / mu) for c in _MULTIPLES]
    oracles += [AlfLB(step_size=c / mu, delay=math.ceil(d * unit)) for c, d in _DELAYED]
    regret, violation = _race(source, setting, [*oracles, SecantHarmonic(), GapModulus(), AdaGrad()])
    mean = regret.mean(axis=0)
    n = len(_MULTIPLES)
    plain, any_delay = int(mean[:n].argmin()), int(mean[: len(oracles)].argmin())
    ours = regret[:, len(oracles)]
    last = violation.mean(axis=0)
    return _Compared(
        ratio_of_means(ours, regret[:, plain]),
        ratio_of_means(ours, regret[:, any_delay]),
        float(mean[-2] / mean[plain]),
        float(mean[-1] / mean[plain]),
        float(mean[_MULTIPLES.index(1.0)] / mean[plain]),
        _MULTIPLES[plain],
        float(last[len(oracles)] / last[plain]),
    )


def _wrong_unit(exponent: int) -> float:
    """Regret of a step of one score unit over that of the best multiple, scores times a power of two."""
    setting = _SETTINGS[1]._replace(n_seeds=2)
    source = bs.sources.Exponential(n_experts=setting.n_experts, scale=2.0**exponent)
    source = spread_out(source, setting.k, setting.offsets)
    mu = modulus(source, setting.k).value
    regret, _ = _race(source, setting, [AlfLB(step_size=1.0), *(AlfLB(step_size=c / mu) for c in _MULTIPLES)])
    mean = regret.mean(axis=0)
    return float(mean[0] / mean[1:].min())
