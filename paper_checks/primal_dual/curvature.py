"""S1 to S3: what the curvature of F is, its closed forms, and how well tokens tell it."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from balancesim import sources
from balancesim.balancers.alf_lb import project
from balancesim.checks import Case, Depth, Findings, at_most, between, statement
from balancesim.sources import Source
from balancesim.theory import CurvatureEstimate, curvature, estimate_curvature, modulus
from balancesim.theory.hessian import integrate_hessian, least_eigenvalue
from balancesim.types import Float64Array
from paper_checks.primal_dual import curvature_figures as figures

_N_TOKENS = 2**20


class Place(NamedTuple):
    """Scores and a bias at which their curvature is wanted."""

    source: Source
    k: int
    bias: Float64Array

    def __str__(self) -> str:
        return f"{self.source.describe()}, E={self.source.n_experts}, K={self.k}"


def _biased(source: Source, k: int, spread: float) -> Place:
    """Unequal prices, the same for every source of a size."""
    e = np.arange(source.n_experts)
    bias = spread * np.sin(1.0 + 2.3 * e)
    return Place(source, k, bias - bias.mean())


def _smooth(depth: Depth) -> list[Place]:
    """Sources whose densities have a square-integrable derivative, or jump only where nothing ties."""
    few = [
        _biased(sources.Normal(n_experts=8, seed=21), 2, 0.4),
        _biased(sources.StudentT(n_experts=8, degrees=2.0, seed=22), 3, 0.6),
        _biased(sources.Gumbel(n_experts=8, seed=23), 1, 0.5),
    ]
    more = [
        _biased(sources.Logistic(n_experts=16, seed=24), 4, 0.8),
        _biased(sources.Cauchy(n_experts=16, seed=25), 2, 0.5),
        _biased(sources.LogNormal(n_experts=16, sigma=1.0, seed=26), 2, 0.3),
    ]
    return depth.pick(few, few + more)


@statement(
    label="S1",
    paper="our derivation of a claim of [H] arXiv:2512.03915",
    title="The Hessian is a weighted Laplacian",
    claim=(
        "The Hessian of F has the entries -h_kj, h_kj the density of experts k and j tying exactly at the "
        "K-th place, for independent scores an integral of f_k f_j times a Poisson-binomial probability. Its "
        "second eigenvalue is the modulus mu, at least E min h_kj, and over a domain at least mu_C."
    ),
    hypotheses=(
        "Scores are independent over experts.",
        "Their densities are square integrable.",
        "For mu_C: identically distributed up to location, with unimodal densities.",
    ),
    statistic=(
        "Quadrature against differences of expected loads (relative to the trace), against near-ties and "
        "load differences counted in tokens (ratio of traces; largest entry's distance in standard errors), "
        "and mu_C against the least lambda_2 that a search of the domain finds."
    ),
    control=(
        "The curvature at p* in place of that at p; softmax scores taken as independent; the largest h_kj in "
        "place of the least; the modulus at p* in place of mu_C."
    ),
    figure=figures.draw_hessian,
    caption=(
        "Left: every h_kj by quadrature against its estimate from counted near-ties, with 95 % intervals; "
        "points lie on the diagonal if the Hessian is the Laplacian of tie densities. Right: the least "
        "modulus found at any bias with |p_k| <= R (points) against the bound mu_C (lines), both relative to "
        "the modulus at p*: the bound is not exceeded, nor is it close, and the modulus at p* (1) is no "
        "bound. Offsets widen the domain, so that their bound starts below 1."
    ),
)
def hessian(depth: Depth) -> Findings:
    """Try S1."""
    cases: list[Case] = []
    quadrature, counted, ends, labels = [], [], [], []
    for place in _smooth(depth):
        name, exact = str(place), curvature(place.source, place.k, bias=place.bias)
        error = float(np.abs(exact - _load_differences(place)).max() / np.trace(exact))
        cases.append(at_most(name, "error against differences of expected loads / trace", error, 1e-8))
        found = _counted(place)
        cases.append(_trace_ratio(name, "gap", found, exact))
        cases.append(_worst_entry(name, found, exact))
        cases.append(_trace_ratio(name, "difference", _counted(place, found.width), exact))
        pairs = np.triu_indices(len(exact), 1)
        quadrature.append(-exact[pairs])
        counted.append(-found.hessian[pairs])
        ends.append(np.stack([found.low[pairs], found.high[pairs]]))
        labels.append(name)
        weights = -exact[~np.eye(len(exact), dtype=bool)]
        least, largest = len(exact) * float(weights.min()), len(exact) * float(weights.max())
        value = least_eigenvalue(exact)[0]
        cases.append(at_most(name, "E min h_kj / mu", least / value, 1.0 + 1e-12))
        cases.append(
            at_most(
                name, "E min h_kj / mu", largest / value, 1.0 + 1e-12, control="largest h_kj for the least"
            )
        )
    place = _smooth(depth)[0]
    here = _counted(place)
    elsewhere = curvature(place.source, place.k)
    cases.append(_trace_ratio(str(place), "gap", here, elsewhere, control="curvature at p*, not at p"))
    cases.append(_worst_entry(str(place), here, elsewhere, control="curvature at p*, not at p"))
    cases.append(_softmax_apart())
    domains = _domains(depth, cases)
    return Findings(
        cases,
        {
            "quadrature": np.concatenate(quadrature),
            "counted": np.concatenate(counted),
            "low": np.concatenate([pair[0] for pair in ends]),
            "high": np.concatenate([pair[1] for pair in ends]),
            "n_pairs": np.array([len(values) for values in quadrature]),
            "labels": labels,
            **domains,
        },
        ("The largest of a source's entries is decided at a false-alarm rate of 1e-3.",),
    )


def _counted(place: Place, width: float | None = None) -> CurvatureEstimate:
    """Gaps at their own width, or load differences at a given one."""
    scores = place.source.batch(0, _N_TOKENS).astype(np.float64)
    method = "gap" if width is None else "difference"
    return estimate_curvature(scores, place.k, bias=place.bias, method=method, width=width)


def _trace_ratio(
    name: str, method: str, found: CurvatureEstimate, exact: Float64Array, control: str | None = None
) -> Case:
    mean = float(np.trace(exact)) / (len(exact) - 1)
    value, low, high, _ = found.mean_eigenvalue
    # The fewest near-ties here, 21,000, leave an interval of 1.4 %: 3 % holds it unless the trace is off.
    return between(
        name, f"trace by {method} / by quadrature", value / mean, 0.97, 1.03,
        low=low / mean, high=high / mean, control=control, decide="more tokens",
    )  # fmt: skip


def _worst_entry(
    name: str, found: CurvatureEstimate, exact: Float64Array, control: str | None = None
) -> Case:
    """The largest of E(E-1)/2 deviations, each normal to the precision of its count."""
    pairs = np.triu_indices(len(exact), 1)
    h = -exact[pairs]
    error = np.sqrt(h / (2.0 * found.width * found.n_tokens))
    worst = float(np.abs((-found.hessian[pairs] - h) / error).max())
    bound = float(special.ndtri(1.0 - 0.5e-3 / h.size))
    return at_most(name, "largest deviation of an h_kj, standard errors", worst, bound, control=control)


def _softmax_apart() -> Case:
    """Near-ties of softmax scores against those of independent scores with the same marginal laws."""
    source = sources.Normal(n_experts=4, scale=2.0, seed=27, transform="softmax")
    scores = source.batch(0, _N_TOKENS).astype(np.float64)
    rng = np.random.default_rng(28)
    apart = np.stack([rng.permutation(column) for column in scores.T], axis=1)
    independent = curvature(apart, 1, method="gap")
    return _trace_ratio(
        "Normal, softmax, E=4, K=1", "gap", estimate_curvature(scores, 1), independent,
        control="softmax scores taken as independent",
    )  # fmt: skip


def _load_differences(place: Place, step: float = 0.01) -> Float64Array:
    """Derivatives of expected loads by prices: central differences of fourth order, by an own integral."""
    columns = []
    for unit in np.eye(place.source.n_experts):
        near, far = (
            _expected_loads(place, place.bias + d * unit) - _expected_loads(place, place.bias - d * unit)
            for d in (step, 2 * step)
        )
        columns.append((8.0 * near - far) / (12.0 * step))
    return np.stack(columns, axis=1)


@cache
def _rule() -> tuple[Float64Array, Float64Array]:
    """Enough nodes for 16 Cauchy experts, whose loads change fastest in the logit."""
    return np.polynomial.legendre.leggauss(800)


def _expected_loads(place: Place, bias: Float64Array) -> Float64Array:
    """P(expert among the K best): its own score integrated over probability, by Gauss's rule in the logit."""
    noise = place.source.noise_distribution()
    nodes, weights = _rule()
    t, weight = 40.0 * nodes, 40.0 * weights
    u = special.expit(t)
    own = np.where(t < 0.0, noise.ppf(u), noise.isf(special.expit(-t)))
    loads = []
    for e in range(bias.size):
        above = np.delete(noise.sf(own[:, None] + (bias[e] - bias)), e, axis=1)
        counts = np.zeros((place.k, t.size))
        counts[0] = 1.0
        for q in above.T:
            counts[1:] = counts[1:] * (1.0 - q) + counts[:-1] * q
            counts[0] *= 1.0 - q
        loads.append(float(np.sum(weight * u * special.expit(-t) * counts.sum(axis=0))))
    return np.array(loads)


