"""The step that loses the logarithm, and what the other schedules leave (S8)."""

from typing import Any

import numpy as np

from balancesim import sources, theory
from balancesim.balancers import AlfLB
from balancesim.checks import Case, Depth, Findings, between, statement
from balancesim.types import IntArray
from paper_checks.primal_dual import growth_figures as figures
from paper_checks.primal_dual.curves import Curves, mean_interval, name_of, ratio_case, regret_curves, slopes

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
    name = name_of(source, k, n_tokens) + ", offsets to 0.15"
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
        found.append(ratio_case(name, f"late regret / predicted, {label}", late, predicted, within=0.1))
    return found


def _multiples(depth: Depth) -> tuple[list[Case], dict[str, Any]]:
    """Slopes of steps c/(mu n) from p* on, c from 1 up."""
    k, n_tokens = 1, 64
    source = sources.Uniform(n_experts=6)
    name = name_of(source, k, n_tokens)
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
            ratio_case(name, f"slope / c^2/(2c-1) K(1-K/E)/(2 mu T), c = {c:g}", slope, by, within=0.1)
        )
        found.append([slope.value / base, slope.low / base, slope.high / base])
    cases.append(
        between(
            name, "slope / K(1-K/E)/(2 mu T), c = 4", found[-1][0], 0.9, 1.1, low=found[-1][1],
            high=found[-1][2], control="c = 4 held to the slope of c = 1",
        )
    )  # fmt: skip
    return cases, {"multiples": list(_LONG), "slopes": found}
