"""T1 to T4: what heavy tails do to the modulus at the minimiser, raw and behind a gate."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from scipy import stats
from scipy.special import expit, gammaln

import balancesim as bs
from balancesim.checks import Case, Depth, Findings, at_least, at_most, between, statement
from balancesim.errors import InputError
from balancesim.theory import boundary_spread, modulus, spread_limit
from balancesim.theory.tails import hazard_modulus, sigmoid_modulus, softmax_modulus
from balancesim.types import Float64Array
from paper_checks.primal_dual import tails_figures as figures
from paper_checks.primal_dual.tails_instances import families

LN4 = math.log(4.0)
_SEED = 20_26
_SIZES = ((8, 1), (16, 2), (64, 8), (256, 2))
_INDICES = (0.5, 2.0)
_IID = "scores independent and identically distributed up to location, with a density"


def _relative(source: Any, k: int) -> float:
    """Modulus times spread, over the exponential's."""
    return float(modulus(source, k).value * boundary_spread(source, k) * (source.n_experts - 1) / (k * LN4))


@statement(
    label="T1",
    paper="(ours)",
    title="The modulus is a hazard rate",
    claim="mu = K/(E-1) times the mean hazard rate at the (K+1)-th largest of E scores, the best that is not "
    "chosen; and mu = f_D(0)/(E-1), f_D the density of the gap D between it and the last that is chosen.",
    hypotheses=(_IID,),
    statistic="relative difference from S2's integral; for the gap, the share of tokens with the 2 % "
    "smallest gaps over their width, 2^17 tokens, 95 % interval",
    control="the hazard rate at the K-th largest, the last that is chosen",
)
def hazard(depth: Depth) -> Findings:
    """Compare both forms with S2's integral."""
    cases = []
    for n_experts, k in _SIZES:
        for name, source in families(n_experts, _INDICES).items():
            exact = modulus(source, k).value
            error = abs(hazard_modulus(source.noise_distribution(), k, n_experts) / exact - 1.0)
            cases.append(at_most(f"{name}, E={n_experts}, K={k}", "relative difference", error, 1e-8))
    n_experts, k = 16, 2
    n_tokens = depth.pick(2**17, 2**20)
    for name, source in families(n_experts, _INDICES).items():
        split = np.partition(source.with_seed(_SEED).batch(0, n_tokens), (n_experts - k - 1, n_experts - k))
        gaps = np.sort((split[:, n_experts - k] - split[:, n_experts - k - 1]).astype(np.float64))
        count = n_tokens // 50
        density = -math.log1p(-count / n_tokens) / gaps[count]
        ratio = density / (n_experts - 1) / modulus(source, k).value
        reach = 1.96 / math.sqrt(count)
        cases.append(
            between(
                f"{name}, E={n_experts}, K={k}", "gap density over (E-1) mu", ratio, 0.9, 1.1,
                low=ratio * (1 - reach), high=ratio * (1 + reach), decide="more tokens",
            )
        )  # fmt: skip
        if name.startswith("Pareto"):
            wrong = _hazard_at(k, n_experts, source.tail_index) / modulus(source, k).value - 1.0
            control = "hazard rate at the K-th largest"
            cases.append(
                at_most(f"{name}, E=16, K=2", "relative difference", abs(wrong), 1e-8, control=control)
            )
    remark = (
        "0.9 to 1.1 for the gap: 4 % are sampling (2600 gaps, 95 %), the rest is room for the bias of a "
        "width that holds 2 % of the gaps, not derived."
    )
    return Findings(cases, remarks=(remark,))


def local_index(noise: Any, share: float) -> float:
    """(1/h)' at the quantile 1 - share, by differences in the cumulative hazard; 1/a for Pareto."""
    step = 1e-3
    places = noise.isf(share * np.exp([-step, step]))
    inverse = noise.logsf(places) - noise.logpdf(places)
    return float((inverse[0] - inverse[1]) / (2.0 * step))


def _hazard_at(rank: int, n_experts: int, tail_index: float) -> float:
    """K/(E-1) times the mean of a/X at the rank-th largest Pareto score, K the rank."""
    power = 1.0 / tail_index
    log_mean = gammaln(rank + power) - gammaln(rank) + gammaln(n_experts + 1) - gammaln(n_experts + 1 + power)
    return rank / (n_experts - 1) * tail_index * math.exp(float(log_mean))