_DOMAINS: list[tuple[Source, int, tuple[float, ...]]] = [
    (sources.Normal(n_experts=6), 2, (0.1, 0.3, 0.6)),
    (sources.Pareto(n_experts=6, tail_index=0.8), 2, (0.1, 0.3, 0.6)),
    (sources.Exponential(n_experts=6, offsets=(0.0, 0.1, 0.2, 0.2, 0.1, 0.0)), 1, (0.1, 0.3, 0.6)),
    (sources.Uniform(n_experts=4), 1, (0.05, 0.1, 0.2)),
]


def _domains(depth: Depth, cases: list[Case]) -> dict[str, Any]:
    """Compare mu_C with what a search of the domain finds; what the figure shows of it."""
    curve_radii = np.linspace(0.0, 0.6, 25)
    radii, least, curves, labels = [], [], [], []
    for source, k, sizes in depth.pick(_DOMAINS[:3], _DOMAINS):
        at_minimiser = modulus(source, k).value
        label = f"{source.describe()}, E={source.n_experts}, K={k}"
        if getattr(source, "offsets", None) is not None:
            label += ", offsets"
        for radius in sizes:
            bound = modulus(source, k, radius=radius).value
            found = least_modulus(source, k, radius, n_trials=depth.pick(24, 200))
            name, quantity = f"{label}, R={radius:g}", "mu_C / least mu found in the domain"
            cases.append(at_most(name, quantity, bound / found, 1.0 + 1e-9))
            if radius == sizes[-1]:
                control = "the modulus at p*, not over the domain"
                cases.append(at_most(name, quantity, at_minimiser / found, 1.0 + 1e-9, control=control))
            radii.append(radius)
            least.append(found / at_minimiser)
            labels.append(label)
        curves.append([modulus(source, k, radius=r).value / at_minimiser for r in curve_radii])
    return {
        "radii": np.array(radii),
        "least_modulus": np.array(least),
        "domain_labels": labels,
        "curve_radii": curve_radii,
        "bound_curves": np.array(curves),
    }


