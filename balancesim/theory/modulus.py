"""The modulus of strong convexity: at a bias (S2, S3), and uniformly over a domain (S4)."""

import numpy as np
from numpy.typing import ArrayLike

from balancesim.errors import InputError, unknown_name
from balancesim.sources import Source
from balancesim.theory.arguments import check_source, pilot, real_number, sizes
from balancesim.theory.curvature import (
    METHODS,
    Shifted,
    counted_modulus_of,
    exchangeable_modulus,
    hessian_at,
    independent,
    noise_of,
    scale_of,
    transform_of,
)
from balancesim.theory.hessian import least_eigenvalue
from balancesim.theory.quadrature import integrate_modulus, require_unimodal
from balancesim.types import Estimate

_SPREAD_TOKENS = 16_384
_SPREAD_SCORES = 2**22


def modulus(
    source: Source | ArrayLike,
    k: int = 2,
    bias: ArrayLike | None = None,
    radius: float | None = None,
    method: str = "quadrature",
) -> Estimate:
    """Least curvature of the population objective F along directions that sum to zero.

    Parameters
    ----------
    source : source of scores, or (T, E) array of scores
        An array only with ``method="gap"`` or ``"difference"``.
    k : int
        Experts per token, 1 <= k < E.
    bias : (E,) array, optional
        Where the curvature is taken, in score units; a common constant changes nothing. Default: the source's
        population minimiser p*; for an array of scores, zero.
    radius : float, optional
        In score units. If given, the result is S4's lower bound on the modulus over the whole set {sum p = 0,
        |p_k| <= radius} that the projection of ALF-LB keeps to, instead of the modulus at one point; with
        "quadrature" only, and without a bias.
    method : {"quadrature", "gap", "difference"}
        "quadrature": S1 and S2, scores independent and identically distributed up to location, transform
        "raw"; at p* closed forms where there are any, else integrals good to about 1e-11. "gap" and
        "difference": S3, near-ties counted in the array, or in 65,536 tokens drawn from the source at its
        steps 0, 1, 2, ...; no hypothesis on the scores but a density (`estimate_curvature`).

    Returns
    -------
    Estimate
        In 1/score units. Quadrature: the interval is the numerical error. Counted: a 95 % interval for the
        sampling of tokens, which are taken as independent; it is conservative on both sides (the value is
        biased low, the more so the fewer near-ties there are per expert) and leaves out the bias of order w
        squared. ``method`` names the form used, and for counted near-ties their number and the width w.

    Raises
    ------
    InputError
        If an argument is out of range, a hypothesis of the method is not met (the message says which), or
        fewer than 10 near-ties are counted (it says about how many tokens are needed).

    Notes
    -----
    With a radius: at p in the set, expert k is shifted from the exchangeable point by offset_k +
    p_k. Only differences of shifts matter, so they are measured from the middle of the offsets' range and are
    at most r = radius + (max offset - min offset)/2. Every h_kj of S1 is then at least binom(E-2, K-1) *
    integral f_(z)^2 S(z+r)^(K-1) F(z-r)^(E-1-K) dz, f_(z) the least density within r of z, and mu >= E min
    h_kj. The least density is min(f(z-r), f(z+r)) when the density rises and then falls, as that of every
    built-in family does; other distributions are checked on a grid of quantiles and refused if they fail.
    S4's regret bound also needs p* in the set (|p*_k| <= radius), which is the caller's to see to.

    Source: theory.md S1-S4; the closed forms and the bound with offsets are ours. The cost is that of at most
    some thousand evaluations of the density, of `curvature` at a bias other than p*, or of drawing and partly
    sorting 65,536 tokens; no threads are used.
    """
    if method not in METHODS:
        raise InputError(unknown_name("method", str(method), METHODS))
    if radius is not None and (method != "quadrature" or bias is not None):
        raise InputError(
            "`radius` asks for a bound over a region: it goes with the quadrature, which counted near-ties "
            "cannot replace, and without a `bias`, as the region is around zero"
        )
    if method != "quadrature":
        return counted_modulus_of(source, k, bias, method)
    n_experts, k, known = independent(source, k)
    if radius is not None:
        return _bound_on_domain(known, k, n_experts, real_number("radius", radius, positive=False))
    hessian = hessian_at(known, bias, k)
    if hessian is None:
        return exchangeable_modulus(known, k, n_experts)
    value, _ = least_eigenvalue(hessian.matrix)
    low, high = max(0.0, value - hessian.error), value + hessian.error
    return Estimate(value, low, high, "quadrature (S1)")


def boundary_spread(source: Source, k: int) -> float:
    """Spread of the scores around the K-th place, by which a modulus becomes free of units.

    Parameters
    ----------
    source : source of scores
    k : int
        Experts per token, 1 <= k < E.

    Returns
    -------
    float
        In score units: the distance between the quantiles 1 - 2K/E and 1 - K/(2E) of one expert's scores
        without offsets. Where K/E > 1/3 the lower one is (1 - K/E)/2, half-way between the boundary and the
        bottom, which meets 1 - 2K/E at 1/3. For a source without a distribution of its own: the quantiles of
        the pooled, unbiased scores of 16,384 tokens at its steps 0, 1, 2, ... (fewer for E > 256, so that at
        most 2**22 scores are held).

    Raises
    ------
    InputError
        If ``k`` is out of range, or ``source`` is an array.

    Notes
    -----
    Source: theory.md, "The heavy-tail question".
    """
    check_source(source)
    n_experts, k = sizes(source.n_experts, k)
    share = k / n_experts
    levels = [max(1.0 - 2.0 * share, (1.0 - share) / 2.0), 1.0 - share / 2.0]
    noise = noise_of(source)
    if noise is not None and transform_of(source) == "raw":
        low, high = (float(value) for value in noise.ppf(levels))
        return scale_of(source) * (high - low)
    wanted = _SPREAD_TOKENS
    while wanted > 1 and wanted * n_experts > _SPREAD_SCORES:
        wanted //= 2
    _, batches = pilot(source, wanted)
    pooled = np.concatenate([scores[np.isfinite(scores)] for scores in batches])
    low, high = (float(value) for value in np.quantile(pooled, levels))
    return high - low


def _bound_on_domain(known: Shifted, k: int, n_experts: int, radius: float) -> Estimate:
    half_width = (radius + float(np.ptp(known.minimiser)) / 2.0) / known.scale
    method = f"lower bound on a domain (S4), {require_unimodal(known.noise)}"
    found = integrate_modulus(known.noise, k, n_experts, half_width)
    low, high = max(0.0, found.value - found.error), found.value + found.error
    return Estimate(found.value / known.scale, low / known.scale, high / known.scale, method)
