"""Curvature of independent, identically distributed scores: closed forms and integrals (S2, S4).

Both integrals are taken along t = logit F(z - r), r the half-width by which the experts' shifts may differ.
There the integrand of S4 becomes

    (f_(z)^2 / f(x)) S(x + 2r)^(K-1) u^(E-K) (1 - u),   x = z - r,  u = F(x) = 1/(1 + exp(-t)),

bounded, with exponential tails on both sides whatever the tails of the scores; r = 0 gives S2's mean of q
under the Beta(E - K, K) distribution.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.special import betaln, expit, gammaln, log_expit

from balancesim.errors import InputError
from balancesim.types import Float64Array

# Densities that rise and then fall: S4 then finds the least density within r of z at one of the two ends.
_UNIMODAL = frozenset(
    {"uniform", "norm", "logistic", "gumbel_r", "expon", "t", "cauchy", "lognorm", "pareto"}
)

# Where the integrand has fallen by this many nats below its peak it is left out (exp(-60) = 9e-27).
_NEGLIGIBLE = 60.0


class Integral(NamedTuple):
    """An integral with the bound on its error that the quadrature reports."""

    value: float
    error: float


def family(noise: Any) -> str:
    """SciPy's name of a frozen distribution, or the empty string for any other object."""
    return str(getattr(getattr(noise, "dist", None), "name", ""))


def parameters(noise: Any) -> dict[str, float]:
    """Shapes, ``loc`` and ``scale`` of a frozen SciPy distribution, by name."""
    shapes = noise.dist.shapes.split(", ") if noise.dist.shapes else []
    given = dict(zip([*shapes, "loc", "scale"], noise.args, strict=False)) | noise.kwds
    return {"loc": 0.0, "scale": 1.0} | {name: float(value) for name, value in given.items()}


def closed_form(noise: Any, k: int, n_experts: int) -> float | None:
    """Modulus at exchangeable scores where a closed form is known, else None.

    With c B(a, b) written out, S2's forms become K/(E-1) for the exponential and K(E-K)/((E-1)(E+1)) for the
    logistic; the Gumbel's, (E-K)/(E-1) times the sum of 1/j for j from E-K+1 to E, holds for every K.
    """
    name = family(noise)
    if name not in ("uniform", "expon", "logistic", "gumbel_r", "pareto"):
        return None
    given = parameters(noise)
    scale = given["scale"]
    if name == "uniform":
        return n_experts / (n_experts - 1) / scale
    if name == "expon":
        return k / (n_experts - 1) / scale
    if name == "logistic":
        return k * (n_experts - k) / ((n_experts - 1) * (n_experts + 1)) / scale
    if name == "gumbel_r":
        harmonic = math.fsum(1.0 / j for j in range(n_experts - k + 1, n_experts + 1))
        return (n_experts - k) / (n_experts - 1) * harmonic / scale
    index = given["b"]
    log_ratio = betaln(n_experts - k, k + 1 + 1 / index) - betaln(n_experts - k, k)
    return index * n_experts / (n_experts - 1) * math.exp(log_ratio) / scale


def integrate_modulus(noise: Any, k: int, n_experts: int, half_width: float) -> Integral:
    """S2's modulus (``half_width`` 0) or S4's lower bound for shifts within ``half_width`` of a common value.

    Parameters
    ----------
    noise : frozen SciPy distribution
        Has ``logpdf``, ``logsf``, ``ppf`` and ``isf``.
    k, n_experts : int
        1 <= k < n_experts.
    half_width : float
        In the units of ``noise``.

    Raises
    ------
    InputError
        If the density grows so fast at an end of its support that the integral diverges.
    """
    from scipy.integrate import cubature

    def log_integrand(t: Float64Array) -> tuple[Float64Array, Float64Array]:
        return _log_integrand(t, noise, k, n_experts, half_width)

    # Coarse, then fine: only the part within _NEGLIGIBLE of the peak is integrated.
    grid = np.concatenate([np.arange(-600, -40, 8.0), np.arange(-40, 40, 0.25), np.arange(40, 608, 8.0)])
    for refinement in (200.0, _NEGLIGIBLE):
        log_values, log_density = log_integrand(grid)
        peak = float(log_values.max())
        if peak == -math.inf:
            return Integral(0.0, 0.0)
        inside = np.flatnonzero(np.isfinite(log_density))
        if max(log_values[inside[0]], log_values[inside[-1]]) > peak - 30.0:
            raise InputError(
                "`source` has a density that is unbounded, or cannot be computed, at an end of its support: "
                'the curvature is infinite or unknown there; use method="gap"'
            )
        kept = np.flatnonzero(log_values > peak - refinement)
        low, high = max(kept[0] - 1, inside[0]), min(kept[-1] + 1, inside[-1])
        grid = np.linspace(grid[low], grid[high], 257)
    kinks = [] if half_width == 0.0 else _kinks(noise, half_width, grid)
    points = np.unique([*grid[::32], *kinks])

    def integrand(t: Float64Array) -> Float64Array:
        return np.asarray(np.exp(log_integrand(t[:, 0])[0] - peak), dtype=np.float64)

    found = cubature(
        integrand,
        points[:1],
        points[-1:],
        rtol=1e-12,
        max_subdivisions=400,
        points=[points[i : i + 1] for i in range(1, points.size - 1)],
    )
    log_factor = peak + math.log(n_experts) + _log_binomial(n_experts - 2, k - 1)
    # The logarithms of the factor are as large as E, so rounding alone costs about E units in the last place.
    rounding = 4.0 * n_experts * np.finfo(np.float64).eps
    factor = math.exp(log_factor)
    value = factor * float(found.estimate)
    return Integral(value, factor * float(found.error) + float(rounding) * value)


