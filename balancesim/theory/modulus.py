"""The modulus of strong convexity: at a bias (S2, S3), and uniformly over a domain (S4)."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balancesim.errors import InputError, unknown_name
from balancesim.sources import Source
from balancesim.theory.arguments import blocks, centred_bias, pilot, real_number, sizes
from balancesim.theory.near_ties import gap_modulus
from balancesim.theory.quadrature import closed_form, integrate_modulus, require_unimodal
from balancesim.types import Estimate, Float64Array

_GAP_TOKENS = 65_536
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
        An array only with ``method="gap"``.
    k : int
        Experts per token, 1 <= k < E.
    bias : (E,) array, optional
        Where the curvature is taken, in score units; a common constant changes nothing. Default: the source's
        population minimiser p*; for an array of scores, zero.
    radius : float, optional
        In score units. If given, the result is S4's lower bound on the modulus over the whole set {sum p = 0,
        |p_k| <= radius} that the projection of ALF-LB keeps to, instead of the modulus at one point.
    method : {"quadrature", "gap"}
        "quadrature": S2, scores independent and identically distributed up to location, transform "raw", at
        p* only; closed forms where there are any, else an integral good to about 1e-11. "gap": S3 (b),
        near-ties counted in the array, or in 65,536 tokens drawn from the source at its steps 0, 1, 2, ...;
        no hypothesis on the scores but a density.

    Returns
    -------
    Estimate
        In 1/score units. Quadrature: the interval is the numerical error. Gap: a 95 % interval for the
        sampling of tokens, which are taken as independent; it is conservative on both sides (the value is
        biased low, the more so the fewer near-ties there are per expert) and leaves out the bias of order w
        squared. ``method`` names the form used, and for counted near-ties their number and the width w.

    Raises
    ------
    InputError
        If an argument is out of range, or a hypothesis of the method is not met; the message says which.

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
    some thousand evaluations of the density, or of drawing and partly sorting 65,536 tokens; no threads are
    used.
    """
    if method not in ("quadrature", "gap"):
        raise InputError(unknown_name("method", str(method), ["quadrature", "gap"]))
    if method == "quadrature":
        if not isinstance(source, Source):
            raise InputError(
                'method="quadrature" needs a source with a known distribution; for an array use method="gap"'
            )
        return _quadrature(source, k, bias, radius)
    if radius is not None:
        raise InputError(
            "`radius` asks for a bound over a region, which counted near-ties cannot give; leave it out, or "
            'use method="quadrature"'
        )
    if isinstance(source, Source):
        n_experts, k = sizes(source.n_experts, k)
        place = bias if bias is not None else source.population_bias()
        if place is None:
            raise InputError("`bias` must be given: this source's population minimiser is not known")
        n_tokens, batches = pilot(source, _GAP_TOKENS)
        return gap_modulus(batches, n_tokens, centred_bias(place, n_experts), k)
    scores = _score_array(source)
    n_tokens, n_experts = scores.shape
    n_experts, k = sizes(n_experts, k)
    place_in_array = centred_bias(np.zeros(n_experts) if bias is None else bias, n_experts)
    return gap_modulus(blocks(scores), n_tokens, place_in_array, k)


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
        If ``k`` is out of range.

    Notes
    -----
    Source: theory.md, "The heavy-tail question".
    """
    n_experts, k = sizes(source.n_experts, k)
    share = k / n_experts
    levels = [max(1.0 - 2.0 * share, (1.0 - share) / 2.0), 1.0 - share / 2.0]
    noise = _noise(source)
    if noise is not None and _transform(source) == "raw":
        low, high = (float(value) for value in noise.ppf(levels))
        return _scale(source) * (high - low)
    wanted = _SPREAD_TOKENS
    while wanted > 1 and wanted * n_experts > _SPREAD_SCORES:
        wanted //= 2
    _, batches = pilot(source, wanted)
    pooled = np.concatenate([scores[np.isfinite(scores)] for scores in batches])
    low, high = (float(value) for value in np.quantile(pooled, levels))
    return high - low


def _quadrature(source: Source, k: int, bias: ArrayLike | None, radius: float | None) -> Estimate:
    n_experts, k = sizes(source.n_experts, k)
    noise = _noise(source)
    if noise is None:
        raise InputError(
            'method="quadrature" needs scores that are independent over experts and identically distributed '
            'up to location (S1), which this source does not declare; use method="gap"'
        )
    if _transform(source) != "raw":
        raise InputError(
            f'method="quadrature" needs the transform "raw", got {_transform(source)!r}: softmax couples the '
            'experts and sigmoid saturates, so the product form of S1 is lost; use method="gap"'
        )
    if not hasattr(noise, "logpdf"):
        raise InputError("`source` has a distribution without a density, so F has no curvature (S1)")
    minimiser = source.population_bias()
    centre = np.zeros(n_experts) if minimiser is None else centred_bias(minimiser, n_experts)
    scale = _scale(source)
    if bias is not None:
        _require_minimiser(centred_bias(bias, n_experts), centre, scale)
    if radius is None:
        exact = closed_form(noise, k, n_experts)
        if exact is not None:
            return Estimate(exact / scale, exact / scale, exact / scale, "closed form (S2)")
        half_width, method = 0.0, "quadrature (S2)"
    else:
        half_width = (real_number("radius", radius, positive=False) + float(np.ptp(centre)) / 2.0) / scale
        method = f"lower bound on a domain (S4), {require_unimodal(noise)}"
    found = integrate_modulus(noise, k, n_experts, half_width)
    low, high = max(0.0, found.value - found.error), found.value + found.error
    return Estimate(found.value / scale, low / scale, high / scale, method)


def _require_minimiser(bias: Float64Array, minimiser: Float64Array, scale: float) -> None:
    """Quadrature knows the exchangeable point only; rounding of the bias is allowed for."""
    distance = float(np.abs(bias - minimiser).max())
    if distance > 1e-9 * (scale + float(np.abs(minimiser).max())):
        raise InputError(
            f'`bias` must be the population minimiser up to a constant for method="quadrature", got one '
            f'{distance:.3g} score units away; leave it out, or use method="gap"'
        )


def _noise(source: Source) -> Any | None:
    """Return the frozen SciPy distribution of the standard noise, or None where the source has none."""
    try:
        return source.noise_distribution()
    except InputError:
        return None


def _transform(source: Source) -> str:
    return str(getattr(source, "transform", "raw"))


def _scale(source: Source) -> float:
    return float(getattr(source, "scale", 1.0))


def _score_array(scores: Any) -> NDArray[Any]:
    array = np.asarray(scores)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise InputError(
            "`source` must be a source or a (tokens, experts) array of real scores, got "
            f"{type(scores).__name__} of shape {array.shape} and dtype {array.dtype}"
        )
    return array
