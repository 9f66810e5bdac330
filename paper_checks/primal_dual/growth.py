"""How regret grows: telling a logarithm (S6), its sharp constant (S7), and the step that loses it (S8)."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import betaincinv

from balancesim import sources, theory
from balancesim.balancers import AlfLB
from balancesim.checks import Case, Depth, Findings, at_least, at_most, between, statement
from balancesim.hindsight import best_fixed_bias
from balancesim.sources import Source
from balancesim.theory import GrowthFit
from balancesim.types import Float64Array, IntArray
from paper_checks.primal_dual import growth_figures as figures
from paper_checks.primal_dual.curves import Curves, Interval, mean_interval, regret_curves, slopes

_CURVES = 16
_REPLICATIONS = 200
_FEW_REPLICATIONS = 40


def _name(source: Source, k: int, n_tokens: int) -> str:
    return f"{source.describe()}, E={source.n_experts}, K={k}, T={n_tokens}"


def _share(hits: Iterable[bool]) -> Interval:
    """Share of successes, and the one-sided 95 % limits of Clopper and Pearson."""
    found = list(hits)
    n, successes = len(found), sum(found)
    low = float(betaincinv(successes, n - successes + 1, 0.05)) if successes else 0.0
    high = float(betaincinv(successes + 1, n - successes, 0.95)) if successes < n else 1.0
    return Interval(successes / n, low, high)


def _fits(curves: Curves) -> list[GrowthFit]:
    """One fit per group of curves."""
    groups = curves.regret.reshape(-1, _CURVES, curves.steps.size)
    return [theory.fit_growth(curves.steps, group, n_bootstrap=400) for group in groups]


def _is_logarithmic(fit: GrowthFit) -> bool:
    return fit.verdict == "logarithmic"


def _is_linear(fit: GrowthFit) -> bool:
    return fit.verdict == "power" and fit.exponent.low > 0.9 and fit.exponent.high < 1.1


def _held_out_error(fit: GrowthFit) -> float:
    """Error of the logarithm's prediction over the growth that it predicts."""
    return fit.log_error / abs(fit.slope.value * np.log(fit.last_step / fit.held_out_step))


@statement(
    label="S6",
    paper="(ours)",
    title="Telling a logarithm from a power",
    claim=(
        "The growth fit calls the regret of steps 1/(mu n) logarithmic and that of a constant step linear, "
        "each in at least 95 % of replications, and what it fits to early steps predicts later ones."
    ),
    hypotheses=("curves of independent seeds, 16 a replication", "horizon 2,000"),
    statistic=(
        "share of 200 replications with the verdict, with one-sided 95 % limits (Clopper & Pearson): if the "
        "true share is 99 %, the lower limit misses 95 % once in 20; error of a + b ln N on the held-out "
        "third over the growth it predicts"
    ),
    control="a constant step and steps 0.3/(mu n) held to the logarithm, steps 1/(mu n) to the line",
    figure=figures.draw_verdicts,
    caption=(
        "Each replication's 95 % interval of the exponent beta of A + c (N^beta - 1)/beta, sorted: 0 is a "
        "logarithm, 1 a line. For the verdict logarithmic the interval must meet the shaded band and end "
        "below the dashed line. The counts are of verdicts."
    ),
)
def telling_growth(depth: Depth) -> Findings:
    """S6 on replications of 16 curves."""
    instances: list[tuple[Source, int, int]] = [(sources.Uniform(n_experts=32), 4, 16)]
    if depth is Depth.DEEP:
        instances.append((sources.Normal(n_experts=32), 4, 64))
    cases: list[Case] = []
    data: dict[str, Any] = {}
    for source, k, n_tokens in instances:
        mu = theory.modulus(source, k).value
        name = _name(source, k, n_tokens)
        common: dict[str, Any] = {"k": k, "n_tokens": n_tokens, "horizon": 2000}
        first = 1_000_000
        harmonic, constant = AlfLB(step_size=1.0 / mu), AlfLB(schedule="constant", step_size=0.2 / mu)
        seeds = range(first, first + _CURVES * _REPLICATIONS)
        curves = regret_curves([harmonic, constant], source, seeds=seeds, **common)
        short = regret_curves(
            [AlfLB(step_size=0.3 / mu)], source, seeds=seeds[: _CURVES * _FEW_REPLICATIONS], **common
        )
        by_rule = {
            "1/(mu n)": _fits(curves[0]),
            "constant": _fits(curves[1]),
            "0.3/(mu n)": _fits(short[0]),
        }
        log, line, power = by_rule.values()
        for fits, called, test, least, control in (
            (log, "logarithmic", _is_logarithmic, 0.95, None),
            (line, "linear", _is_linear, 0.95, None),
            (line, "logarithmic", _is_logarithmic, 0.95, "constant step"),
            (power, "logarithmic", _is_logarithmic, 0.95, "steps 0.3/(mu n)"),
            (log, "linear", _is_linear, 0.95, "steps 1/(mu n) held to the line"),
        ):
            share = _share(test(fit) for fit in fits)
            quantity = f"share of {len(fits)} replications called {called}"
            cases.append(
                at_least(name, quantity, *share[:1], least, low=share.low, high=share.high, control=control)
            )
        for fits, control in ((log, None), (line, "constant step")):
            error = float(np.median([_held_out_error(fit) for fit in fits]))
            quantity = "held-out error of a + b ln N / growth predicted, median"
            cases.append(at_most(name, quantity, error, 0.1, control=control))
        mean_slope = float(np.mean([fit.slope.value for fit in log]))
        covered = _share(fit.slope.low <= mean_slope <= fit.slope.high for fit in log)
        cases.append(
            at_least(
                name, "share of 95 % intervals of b that hold the mean b", covered.value, 0.90,
                low=covered.low, high=covered.high, decide="more replications",
            )
        )  # fmt: skip
        data[name] = {
            rule: {
                "value": [fit.exponent.value for fit in fits],
                "low": [fit.exponent.low for fit in fits],
                "high": [fit.exponent.high for fit in fits],
                "verdict": [str(fit.verdict) for fit in fits],
            }
            for rule, fits in by_rule.items()
        }
    return Findings(cases, {"replications": data})