def least_modulus(source: Source, k: int, radius: float, n_trials: int) -> float:
    """Least lambda_2 found for |p_k| <= radius, sum 0: two-level biases, random ones, and a descent."""
    n_experts = source.n_experts
    rng = np.random.default_rng(29)
    trials = []
    for m in range(1, n_experts):
        levels = np.where(np.arange(n_experts) < m, 1.0, -m / (n_experts - m))
        trials += [sign * radius * levels / np.abs(levels).max() for sign in (1.0, -1.0)]
    drawn = rng.uniform(-radius, radius, (n_trials, n_experts))
    trials += [_into_domain(row, radius) for row in drawn]
    values = [_modulus_at(source, k, bias) for bias in trials]
    best, value = trials[int(np.argmin(values))], min(values)
    reach = radius / 2.0
    for _ in range(n_trials):
        step = _into_domain(best + reach * rng.standard_normal(n_experts), radius)
        found = _modulus_at(source, k, step)
        if found < value:
            best, value = step, found
        else:
            reach *= 0.93
    return value


def _into_domain(bias: Float64Array, radius: float) -> Float64Array:
    inside = bias.copy()
    project(inside, radius)
    return inside


def _modulus_at(source: Source, k: int, bias: Float64Array) -> float:
    return modulus(source, k, bias=bias).value


_FAMILIES: dict[str, tuple[Callable[[int], Any], Callable[[int, int], float] | None]] = {
    "uniform": (lambda e: sources.Uniform(n_experts=e), lambda e, _k: e / (e - 1)),
    "exponential": (
        lambda e: sources.Exponential(n_experts=e),
        lambda e, k: _c(e, k) * _beta(e - k, k + 1),
    ),
    "logistic": (
        lambda e: sources.Logistic(n_experts=e, scale=2.0),
        lambda e, k: _c(e, k) * _beta(e - k + 1, k + 1) / 2.0,
    ),
    "gumbel": (
        lambda e: sources.Gumbel(n_experts=e),
        lambda e, k: (e - k) / (e - 1) * math.fsum(1 / j for j in range(e - k + 1, e + 1)),
    ),
    "pareto 1.5": (
        lambda e: sources.Pareto(n_experts=e, tail_index=1.5),
        lambda e, k: 1.5 * _c(e, k) * _beta(e - k, k + 1 + 1 / 1.5),
    ),
    "pareto 0.3": (
        lambda e: sources.Pareto(n_experts=e, tail_index=0.3),
        lambda e, k: 0.3 * _c(e, k) * _beta(e - k, k + 1 + 1 / 0.3),
    ),
    "normal": (lambda e: sources.Normal(n_experts=e), None),
    "student t 2": (lambda e: sources.StudentT(n_experts=e, degrees=2.0), None),
    "log-normal 1": (lambda e: sources.LogNormal(n_experts=e, sigma=1.0), None),
    "cauchy": (lambda e: sources.Cauchy(n_experts=e), None),
}