def _pareto(a: Float64Array, n_experts: int, k: int) -> dict[str, Float64Array]:
    """Closed forms for arrays of tail indices: log mu, mu times boundary score, mu times spread."""
    s = 1.0 + 1.0 / a
    log_mu = np.log(a) + math.log(n_experts / (n_experts - 1))
    log_mu += gammaln(k + s) - gammaln(k) + gammaln(n_experts) - gammaln(n_experts + s)
    with np.errstate(over="ignore"):
        score = np.exp(log_mu + np.log(n_experts / k) / a)
        spread = score * 2.0 * np.sinh(math.log(2.0) / a)
    return {"log_mu": log_mu, "score": score, "spread": spread}


def _slope(a: float, n_experts: int, k: int) -> float:
    """Slope of ln mu in ln a at a fixed minimum, from mu = a^(E-K+1) E (E-2)!/(K-1)! / prod (1 + j a)."""
    return 1.0 + sum(1.0 / (1.0 + j * a) for j in range(k + 1, n_experts + 1))


@statement(
    label="T2",
    paper="(ours)",
    title="Relative to the spread heavy tails do not flatten F at p*",
    claim="For Pareto scores and K <= E/3, mu times the boundary spread is at least the exponential's, K "
    "ln 4/(E-1), for every tail index, E and K, and falls with the index; mu times the boundary score "
    "lies between 1 and exp((1+1/(2a))/(aK)) times a K/(E-1). At a fixed minimum mu is a^(E-K+1) E "
    "(E-2)!/(K-1)! / prod_{j=K+1..E} (1 + j a), a power of a for a << 1/E.",
    hypotheses=(_IID, "Pareto; for Student t and log-normal it is seen on a grid, not proved"),
    statistic="least over tail indices 0.02 to 50 of the quantity over its bound; largest rise; slope of "
    "ln mu",
    control="mu at a fixed minimum in place of mu times the spread",
    figure=figures.minimiser,
    caption="Modulus at p* in three units, over K/(E-1): times the boundary spread over ln 4 (left, 1 is the "
    "exponential's), times the boundary score (middle), at a fixed minimum (right), against 1/a for Pareto "
    "(lines) and against the local index (1/h)' at the boundary for Student t (dots) and log-normal "
    "(triangles). Heavy tails are to the right.",
)
def minimiser(depth: Depth) -> Findings:
    """Closed forms on a grid of tail indices, quadrature for the other families."""
    a = np.geomspace(0.02, 50.0, depth.pick(121, 1001))
    cases, data = [], {"inverse_index": 1.0 / a, "sizes": [f"E={e}, K={k}" for e, k in _SIZES]}
    for n_experts, k in (*_SIZES, (4096, 64), (3, 1)):
        name, found = f"Pareto, E={n_experts}, K={k}", _pareto(a, n_experts, k)
        relative = found["spread"] * (n_experts - 1) / (k * LN4)
        score = found["score"] * (n_experts - 1) / (a * k)
        log_ceiling = (1.0 + 0.5 / a) / (a * k)
        fixed = np.exp(found["log_mu"]) * (n_experts - 1) / k
        cases += [
            at_least(name, "least mu x spread over the exponential's", float(relative.min()), 1.0 - 1e-12),
            at_most(
                name, "largest rise of mu x spread with a", float((relative[1:] / relative[:-1]).max()), 1.0
            ),
            at_least(name, "least mu x boundary score over a K/(E-1)", float(score.min()), 1.0 - 1e-12),
            at_most(
                name,
                "the same over its upper bound, largest",
                float(np.exp(np.log(score) - log_ceiling).max()),
                1.0 + 1e-12,
            ),
        ]
        if (n_experts, k) in _SIZES:
            what, control = "least mu over the exponential's", "at a fixed minimum"
            cases.append(at_least(name, what, float(fixed.min()), 1.0, control=control))
            data[f"curves {n_experts} {k}"] = np.array(
                [relative, found["score"] * (n_experts - 1) / k, fixed]
            )
    for n_experts, k in ((4, 1), (8, 1), (8, 2), (8, 7), (64, 63)):
        where, small = f"Pareto, E={n_experts}, K={k}", np.array([0.999e-3, 1.001e-3])
        slope = float(np.diff(_pareto(small, n_experts, k)["log_mu"])[0] / np.diff(np.log(small))[0])
        error = abs(slope - _slope(1e-3, n_experts, k))
        power, what = n_experts - k + 1.0, "slope of ln mu in ln a over E-K+1"
        cases += [
            at_most(where, "slope of ln mu at a = 0.001 less the product's", error, 1e-4),
            between(f"{where}, a = 0.01/E", what, _slope(0.01 / n_experts, n_experts, k) / power, 0.98, 1.0),
        ]
        if n_experts == k + 1 == 64:
            relative_slope = _slope(0.01 / (n_experts - k), n_experts, k) / power
            control = "a = 0.01/(E-K), as a << 1/(E-K) would allow"
            cases.append(between(f"{where}, a = 0.01", what, relative_slope, 0.98, 1.0, control=control))
    cases += _other_families(data)
    remark = (
        "7/8 for Student t and log-normal is what was seen on the grid, 0.883, rounded down; not derived."
    )
    return Findings(cases, data, (remark,))