class _Sharp(NamedTuple):
    """A source with what S7's slope needs: curvature, covariance, and p* at zero."""

    source: Source
    k: int
    horizon: int
    hessian: Float64Array
    covariance: Float64Array
    least: float
    drift: float

    def predicted(self, step_size: float, n_tokens: int) -> float:
        """The slope in ln N."""
        return theory.general_slope(self.hessian, self.covariance, n_tokens=n_tokens, step_size=step_size)


_SHARP_TOKENS = 256
_SHARP_SEEDS = range(7000, 7256)


def _declared(source: Source, k: int, horizon: int) -> _Sharp:
    """Exchangeable scores: everything is known."""
    hessian = theory.curvature(source, k)
    covariance = theory.gradient_covariance(source, k)
    return _Sharp(source, k, horizon, hessian, covariance, theory.modulus(source, k).value, 0.0)


def _estimated(source: Any, k: int, horizon: int) -> _Sharp:
    """Scores known by sampling alone: p* is fitted, put into the offsets, and what the fit leaves is known.

    Regret against the fitted p* is lower than against p* itself by F(fitted) - F(p*) a step, whose
    expectation is the gain of the fit on its own tokens, spread over them.
    """
    n_tokens, n_steps = 1024, 2048
    fresh = source.with_seed(6999)
    fitted = best_fixed_bias(fresh, n_tokens=n_tokens, k=k, n_steps=n_steps).bias
    hessian = theory.curvature(source.with_seed(6998), k, bias=fitted, method="gap")
    covariance = theory.gradient_covariance(source.with_seed(6998), k, bias=fitted)
    drift = theory.hindsight_gain(hessian, covariance, n_tokens=n_tokens) / n_steps
    shifted = type(source)(**{**_fields(source), "offsets": tuple(fitted)})
    least = float(np.linalg.eigvalsh(hessian)[1])
    return _Sharp(shifted, k, horizon, hessian, covariance, least, drift)


def _fields(source: Any) -> dict[str, Any]:
    return {name: getattr(source, name) for name in source.__dataclass_fields__}


def _sharp_sources(depth: Depth) -> list[_Sharp]:
    horizon = depth.pick(2500, 10_000)
    found = [
        _declared(sources.Exponential(n_experts=10), 3, horizon),
        _declared(sources.Uniform(n_experts=8), 2, depth.pick(6000, 20_000)),
        _declared(sources.Gumbel(n_experts=8), 1, horizon),
        _estimated(sources.TokenStream(), 8, depth.pick(500, 2000)),
    ]
    if depth is Depth.DEEP:
        found += [
            _declared(sources.Normal(n_experts=16), 2, horizon),
            _declared(sources.Logistic(n_experts=12), 4, horizon),
            _declared(sources.Pareto(n_experts=16, tail_index=1.5), 2, horizon),
            _declared(sources.StudentT(n_experts=8, degrees=3.0), 2, horizon),
            _declared(sources.LogNormal(n_experts=8), 2, horizon),
            _estimated(sources.TokenStream(counts="olmoe-arxiv"), 8, 2000),
            _estimated(sources.Factor(n_experts=16), 2, horizon),
            _estimated(sources.Clustered(n_experts=16), 2, horizon),
        ]
    return found