def _c(n_experts: int, k: int) -> float:
    return float(n_experts * special.binom(n_experts - 2, k - 1))


def _beta(a: float, b: float) -> float:
    return float(special.beta(a, b))


@statement(
    label="S2",
    paper="(ours)",
    title="Closed forms of the modulus",
    claim=(
        "Where scores are identically distributed up to location, at p* the Hessian is mu (I - 11'/E) with "
        "mu = E/(E-1) times the mean of f(F^-1(U)), U ~ Beta(E-K, K): elementary for uniform, exponential, "
        "logistic, Gumbel and Pareto scores, a smooth integral in one variable for the others."
    ),
    hypotheses=(
        "Scores are independent over experts and identically distributed up to location.",
        "The density is square integrable; the bias is p*.",
    ),
    statistic=(
        "Relative error of S1's modulus, by Poisson-binomial quadrature, against the closed form or the "
        "integral in one variable; largest entry of H - mu (I - 11'/E) over mu."
    ),
    control="Beta(E-K-1, K+1) in place of Beta(E-K, K) (one expert more); a bias away from p*.",
    figure=figures.draw_closed_forms,
    caption=(
        "Left: the modulus against the number of experts K chosen of E = 64: lines are closed forms or "
        "integrals in one variable (S2), points the Poisson-binomial quadrature (S1); Pareto's scores grow "
        "with the tail, so its modulus, per score unit, falls fastest towards K = 1. Right: their relative "
        "distance for all sizes, against the 1e-8 that is asked."
    ),
)
def closed_forms(depth: Depth) -> Findings:
    """Try S2."""
    shapes = depth.pick(
        [(2, 1), (8, 2), (16, 15), (64, 8)],
        [(2, 1), (3, 1), (8, 2), (8, 4), (16, 1), (16, 15), (32, 8), (64, 1), (64, 8), (64, 32), (64, 63)],
    )
    cases: list[Case] = []
    errors = []
    for name, (make, formula) in _FAMILIES.items():
        worst, uneven = 0.0, 0.0
        for n_experts, k in shapes:
            source = make(n_experts)
            value = modulus(source, k).value
            if formula is not None:
                value = formula(n_experts, k)
            found = _by_quadrature(source, k)
            error = abs(least_eigenvalue(found)[0] / value - 1.0)
            even = value * (np.eye(n_experts) - 1.0 / n_experts)
            worst, uneven = max(worst, error), max(uneven, float(np.abs(found - even).max()) / value)
            errors.append(error)
        sizes = f"{name}, E to 64"
        cases.append(at_most(sizes, "largest relative error of mu", worst, 1e-8))
        cases.append(at_most(sizes, "largest |H - mu (I - 11'/E)| / mu", uneven, 1e-8))
        if formula is not None and name != "uniform":
            wrong = abs(formula(16, 3) / least_eigenvalue(_by_quadrature(make(16), 2))[0] - 1.0)
            cases.append(at_most(name, "largest relative error of mu", wrong, 1e-8, control="K+1 for K"))
    place = _biased(sources.Normal(n_experts=8), 2, 0.1)
    away, value = curvature(place.source, place.k, bias=place.bias), modulus(place.source, place.k).value
    cases.append(
        at_most(
            str(place), "largest |H - mu (I - 11'/E)| / mu",
            float(np.abs(away - value * (np.eye(8) - 1.0 / 8)).max()) / value, 1e-8,
            control="a bias away from p*",
        )
    )  # fmt: skip
    ks = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 40, 48, 52, 56, 58, 60, 61, 62, 63])
    some = np.array([1, 8, 32, 63])
    shown = [_FAMILIES[name][0](64) for name in figures.SHOWN_FAMILIES]
    lines = [[modulus(source, int(k)).value for k in ks] for source in shown]
    points = [[least_eigenvalue(_by_quadrature(source, int(k)))[0] for k in some] for source in shown]
    return Findings(
        cases,
        {
            "families": list(_FAMILIES),
            "shapes": np.array(shapes),
            "errors": np.array(errors).reshape(len(_FAMILIES), len(shapes)),
            "ks": ks,
            "lines": np.array(lines),
            "some_ks": some,
            "points": np.array(points),
        },
    )


def _by_quadrature(source: Any, k: int) -> Float64Array:
    """S1's integral for every pair, though all are equal at p*."""
    found = integrate_hessian(source.noise_distribution(), np.zeros(source.n_experts), k)
    matrix: Float64Array = found.matrix / source.scale
    return matrix
