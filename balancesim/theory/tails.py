"""Modulus and tails (ours): the hazard form, the limit in units of the spread, bounds over a domain."""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.special import betaln, expit, gammaln, log_expit

from balancesim.errors import InputError
from balancesim.numbers import check_int
from balancesim.sources import Source
from balancesim.theory.arguments import real_number
from balancesim.theory.curvature import independent
from balancesim.theory.quadrature import family, require_unimodal
from balancesim.types import Float64Array

_STEP = 1.0 / 16.0
_REACH = 700.0
# Above, S^2 leaves nothing beyond exp(-200); gates may grow as fast as it falls, and are followed further.
_POINTS = np.arange(-_REACH, 100.0 + _STEP, _STEP)
_FAR_POINTS = np.arange(-_REACH, _REACH + _STEP, _STEP)
_NEGLIGIBLE = 30.0
_LARGEST_LOG = math.log(np.finfo(np.float64).max)
# Families whose hazard rate never rises: the K experts that must pass a raised one then do so at equal cost.
_FALLING_HAZARD = frozenset({"pareto", "expon"})


class DomainModulus(NamedTuple):
    """Bounds on the least modulus mu_C over {sum p = 0, |p_k - p*_k| <= radius}, 1/score units."""

    low: float
    high: float


class TreeWeights(NamedTuple):
    """T5's lower bounds on the weights of pairs (K, j), j > K, and three on pairs (K+1, m), m < K."""

    first: float
    passed: float
    fallen: float
    hazard: float


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
        If an argument is out of range, or the limit is beyond float64.

    Notes
    -----
    Source: docs/heavy_tails.md, T3 (ours).
    """
    k = check_int("k", k, 1)
    try:
        xi = float(extreme_value_index)
    except (TypeError, ValueError):
        raise InputError(f"`extreme_value_index` must be a number, got {extreme_value_index!r}") from None
    if not -(k + 1.0) < xi < math.inf:
        raise InputError(
            f"`extreme_value_index` must be finite and above -(k + 1), got {extreme_value_index} and k = {k}"
        )
    y = abs(xi) * math.log(2.0)
    # sinh(y)/y = e^y (1 - e^(-2y))/(2y): in logarithms, as factors may overflow where the product does not.
    log_stretch = y + math.log(-math.expm1(-2.0 * y) / (2.0 * y)) if y > 0.0 else 0.0
    log_limit = math.log(math.log(4.0)) + log_stretch - xi * math.log(k)
    log_limit += float(gammaln(k + 1.0 + xi) - gammaln(k + 1.0))
    if log_limit > _LARGEST_LOG:
        raise InputError(
            f"`extreme_value_index` must be lower for the limit, exp({log_limit:.4g}), to be within float64, "
            f"got {xi:g} with k = {k}"
        )
    return math.exp(log_limit)


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
        price that raises or lowers one expert by R against all others; only ``high`` is mu at R = 0.

    Raises
    ------
    InputError
        If an argument is out of range, the density is not unimodal, or the source's scores are not
        independent and identically distributed up to location with a density, untransformed.

    Notes
    -----
    Source: docs/heavy_tails.md, T5 (ours). Unlike S4's bound (`modulus` with a radius) the lower bound falls
    with the power of R that mu_C falls with; near R = 0 S4's is the better one. Integrals are sums on a grid
    of the logit of the distribution function: ``high`` to about 1e-10, ``low`` to 1e-3 where a
    density rises.
    """
    n_experts, k, known = independent(
        source, k, "a bound over a domain", '`modulus` with method="gap" estimates the curvature at one price'
    )
    noise, scale = known.noise, known.scale
    reach = real_number("radius", radius, positive=False) / scale
    require_unimodal(noise)
    shift = reach * n_experts / (n_experts - 1)
    raised, lowered = (_pair_density(noise, n_experts, k, sign * shift) for sign in (1.0, -1.0))
    weights = tree_weights(noise, n_experts, k, reach)
    low = double_star(n_experts, k, weights.first, max(weights.passed, weights.fallen, weights.hazard))
    return DomainModulus(low / scale, n_experts * min(raised, lowered) / scale)