_FIRST = 30


def _scaled(interval: Interval, by: float) -> dict[str, float]:
    return {"low": interval.low / by, "high": interval.high / by}


@statement(
    label="S7",
    paper="classical: Chung 1954, Fabian 1968; the application is ours",
    title="The sharp constant of the logarithm",
    claim=(
        "With steps a/n near p* the regret grows like ln N times sum_i a^2 lambda_i s_i^2/(2(2 a lambda_i - "
        "1)): K(1-K/E)/(2 mu T) for exchangeable scores and a = 1/mu; the best fixed bias in hindsight adds "
        "K(1-K/E)/(2 mu T) in all, linearly along the run."
    ),
    hypotheses=(
        "fresh independent batches",
        "2 a lambda_i > 1 for every i",
        "H continuous and positive at p*",
    ),
    statistic=(
        "slope in ln N of 256 seeds' realised regret from step 30 on over the predicted slope, T = 256, 95 % "
        "interval over seeds"
    ),
    control="the slope of steps 2/(mu n) held to the formula of 1/(mu n); hindsight's linear part left in",
    figure=figures.draw_sharp,
    caption=(
        "Mean realised regret of 256 seeds (dots) and the predicted slope in ln N (lines through the middle "
        "of the dots; no slope is fitted). Last of the panels: one run against p* and against the best fixed "
        "bias in hindsight, with the predicted linear part (green line). Below: measured over predicted "
        "slopes with 95 % intervals; the band is 5 %."
    ),
)
def sharp_constant(depth: Depth) -> Findings:
    """S7 on exchangeable scores, and on recorded statistics with an estimated curvature."""
    cases: list[Case] = []
    panels: dict[str, Any] = {}
    for sharp in _sharp_sources(depth):
        estimated = sharp.drift > 0.0
        multiples = (1.5,) if estimated else (1.0, 2.0)
        rules = [AlfLB(step_size=c / sharp.least) for c in multiples]
        curves = regret_curves(
            rules, sharp.source, k=sharp.k, n_tokens=_SHARP_TOKENS, horizon=sharp.horizon,
            seeds=_SHARP_SEEDS, comparator=np.zeros(sharp.source.n_experts) if estimated else "population",
        )  # fmt: skip
        name = _name(sharp.source, sharp.k, _SHARP_TOKENS)
        at_one = sharp.predicted(1.0 / sharp.least, _SHARP_TOKENS)
        panels[name] = {"steps": curves[0].steps, "first": _FIRST, "curves": []}
        for c, found in zip(multiples, curves, strict=True):
            corrected = Curves(found.steps, found.regret + sharp.drift * found.steps)
            predicted = sharp.predicted(c / sharp.least, _SHARP_TOKENS)
            slope = mean_interval(slopes(corrected, _FIRST))
            cases.append(
                between(
                    name, f"slope / predicted, steps {c:g}/(mu n)", slope.value / predicted, 0.95, 1.05,
                    **_scaled(slope, predicted), decide="more seeds or a longer horizon",
                )
            )  # fmt: skip
            if c > 1.0:
                cases.append(
                    between(
                        name, f"slope of steps {c:g}/(mu n) / formula of 1/(mu n)", slope.value / at_one,
                        0.95, 1.05, **_scaled(slope, at_one), control="multiple ignored",
                    )
                )  # fmt: skip
            panels[name]["curves"].append(
                {
                    "multiple": c,
                    "regret": corrected.regret.mean(axis=0),
                    "predicted": predicted,
                    "ratio": [slope.value / predicted, slope.low / predicted, slope.high / predicted],
                }
            )
    found_cases, panel = _in_hindsight()
    return Findings([*cases, *found_cases], {"panels": panels, "hindsight": panel})


