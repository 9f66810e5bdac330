"""Modulus and tails: the hazard form, the limit in units of the spread, two-sided bounds over a domain (ours)."""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, gammaln, log_expit

from balancesim.errors import InputError
from balancesim.sources import Source
from balancesim.theory.arguments import real_number, sizes
from balancesim.theory.quadrature import family, require_unimodal
from balancesim.types import Float64Array

_STEP = 1.0 / 64.0
_REACH = 800.0
# Families whose hazard rate never rises: the K experts that must pass a raised one then do so at equal cost.
_FALLING_HAZARD = frozenset({"pareto", "expon"})


class DomainModulus(NamedTuple):
    """Bounds on the least modulus mu_C over {sum p = 0, |p_k - p*_k| <= radius}, 1/score units."""

    low: float
    high: float


def spread_limit(extreme_value_index: float, k: int) -> float:
    """Limit of E mu times the boundary spread, over K, for many experts and fixed K.

    Parameters
    ----------
    extreme_value_index : float
        xi, the limit of the derivative of the inverse hazard rate at the upper end of the scores: 1/a for a
        tail of index a, 0 for the normal, exponential, log-normal or Gumbel, -1 for the uniform. Above
        -(K + 1).
    k : int
        Experts per token, K >= 1.

    Returns
    -------
    float
        2 sinh(xi ln 2)/xi * Gamma(K + 1 + xi) / (K^xi Gamma(K + 1)); ln 4 at xi = 0.

    Raises
    ------
    InputError
        If an argument is out of range.

    Notes
    -----
    Source: docs/heavy_tails.md, T3 (ours).
    """
    xi = float(extreme_value_index)
    if k < 1 or not -(k + 1.0) < xi < math.inf:
        raise InputError(
            f"`extreme_value_index` must be finite and above -(k + 1) with k >= 1, got {extreme_value_index} "
            f"and k = {k}"
        )
    stretch = math.log(4.0) if xi == 0.0 else 2.0 * math.sinh(xi * math.log(2.0)) / xi
    return stretch * math.exp(float(gammaln(k + 1.0 + xi) - gammaln(k + 1.0)) - xi * math.log(k))


def domain_modulus(source: Source, k: int, radius: float) -> DomainModulus:
    """Bound the modulus over a ball of prices around the population minimiser from both sides.

    Parameters
    ----------
    source : source of scores
        Independent scores with one density, transform "raw".
    k : int
        Experts per token, 1 <= k < E.
    radius : float
        R >= 0, score units.

    Returns
    -------
    DomainModulus
        ``low`` from a tree of expert pairs that every price in the set leaves connected, ``high`` from the
        price that raises or lowers one expert by R against all others; equal to mu at R = 0 for ``high`` only.

    Raises
    ------
    InputError
        If an argument is out of range, the density is not unimodal, or the source has no distribution.

    Notes
    -----
    Source: docs/heavy_tails.md, T4 (ours). Unlike S4's bound (`modulus` with a radius) the lower bound falls
    with the power of R that mu_C falls with; near R = 0 S4's is the better one. Integrals on a grid of the
    logit of the distribution function, good to about 1e-10.
    """
    n_experts, k = sizes(source.n_experts, k)
    reach = real_number("radius", radius, positive=False) / float(getattr(source, "scale", 1.0))
    if str(getattr(source, "transform", "raw")) != "raw":
        raise InputError('`source` must have the transform "raw"; behind a gate experts have no density here')
    noise = source.noise_distribution()
    require_unimodal(noise)
    scale = float(getattr(source, "scale", 1.0))
    shift = reach * n_experts / (n_experts - 1)
    lifted = _pair_density(noise, n_experts, k, shift, lifted=True)
    lowered = _pair_density(noise, n_experts, k, shift, lifted=False)
    first, second = _tree_weights(noise, n_experts, k, reach)
    low = _double_star(n_experts, k, first, second)
    return DomainModulus(low / scale, n_experts * min(lifted, lowered) / scale)


def hazard_modulus(noise: Any, k: int, n_experts: int) -> float:
    """K/(E-1) times the mean hazard rate at the (K+1)-th largest of E scores: the modulus (T1).

    Parameters
    ----------
    noise : frozen scipy.stats distribution
        Of the scores.
    k, n_experts : int
        1 <= k < n_experts.

    Returns
    -------
    float
        In 1/score units of ``noise``.

    Notes
    -----
    Source: docs/heavy_tails.md, T1 (ours); on the grid of `domain_modulus`.
    """
    t, x, log_density, log_survival = _grid(noise)
    log_weight = _log_beta_density(t, n_experts - k, k + 1)
    return k / (n_experts - 1) * _sum(log_density - log_survival + log_weight)