def hazard_modulus(noise: Any, k: int, n_experts: float) -> float:
    """K/(E-1) times the mean hazard rate at the (K+1)-th largest of E scores: the modulus (T1).

    Parameters
    ----------
    noise : frozen scipy.stats distribution
        Of the scores.
    k : int
        Experts per token.
    n_experts : float
        E > k; as large as floating point allows.

    Returns
    -------
    float
        In 1/score units of ``noise``.

    Notes
    -----
    Source: docs/heavy_tails.md, T1 (ours); on the grid of `domain_modulus`.
    """
    above, below = k + 1.0, float(n_experts - k)
    # Of many experts the order statistic is sharper than the common grid.
    deviation = math.sqrt(1.0 / above + 1.0 / below)
    centre = math.log(below / above)
    if deviation < 0.25:
        points = centre + deviation * np.arange(-40.0, 40.0, 1.0 / 16.0)
        step = deviation / 16.0
    else:
        points, step = centre + np.arange(-400.0, 120.0, _STEP), _STEP
    t, _, log_density, log_survival = _grid(noise, points)
    log_values = log_density - log_survival + _log_beta_density(t, below, above)
    return k / (n_experts - 1) * _sum(log_values) * step / _STEP


def _grid(
    noise: Any, t: Float64Array = _POINTS
) -> tuple[Float64Array, Float64Array, Float64Array, Float64Array]:
    """Logits of F, the quantiles there, and the logarithms of density and survival function."""
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
    return np.asarray(below * log_expit(t) + above * log_expit(-t) - betaln(below, above), dtype=np.float64)


def _sum(log_values: Float64Array) -> float:
    """Trapezoidal rule on the grid, whose ends do not matter."""
    return float(np.exp(log_values[np.isfinite(log_values)]).sum() * _STEP)


def _log_sf(noise: Any, x: Float64Array) -> Float64Array:
    with np.errstate(all="ignore"):
        return np.asarray(noise.logsf(x), dtype=np.float64)


def _log_binomial(n: int, m: int) -> float:
    return float(gammaln(n + 1) - gammaln(m + 1) - gammaln(n - m + 1))


def _pair_density(noise: Any, n_experts: int, k: int, shift: float) -> float:
    """Density h between one expert, raised by ``shift`` or lowered by its negative, and one of the others.

    The integral over the others' level z of f(z - shift) f(z) S(z)^(K-1) F(z)^(E-1-K), along the grid of the
    lower of the two, where the integrand is smooth. Of scores unbounded below that are far apart each one's
    neighbourhood is summed on its own grid: what falls by the shift is a peak that the other would miss.
    """
    t, x, _, _ = _grid(noise)
    log_mass = log_expit(t) + log_expit(-t) + _log_binomial(n_experts - 2, k - 1)
    with np.errstate(all="ignore"):
        apart = math.copysign(np.inf, -shift) * np.ones_like(x)
        middle, width = float(noise.median()), float(noise.isf(0.25) - noise.ppf(0.25))
        if noise.support()[0] == -np.inf and abs(shift) > 20.0 * width:
            apart = (x - middle) * (-20.0 / abs(shift)) * math.copysign(1.0, shift) + 10.0
            own = (x + shift - middle) * (-20.0 / abs(shift)) * math.copysign(1.0, shift) + 10.0
        else:
            own = apart
        at_others = np.asarray(noise.logpdf(x - shift), dtype=np.float64) + (n_experts - 1 - k) * log_expit(t)
        at_expert = np.asarray(noise.logpdf(x + shift), dtype=np.float64)
        at_expert = at_expert + (n_experts - 1 - k) * np.asarray(noise.logcdf(x + shift), dtype=np.float64)
        if k > 1:
            at_others = at_others + (k - 1) * log_expit(-t)
            at_expert = at_expert + (k - 1) * _log_sf(noise, x + shift)
        return _sum(at_others + log_mass + log_expit(apart)) + _sum(at_expert + log_mass + log_expit(-own))


def tree_weights(noise: Any, n_experts: int, k: int, radius: float) -> TreeWeights:
    """Lower bounds of T5 on the weights of pairs, over all prices with differences of at most 2 ``radius``.

    Parameters
    ----------
    noise : frozen scipy.stats distribution
        Of the scores; unimodal.
    n_experts, k : int
        1 <= k < n_experts.
    radius : float
        In units of ``noise``.

    Returns
    -------
    TreeWeights
        ``passed``, ``fallen`` and ``hazard`` are zero for K = 1, where no pair is above the K-th, and
        ``hazard`` for families that are not known to have a falling hazard rate.

    Notes
    -----
    Source: docs/heavy_tails.md, T5 (ii) (ours).
    """
    t, x, log_density, log_survival = _grid(noise)
    width = 2.0 * radius
    with np.errstate(all="ignore"):
        log_far = np.asarray(noise.logpdf(x + width), dtype=np.float64)
        log_fallen = np.asarray(noise.logpdf(x - width), dtype=np.float64)
    least, least_below = np.minimum(log_density, log_far), np.minimum(log_density, log_fallen)
    common = (n_experts - 1 - k) * log_expit(t) + log_expit(t) + log_expit(-t)
    first = _sum(least + (k - 1) * log_survival + common)
    if k == 1:
        return TreeWeights(first, 0.0, 0.0, 0.0)
    passed = _sum(least + (k - 1) * _log_sf(noise, x + width) + common)
    fallen = _sum(least_below + (k - 1) * log_survival + common)
    if family(noise) not in _FALLING_HAZARD:
        return TreeWeights(first, passed, fallen, 0.0)
    log_hazard = log_far - _log_sf(noise, x + width)
    far = x + radius * n_experts / (n_experts - 1)
    return TreeWeights(first, passed, fallen, _sum(log_hazard + k * _log_sf(noise, far) + common))