def _other_families(data: dict[str, Any]) -> list[Case]:
    """Student t and log-normal, which are seen on a grid and not proved."""
    cases = []
    degrees, sigmas = (0.3, 0.5, 1.0, 2.0, 4.0, 16.0), (0.25, 0.5, 1.0, 2.0, 3.0, 4.0)
    for n_experts, k in _SIZES:
        groups: dict[str, list[Any]] = {
            "Student t": [bs.sources.StudentT(n_experts=n_experts, degrees=d) for d in degrees],
            "log-normal": [bs.sources.LogNormal(n_experts=n_experts, sigma=s) for s in sigmas],
        }
        normal = _relative(bs.sources.Normal(n_experts=n_experts), k)
        for family, group in groups.items():
            where, values = f"{family}, E={n_experts}, K={k}", [_relative(source, k) for source in group]
            quantity = "least mu x spread over the exponential's (seen)"
            cases.append(at_least(where, quantity, min(values), 7.0 / 8.0))
            if (n_experts, k) == (64, 8):
                control = "the normal's value as the bound"
                cases.append(at_least(where, quantity, min(values), normal, control=control))
            indices = [local_index(source.noise_distribution(), k / n_experts) for source in group]
            data[f"{family} {n_experts} {k}"] = np.array([indices, values])
    return cases