def _in_hindsight() -> tuple[list[Case], dict[str, Any]]:
    """The same run against p* and against the best fixed bias in hindsight."""
    source, k, n_tokens, horizon = sources.Uniform(n_experts=16), 4, _SHARP_TOKENS, 500
    name = _name(source, k, n_tokens)
    sharp = _declared(source, k, horizon)
    rules = [AlfLB(step_size=1.0 / sharp.least)]
    common: dict[str, Any] = {"k": k, "n_tokens": n_tokens, "horizon": horizon, "seeds": _SHARP_SEEDS}
    against_minimiser = regret_curves(rules, source, **common)[0]
    against_best = regret_curves(rules, source, comparator="hindsight", **common)[0]
    gain = theory.hindsight_gain(sharp.hessian, sharp.covariance, n_tokens=n_tokens)
    predicted = sharp.predicted(1.0 / sharp.least, n_tokens)
    steps = against_best.steps
    added = mean_interval(against_best.regret[:, -1] - against_minimiser.regret[:, -1])
    without_gain = Curves(steps, against_best.regret - gain * steps / horizon)
    slope, left_in = mean_interval(slopes(without_gain, _FIRST)), mean_interval(slopes(against_best, _FIRST))
    quantity = "slope in hindsight, its linear part taken out / predicted"
    cases = [
        between(
            name, "regret that hindsight adds / K(1-K/E)/(2 mu T)", added.value / gain, 0.9, 1.1,
            **_scaled(added, gain), decide="more seeds",
        ),
        between(
            name, quantity, slope.value / predicted, 0.95, 1.05, **_scaled(slope, predicted),
            decide="more seeds or a longer horizon",
        ),
        between(
            name, quantity, left_in.value / predicted, 0.95, 1.05, **_scaled(left_in, predicted),
            control="linear part left in",
        ),
    ]  # fmt: skip
    panel = {
        "name": name,
        "steps": steps,
        "first": _FIRST,
        "minimiser": against_minimiser.regret.mean(axis=0),
        "best": against_best.regret.mean(axis=0),
        "gain": gain,
        "ratio": [slope.value / predicted, slope.low / predicted, slope.high / predicted],
        "predicted": predicted,
    }
    return cases, panel


_SHORT = (0.1, 0.25, 0.4)
_LONG = (1.0, 2.0, 4.0)


@statement(
    label="S8",
    paper="classical: Chung 1954, Nemirovski et al. 2009, Moulines & Bach 2011; the application is ours",
    title="The threshold at half of 1/mu",
    claim=(
        "Steps c/(mu n) with c < 1/2 have a regret that grows like N^(1-2c); with c > 1/2 a larger c only "
        "multiplies the logarithm by c^2/(2c-1). Steps u/sqrt(n) give sqrt(N), constant and sign steps N."
    ),
    hypotheses=(
        "fresh independent batches",
        "iterates near p*",
        "every lambda_i equal to mu (exchangeable scores)",
    ),
    statistic=(
        "exponent beta of A + c (N^beta - 1)/beta over the late half of the run, start away from p* (offsets "
        "to 0.15), 95 % bootstrap intervals over seeds; slopes in ln N over the sharp slope at c = 1"
    ),
    control="c = 1 held to N^(1-2c); c = 4 held to the slope of c = 1; a constant step held to sqrt(N)",
    figure=figures.draw_threshold,
    caption=(
        "Left: mean regret of each schedule, and through two of its late points (dotted) the predicted power "
        "plus a constant. Middle: fitted exponents against the multiple c, with 95 % intervals; the line is "
        "1 - 2c below 1/2 and 0 above. Right: the slope in ln N over the sharp slope of c = 1, and "
        "c^2/(2c-1)."
    ),
)
def threshold(depth: Depth) -> Findings:
    """S8 on uniform scores, E = 6, K = 1, T = 64."""
    k, n_tokens, n_experts = 1, 64, 6
    offsets = tuple(np.linspace(-0.15, 0.15, n_experts))
    source = sources.Uniform(n_experts=n_experts, offsets=offsets)
    mu = theory.modulus(source, k).value
    name = _name(source, k, n_tokens) + ", offsets to 0.15"
    size, root, sign = 0.1, 0.3, 0.01
    rules = [AlfLB(step_size=c / mu) for c in (*_SHORT, 1.0)] + [
        AlfLB(schedule="sqrt", step_size=root),
        AlfLB(schedule="constant", step_size=size),
        AlfLB(schedule="sign", step_size=sign),
    ]
    horizon = depth.pick(40_000, 200_000)
    curves = regret_curves(
        rules, source, k=k, n_tokens=n_tokens, horizon=horizon, seeds=range(8000, 8000 + depth.pick(48, 96))
    )
    fits = [theory.fit_growth(one.steps, one.regret) for one in curves]
    labels = [*(f"c = {c:g}" for c in (*_SHORT, 1.0)), "sqrt", "constant", "sign"]
    expected = [*(theory.power_exponent(c) for c in _SHORT), 0.0, 0.5, 1.0, 1.0]

    def exponent_case(i: int, at: float, control: str | None = None) -> Case:
        exponent = fits[i].exponent
        return between(
            name, f"exponent, {labels[i]}", exponent.value, at - 0.05, at + 0.05,
            low=exponent.low, high=exponent.high, control=control, decide="more seeds",
        )  # fmt: skip

    cases = [exponent_case(i, expected[i]) for i in range(len(rules)) if i != len(_SHORT)]
    cases.append(exponent_case(len(_SHORT), 1.0 - 2.0, control="c = 1 held to N^(1-2c)"))
    cases.append(exponent_case(len(_SHORT) + 2, 0.5, control="constant step held to sqrt(N)"))
    cases += _steady_cases(name, curves[-3:-1], (root, size), mu, k, n_tokens, n_experts)
    multiplied, panel = _multiples(depth)
    data = {
        "steps": curves[0].steps,
        "labels": labels,
        "expected": expected,
        "multiples": [*_SHORT, 1.0],
        "regret": [one.regret.mean(axis=0) for one in curves],
        "exponent": [list(fit.exponent[:3]) for fit in fits],
        "factors": panel,
    }
    return Findings([*cases, *multiplied], data)