def double_star(n_experts: int, k: int, first: float, second: float) -> float:
    """lambda_2 of T5's tree: node K joined to all below it by w1, node K + 1 to those above K by w2."""
    second = first if k == 1 else second
    if min(first, second) == 0.0:
        return 0.0
    # The pseudo-inverse of a tree's Laplacian sums cuts over weights, so that small weights lose no digits.
    scale = min(first, second)
    inverse = np.zeros((n_experts, n_experts))
    for leaf in (*range(k - 1), *range(k + 1, n_experts)):
        cut = np.full(n_experts, -1.0 / n_experts)
        cut[leaf] += 1.0
        inverse += np.outer(cut, cut) * (scale / (second if leaf < k else first))
    middle = np.full(n_experts, -k / n_experts)
    middle[: k - 1] += 1.0
    middle[k] += 1.0
    inverse += np.outer(middle, middle) * (scale / first)
    return scale / float(np.linalg.eigvalsh(inverse)[-1])


def sigmoid_modulus(noise: Any, k: int, n_experts: int) -> float:
    """Modulus at p* of scores that are sigmoids of independent, identically distributed logits (T4).

    Parameters
    ----------
    noise : frozen scipy.stats distribution
        Of the logits.
    k, n_experts : int
        1 <= k < n_experts.

    Returns
    -------
    float
        K/(E-1) times the mean of h(X)/(s(X)(1 - s(X))) at the (K+1)-th largest logit; infinite where the
        grid's end, beyond probabilities of 1e-300, adds as much as its middle.

    Notes
    -----
    Source: docs/heavy_tails.md, T4 (ours).
    """
    t, x, log_density, log_survival = _grid(noise, _FAR_POINTS)
    log_values = log_density - log_survival + 2.0 * np.logaddexp(0.5 * x, -0.5 * x)
    log_values = log_values + _log_beta_density(t, n_experts - k, k + 1)
    if not log_values[-1] < log_values.max() - _NEGLIGIBLE:
        return math.inf
    return k / (n_experts - 1) * _sum(log_values)


def softmax_modulus(noise: Any, k: int, n_experts: int) -> float:
    """Modulus at p* of scores that are a softmax of independent, identically distributed logits (T4).

    Parameters
    ----------
    noise : frozen scipy.stats distribution
        Of the logits.
    k, n_experts : int
        1 <= k < n_experts.

    Returns
    -------
    float
        E binom(E-2, K-1) times the integral of f^2 S^(K-1) F^(E-1-K) [2 + (K-1) M+ + (E-1-K) M-], M+ and M-
        the means of exp(X - z) above and below z; infinite for K >= 2 where M+ is.

    Notes
    -----
    Source: docs/heavy_tails.md, T4 (ours). M+ and M- are sums on the grid: good to about 1e-3.
    """
    t, x, log_density, log_survival = _grid(noise, _FAR_POINTS)
    log_cdf = np.asarray(log_expit(t), dtype=np.float64)
    log_mass = x + log_cdf + log_survival + math.log(_STEP)
    log_half = log_mass - math.log(2.0)
    with np.errstate(over="ignore"):
        below = np.exp(_less_half(np.logaddexp.accumulate(log_mass), log_half) - log_cdf - x)
        factor = 2.0 + (n_experts - 1 - k) * below
        if k > 1:
            if not log_mass[-1] < log_mass.max() - _NEGLIGIBLE:
                return math.inf
            log_above = np.logaddexp.accumulate(log_mass[::-1])[::-1]
            factor += (k - 1) * np.exp(_less_half(log_above, log_half) - log_survival - x)
    log_values = log_density + k * log_survival + (n_experts - k) * log_cdf
    log_values = log_values + np.log(factor) + _log_binomial(n_experts - 2, k - 1)
    return n_experts * _sum(log_values)


def _less_half(log_sum: Float64Array, log_half: Float64Array) -> Float64Array:
    """Logarithm of a sum less half of its last term, as the trapezoidal rule takes it."""
    return np.asarray(log_sum + np.log1p(-np.exp(np.minimum(log_half - log_sum, -1e-3))), dtype=np.float64)