@statement(
    label="T3",
    paper="(ours)",
    title="With many experts only the domain of attraction is left",
    claim="Under the von Mises condition with extreme value index xi, E mu times the spread tends to K (2 "
    "sinh(xi ln 2)/xi) Gamma(K+1+xi)/(K^xi Gamma(K+1)) at fixed K: K ln 4 for normal, log-normal and "
    "exponential alike, more for Pareto and Student t. At fixed K/E mu tends to q(1 - K/E), whatever the "
    "tail.",
    hypotheses=(
        _IID,
        "(1/h)' tends to xi > -(K+1) at the upper end, h the hazard rate",
        "at fixed K/E: q continuous at 1 - K/E and mu finite for some E",
    ),
    statistic="relative distance from the limit at E = 2^16, for normal and log-normal, which approach it "
    "like 1/ln E or slower, at 2^400, and at 2^16 from the formula at the local index (1/h)'(Q(1-K/E))",
    control="the limit of another index",
    figure=figures.limits,
    caption="Left: E mu times spread over K, fixed K, and its limits (dotted); log-normal and normal "
    "share the exponential's and approach it like 1/ln E. Right: distance of mu from q(1 - K/E) at K/E = "
    "1/8.",
)  # fmt: skip
def limits(depth: Depth) -> Findings:
    """Let E grow at fixed K and at fixed K/E."""
    sizes = 2 ** np.arange(4, depth.pick(17, 21))
    far = int(sizes.size) - 1
    indices = {
        "Pareto 0.5": 2.0, "Pareto 2": 0.5, "t, 2": 0.5, "Cauchy": 1.0, "exponential": 0.0,
        "normal": 0.0, "log-normal 2": 0.0,
    }  # fmt: skip
    slow = ("normal", "log-normal 2")
    cases: list[Case] = []
    data: dict[str, Any] = {"sizes": sizes, "names": list(indices)}
    for k in (1, 2, 8):
        rows = []
        for name, xi in indices.items():
            noise, where, limit = (
                families(16, _INDICES)[name].noise_distribution(),
                f"{name}, K={k}",
                spread_limit(xi, k),
            )
            scaled = [_scale_free(noise, k, float(n)) if n >= 4 * k else np.nan for n in sizes]
            farthest, bound = (2.0**400, 0.06) if name in slow else (float(sizes[-1]), 0.02)
            distance = abs(_scale_free(noise, k, farthest) / limit - 1.0)
            size = "2^400" if name in slow else str(sizes[-1])
            cases.append(at_most(where, f"distance from the limit at E={size}", distance, bound))
            if name in slow:
                local = spread_limit(local_index(noise, k / float(sizes[-1])), k)
                distance = abs(scaled[-1] / local - 1.0)
                cases.append(
                    at_most(where, f"distance from the local index's at E={sizes[-1]}", distance, 0.02)
                )
            if xi == 2.0:
                wrong = abs(scaled[-1] / spread_limit(0.0, k) - 1.0)
                cases.append(at_most(where, "distance from the limit", wrong, 0.02, control="index 0"))
            rows.append(np.array(scaled))
        data[f"fixed {k}"] = np.array(rows)
        data[f"limit {k}"] = np.array([spread_limit(xi, k) for xi in indices.values()])
    rows = []
    for name in indices:
        noise = families(16, _INDICES)[name].noise_distribution()
        limit = float(noise.pdf(noise.isf(0.125)))
        found = np.array([hazard_modulus(noise, int(n) // 8, int(n)) for n in sizes])
        rows.append(np.abs(found / limit - 1.0))
        where = f"{name}, K/E=1/8"
        cases.append(at_most(where, f"|mu/q - 1| at E={sizes[far]}", float(rows[-1][far]), 1e-3))
    data["fraction"] = np.array(rows)
    return Findings(cases, data)


def _scale_free(noise: Any, k: int, n_experts: float) -> float:
    """E mu times the boundary spread, over K."""
    spread = float(noise.isf(0.5 * k / n_experts) - noise.isf(2.0 * k / n_experts))
    return n_experts / k * hazard_modulus(noise, k, n_experts) * spread


@statement(
    label="T4",
    paper="(ours)",
    title="Behind a gate heavy tails make the curvature infinite",
    claim="A sigmoid multiplies the hazard rate in T1 by 1/(s(1-s)), softmax the density of ties by the "
    "mean of (sum of exp(score))/exp(tied score). Both are finite for light-tailed logits. For logits "
    "with E exp(t X) infinite for all t > 0 (Pareto, Student t, log-normal) mu is infinite behind a "
    "sigmoid, and behind softmax for K >= 2; for K = 1 softmax keeps 2 mu < mu_softmax < E mu, which "
    "vanishes with the index of Pareto logits while the scores keep to [0, 1].",
    hypotheses=(
        "independent, identically distributed logits",
        "exact arithmetic: float32 saturates to atoms",
    ),
    statistic="the formula against the interval of counted near-ties; gaps below w per w at w = 1e-5 of the "
    "median gap over that at 1e-2, 2^19 tokens in float64, Poisson interval",
    control="normal logits, whose curvature is finite; the formula without the gate's factor",
    figure=figures.gates,
    caption="Share of tokens whose gap at the K-th place is below w, over w: level where the curvature is "
    "finite, rising without end as w falls where it is infinite. w in units of the median gap.",
)
def gates(depth: Depth) -> Findings:
    """Formulas against near-ties, and densities of small gaps."""
    n_experts = 16
    light = {
        "normal": (bs.sources.Normal(n_experts=16), stats.norm()),
        "half logistic": (bs.sources.Logistic(n_experts=16, scale=0.5), stats.logistic(scale=0.5)),
    }
    formulas: dict[str, Callable[..., float]] = {"sigmoid": sigmoid_modulus, "softmax": softmax_modulus}
    cases: list[Case] = []
    for name, (source, noise) in light.items():
        for gate, formula in formulas.items():
            for k in (1, 2):
                where = f"{gate} of {name} logits, E=16, K={k}"
                found = modulus(dataclasses.replace(source, transform=cast(Any, gate)), k, method="gap")
                exact = formula(noise, k, n_experts)
                cases.append(between(where, "mu by the formula", exact, found.low, found.high))
                if gate == "softmax":
                    plain = modulus(source, k).value
                    cases.append(
                        between(
                            where, "mu", plain, found.low, found.high, control="without the gate's factor"
                        )
                    )
    heavy = bs.sources.StudentT(n_experts=16, degrees=2.0)
    exact, plain = softmax_modulus(heavy.noise_distribution(), 1, 16), modulus(heavy, 1).value
    found = modulus(dataclasses.replace(heavy, transform="softmax"), 1, method="gap")
    cases += [
        between("softmax of t(2) logits, E=16, K=1", "mu by the formula", exact, found.low, found.high),
        between("softmax of t(2) logits, E=16, K=1", "mu_softmax/mu", exact / plain, 2.0, 16.0),
    ]
    for index, most in ((1.5, 2.0), (0.5, 0.05)):
        pareto = bs.sources.Pareto(n_experts=16, tail_index=index)
        factor = softmax_modulus(pareto.noise_distribution(), 1, 16) / modulus(pareto, 1).value
        gated = dataclasses.replace(pareto, transform="softmax")
        found, unit = modulus(gated, 1, method="gap"), boundary_spread(gated, 1) * 15.0 / LN4
        where = f"softmax of Pareto {index} logits, E=16, K=1"
        what = "mu x spread over the exponential's, by near-ties"
        value, low, high = (unit * mu for mu in (found.value, found.low, found.high))
        cases += [
            between(where, "mu_softmax/mu", factor, 2.0, 16.0),
            at_most(where, what, value, most, low=low, high=high),
        ]
    cases += _saturated()
    widths = np.geomspace(1e-6, 1.0, 25)
    rows, names = [], []
    rng = np.random.default_rng(_SEED)
    n_tokens = depth.pick(2**19, 2**22)
    for gate, k in (("sigmoid", 1), ("sigmoid", 2), ("softmax", 2)):
        for name, draw in _LOGITS.items():
            gaps = _gaps(draw(rng, (n_tokens, n_experts)), gate, k)
            unit = np.median(gaps)
            density = np.array([np.count_nonzero(gaps < w * unit) / (n_tokens * w) for w in widths])
            rows.append(density)
            names.append(f"{gate}, K={k}: {name}")
            where, what = f"{gate} of {name} logits, E=16, K={k}", "gaps below w per w, w = 1e-5 over 1e-2"
            small, large = (int(np.count_nonzero(gaps < w * unit)) for w in (1e-5, 1e-2))
            ratio, low, high = (1e3 * count / large for count in (small, *_poisson(small)))
            control = "finite curvature" if name == "normal" else None
            cases.append(at_least(where, what, ratio, 5.0, low=low, high=high, control=control))
    return Findings(cases, {"widths": widths, "density": np.array(rows), "names": names})


_LOGITS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Float64Array]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "Pareto 1.5": lambda rng, shape: rng.random(shape) ** (-1.0 / 1.5),
    "Cauchy": lambda rng, shape: rng.standard_cauchy(shape),
    "log-normal 2": lambda rng, shape: np.exp(2.0 * rng.standard_normal(shape)),
}


def _gaps(logits: Float64Array, gate: str, k: int) -> Float64Array:
    """Gaps between the K-th and the next score behind a gate, without cancellation."""
    n_experts = logits.shape[1]
    split = np.partition(logits, (n_experts - k - 1, n_experts - k), axis=1)
    last, following = split[:, n_experts - k], split[:, n_experts - k - 1]
    if gate == "sigmoid":
        return np.asarray(expit(-following) - expit(-last), dtype=np.float64)
    top = logits.max(axis=1)
    total = np.exp(logits - top[:, None]).sum(axis=1)
    return np.asarray(np.exp(last - top) * -np.expm1(following - last) / total, dtype=np.float64)


def _poisson(count: int) -> tuple[float, float]:
    """Exact 95 % interval of a Poisson mean."""
    low = stats.chi2.ppf(0.025, 2 * count) / 2.0 if count else 0.0
    return float(low), float(stats.chi2.ppf(0.975, 2 * count + 2) / 2.0)


def _saturated() -> list[Case]:
    """In float32 a sigmoid of Pareto logits has atoms at the K-th place, which the estimator refuses."""
    refused = 0
    try:
        modulus(bs.sources.Pareto(n_experts=16, tail_index=0.8, transform="sigmoid"), 2, method="gap")
    except InputError:
        refused = 1
    return [at_least("sigmoid of Pareto 0.8 logits in float32", "estimates refused for atoms", refused, 1)]