def _steady_cases(
    name: str,
    curves: list[Curves],
    sizes: tuple[float, float],
    mu: float,
    k: int,
    n_tokens: int,
    n_experts: int,
) -> list[Case]:
    """Constants of the other schedules: what a step leaves where it balances noise and curvature."""
    variance = k * (1.0 - k / n_experts) / n_tokens
    (root, constant), (u, v) = curves, sizes
    steps: IntArray = root.steps
    half = int(np.searchsorted(steps, steps[-1] / 2))
    later = float(steps[-1] - steps[half])
    roots = float(np.sqrt(steps[-1]) - np.sqrt(steps[half]))
    found = []
    for label, one, predicted in (
        ("sqrt", root, u * variance / 2.0 * roots),
        ("constant", constant, v * variance / (2.0 * (2.0 - v * mu)) * later),
    ):
        late = mean_interval(one.regret[:, -1] - one.regret[:, half])
        found.append(
            between(
                name, f"late regret / predicted, {label}", late.value / predicted, 0.9, 1.1,
                **_scaled(late, predicted), decide="more seeds",
            )
        )  # fmt: skip
    return found


def _multiples(depth: Depth) -> tuple[list[Case], dict[str, Any]]:
    """Slopes of steps c/(mu n) from p* on, c from 1 up."""
    k, n_tokens = 1, 64
    source = sources.Uniform(n_experts=6)
    name = _name(source, k, n_tokens)
    mu = theory.modulus(source, k).value
    curves = regret_curves(
        [AlfLB(step_size=c / mu) for c in _LONG], source, k=k, n_tokens=n_tokens,
        horizon=depth.pick(4000, 10_000), seeds=range(8500, 8500 + depth.pick(256, 1024)),
    )  # fmt: skip
    base = theory.sharp_slope(modulus=mu, k=k, n_experts=6, n_tokens=n_tokens)
    cases = []
    found = []
    for c, one in zip(_LONG, curves, strict=True):
        slope = mean_interval(slopes(one, 100))
        factor = c * c / (2.0 * c - 1.0)
        by = base * factor
        cases.append(
            between(
                name, f"slope / c^2/(2c-1) K(1-K/E)/(2 mu T), c = {c:g}", slope.value / by, 0.9, 1.1,
                **_scaled(slope, by), decide="more seeds or a longer horizon",
            )
        )  # fmt: skip
        found.append([slope.value / base, slope.low / base, slope.high / base])
    cases.append(
        between(
            name, "slope / K(1-K/E)/(2 mu T), c = 4", found[-1][0], 0.9, 1.1, low=found[-1][1],
            high=found[-1][2], control="c = 4 held to the slope of c = 1",
        )
    )  # fmt: skip
    return cases, {"multiples": list(_LONG), "slopes": found}