def _grid(noise: Any) -> tuple[Float64Array, Float64Array, Float64Array, Float64Array]:
    """Logits of F, the quantiles there, and the logarithms of density and survival function."""
    t = np.arange(-_REACH, _REACH + _STEP, _STEP)
    with np.errstate(all="ignore"):
        x = np.where(
            t < 0.0, noise.ppf(expit(np.minimum(t, 0.0))), noise.isf(expit(-np.maximum(t, 0.0)))
        ).astype(np.float64)
        log_density = np.asarray(noise.logpdf(x), dtype=np.float64)
    keep = np.isfinite(x) & np.isfinite(log_density)
    t, x, log_density = t[keep], x[keep], log_density[keep]
    return t, x, log_density, np.asarray(log_expit(-t), dtype=np.float64)


def _log_beta_density(t: Float64Array, below: float, above: float) -> Float64Array:
    """Logarithm of the density, in t = logit u, of u ~ Beta(below, above)."""
    constant = gammaln(below + above) - gammaln(below) - gammaln(above)
    return np.asarray(constant + below * log_expit(t) + above * log_expit(-t), dtype=np.float64)


def _sum(log_values: Float64Array) -> float:
    """Trapezoidal rule on the grid, whose ends do not matter."""
    return float(np.exp(log_values[np.isfinite(log_values)]).sum() * _STEP)


def _log_sf(noise: Any, x: Float64Array) -> Float64Array:
    with np.errstate(all="ignore"):
        return np.asarray(noise.logsf(x), dtype=np.float64)


def _log_binomial(n: int, m: int) -> float:
    return float(gammaln(n + 1) - gammaln(m + 1) - gammaln(n - m + 1))


def _pair_density(noise: Any, n_experts: int, k: int, shift: float, *, lifted: bool) -> float:
    """h between one expert shifted by ``shift`` and one of the others, which are level."""
    t, x, _, log_survival = _grid(noise)
    far = x + shift
    with np.errstate(all="ignore"):
        log_far_density = np.asarray(noise.logpdf(far), dtype=np.float64)
        log_far_cdf = np.asarray(noise.logcdf(far), dtype=np.float64)
    # Lifted: the expert has x, the others pass x + shift. Lowered: it must reach x + shift, the others have x.
    log_above = _log_sf(noise, far) if lifted else log_survival
    log_below = log_far_cdf if lifted else np.asarray(log_expit(t), dtype=np.float64)
    log_values = log_far_density + (n_experts - 1 - k) * log_below
    log_values += (k - 1) * log_above if k > 1 else 0.0
    return _sum(log_values + log_expit(t) + log_expit(-t) + _log_binomial(n_experts - 2, k - 1))


def _tree_weights(noise: Any, n_experts: int, k: int, radius: float) -> tuple[float, float]:
    """The weights w1, w2 of T4: of pairs below the K-th shift, and of pairs above it."""
    t, x, log_density, log_survival = _grid(noise)
    width = 2.0 * radius
    with np.errstate(all="ignore"):
        log_far = np.asarray(noise.logpdf(x + width), dtype=np.float64)
    least = np.minimum(log_density, log_far)
    common = (n_experts - 1 - k) * log_expit(t) + log_expit(t) + log_expit(-t)
    first = _sum(least + (k - 1) * log_survival + common if k > 1 else least + common)
    if k == 1:
        return first, first
    second = _sum(least + (k - 1) * _log_sf(noise, x + width) + common)
    if family(noise) in _FALLING_HAZARD:
        far = x + radius * n_experts / (n_experts - 1)
        log_hazard = log_far - _log_sf(noise, x + width)
        second = max(second, _sum(log_hazard + k * _log_sf(noise, far) + common))
    return first, min(first, second)


def _double_star(n_experts: int, k: int, first: float, second: float) -> float:
    """lambda_2 of T4's tree: node K joined to all below it by w1, node K + 1 to those above K by w2."""
    scale = max(first, second)
    if scale == 0.0:
        return 0.0
    laplacian = np.zeros((n_experts, n_experts))
    pairs = [(k - 1, j, first) for j in range(k, n_experts)] + [(k, j, second) for j in range(k - 1)]
    for i, j, weight in pairs:
        laplacian[[i, j], [i, j]] += weight / scale
        laplacian[[i, j], [j, i]] -= weight / scale
    values = np.linalg.eigvalsh(laplacian)
    return scale * float(max(values[1], 0.0))