def require_unimodal(noise: Any) -> str:
    """Check the hypothesis under which S4's least density is at an end of the interval.

    Returns
    -------
    str
        How it is known: a property of the family, or a check on 801 quantiles.
    """
    if family(noise) in _UNIMODAL:
        return "unimodal family"
    u = np.linspace(-30.0, 30.0, 801)
    with np.errstate(all="ignore"):
        density = np.asarray(noise.logpdf(quantile(noise, u)), dtype=np.float64)
    density = density[np.isfinite(density)]
    slack = 1e-9 * (1.0 + np.abs(density[1:]))
    change = np.diff(density)
    falls = np.flatnonzero(change < -slack)
    if density.size < 2 or (falls.size and bool((change[falls[0] :] > slack[falls[0] :]).any())):
        raise InputError(
            "`radius` needs a density that rises and then falls, so that its least value on an interval is "
            f"at an end (S4); that of {family(noise) or noise!r} falls and rises again. Leave out `radius`, "
            "or take another source"
        )
    return "unimodal on a grid of 801 quantiles"


def quantile(noise: Any, t: Float64Array) -> Float64Array:
    """Quantile at the logit ``t``, from the nearer end so that no digit is lost."""
    lower = noise.ppf(expit(np.minimum(t, 0.0)))
    upper = noise.isf(expit(-np.maximum(t, 0.0)))
    return np.asarray(np.where(t < 0.0, lower, upper), dtype=np.float64)


def _kinks(noise: Any, half_width: float, grid: Float64Array) -> list[float]:
    """Where the integrand with a half-width is not smooth: two places that panels must not straddle.

    The far end of the interval leaves the support, or the least density passes from the near to the far end.
    """
    from scipy.optimize import brentq

    def excess(t: Any) -> Any:
        near = quantile(noise, np.asarray(t, dtype=np.float64))
        return noise.logpdf(near + 2.0 * half_width) - noise.logpdf(near)

    found = []
    with np.errstate(all="ignore"):
        edge = float(noise.support()[1]) - 2.0 * half_width
        found.append(float(noise.logcdf(edge) - noise.logsf(edge)))
        differences = np.asarray(excess(grid), dtype=np.float64)
        usable = np.isfinite(differences[1:])
        falls = np.flatnonzero((differences[:-1] > 0.0) & (differences[1:] < 0.0) & usable)
        found.extend(float(brentq(excess, grid[i], grid[i + 1], xtol=1e-14)) for i in falls[:1])
    return [t for t in found if grid[0] < t < grid[-1]]


def _log_integrand(
    t: Float64Array, noise: Any, k: int, n_experts: int, half_width: float
) -> tuple[Float64Array, Float64Array]:
    """Logarithm of the integrand along ``t``, and of the density at the near end of the interval."""
    with np.errstate(all="ignore"):
        near = quantile(noise, t)
        log_density = np.asarray(noise.logpdf(near), dtype=np.float64)
        if half_width == 0.0:
            log_values = log_density + (k - 1) * log_expit(-t)
        else:
            far = near + 2.0 * half_width
            log_values = 2.0 * np.minimum(log_density, noise.logpdf(far)) - log_density
            if k > 1:
                log_values = log_values + (k - 1) * noise.logsf(far)
        log_values = log_values + (n_experts - k) * log_expit(t) + log_expit(-t)
    usable = np.isfinite(log_density) & ~np.isnan(log_values)
    return np.where(usable, log_values, -np.inf), log_density


def _log_binomial(n: int, m: int) -> float:
    return float(gammaln(n + 1) - gammaln(m + 1) - gammaln(n - m + 1))
