"""The Hessian of the population objective F: by quadrature (S1, S2), or counted in tokens (S3)."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balancesim.errors import InputError, unknown_name
from balancesim.sources import Source
from balancesim.theory.arguments import blocks, centred_bias, pilot, real_number, sizes
from balancesim.theory.hessian import Hessian, integrate_hessian
from balancesim.theory.near_ties import (
    Counted,
    count_near_ties,
    counted_hessian,
    counted_mean_eigenvalue,
    counted_modulus,
    counted_weights,
    require_enough,
)
from balancesim.theory.quadrature import closed_form, integrate_modulus
from balancesim.types import Estimate, Float64Array

METHODS = ("quadrature", "gap", "difference")
_TOKENS = 65_536
# Shifts that differ by no more than this, in units of the noise's scale and the largest offset, are rounding.
_EQUAL = 1e-12


class Shifted(NamedTuple):
    """Independent scores offset_e + scale z_e: the law of z, the scale, and minus the centred offsets."""

    noise: Any
    scale: float
    minimiser: Float64Array


class CurvatureEstimate(NamedTuple):
    """A Hessian counted in tokens, with what is known of its precision.

    Attributes
    ----------
    hessian : (E, E) ndarray of float64
        The estimate, in 1/score units; a weighted graph Laplacian.
    low, high : (E, E) ndarray of float64
        95 % interval of each weight h_kj = -H_kj by itself; zero on the diagonals.
    mean_eigenvalue : Estimate
        trace(H)/(E-1), the mean eigenvalue on the zero-sum subspace, with a 95 % interval. It equals the
        modulus where experts are exchangeable, and is much better known.
    modulus : Estimate
        lambda_2, biased low, with an interval that errs on the wide side.
    width : float
        Pairs of scores closer than this were counted, in score units.
    n_near_ties, n_tokens : int
        How many pairs were counted, in how many tokens.
    """

    hessian: Float64Array
    low: Float64Array
    high: Float64Array
    mean_eigenvalue: Estimate
    modulus: Estimate
    width: float
    n_near_ties: int
    n_tokens: int


def curvature(
    source: Source | ArrayLike, k: int = 2, bias: ArrayLike | None = None, method: str = "quadrature"
) -> Float64Array:
    """Hessian of the population objective F.

    Parameters
    ----------
    source : source of scores, or (T, E) array of scores
        An array only with ``method="gap"`` or ``"difference"``.
    k : int
        Experts per token, 1 <= k < E.
    bias : (E,) array, optional
        Where the curvature is taken, in score units; a common constant changes nothing. Default: the source's
        population minimiser p*; for an array of scores, zero.
    method : {"quadrature", "gap", "difference"}
        "quadrature": S1's integrals, for scores that are independent and identically distributed up to
        location, transform "raw", at any bias. "gap", "difference": as in `estimate_curvature`, which also
        gives intervals.

    Returns
    -------
    (E, E) ndarray of float64
        In 1/score units; H_kj = -h_kj off the diagonal, rows that sum to zero.

    Raises
    ------
    InputError
        If an argument is out of range, a hypothesis of the method is not met (the message says which method
        works), or fewer than 10 near-ties are counted (it says about how many tokens are needed).

    Notes
    -----
    Source: theory.md S1-S3. By quadrature every h_kj is a sum of non-negative terms, good to about 1e-11 of
    the experts' degrees; the cost is O(E^2 K) for each of some hundred nodes, 0.2 s at E = 64 and K = 8, 5 s
    at E = 512; uniform scores with as many different offsets cost ten times that. No threads are used.
    """
    _check_method(method)
    if method != "quadrature":
        return counted_hessian(_count(source, k, bias, method))
    n_experts, k, known = independent(source, k)
    shifts = _shifts(known, bias)
    if _are_equal(shifts, known):
        estimate = exchangeable_modulus(known, k, n_experts)
        return estimate.value * (np.eye(n_experts) - 1.0 / n_experts)
    return integrate_hessian(known.noise, shifts, k).matrix / known.scale


def estimate_curvature(
    source: Source | ArrayLike,
    k: int = 2,
    bias: ArrayLike | None = None,
    method: str = "gap",
    width: float | None = None,
) -> CurvatureEstimate:
    """Hessian of the population objective F, counted in tokens, with intervals (S3).

    Parameters
    ----------
    source : source of scores, or (T, E) array of scores
        Of a source, 65,536 tokens are drawn at its steps 0, 1, 2, ... (fewer if a recording has fewer).
    k : int
        Experts per token, 1 <= k < E.
    bias : (E,) array, optional
        Where the curvature is taken, in score units. Default: the source's population minimiser p*; for an
        array of scores, zero.
    method : {"gap", "difference"}
        "gap": S3 (b), pairs of scores closer than ``width`` with exactly K-1 others above their midpoint.
        "difference": S3 (a), central differences of the loads, each price in turn moved by ``width`` up and
        down over the same tokens, the matrix then made symmetric.
    width : float, optional
        In score units. Default: T^(-1/4) of the spread around the K-th place, T^(-1/3) for differences,
        narrower than what minimises the mean square error, so that the bias stays below the sampling error.

    Returns
    -------
    CurvatureEstimate
        Intervals are for the sampling of tokens, which are taken as independent; they leave out the bias,
        which is of order width squared for densities with a square-integrable derivative (theory.md).

    Raises
    ------
    InputError
        If an argument is out of range, scores tie exactly (no density), or there are too few near-ties
        for an interval; the message says about how many tokens are needed.

    Notes
    -----
    No hypothesis on the scores but a density: experts may depend on each other. Source: theory.md S3. The
    cost is that of partly sorting the tokens; no threads are used.
    """
    if method == "quadrature":
        raise InputError(
            '`method` must be "gap" or "difference", which count tokens; '
            'for "quadrature" use `curvature` or `modulus`'
        )
    _check_method(method)
    reach = None if width is None else real_number("width", width, positive=True)
    counted = _count(source, k, bias, method, reach)
    weights = counted_weights(counted)
    return CurvatureEstimate(
        hessian=counted_hessian(counted),
        low=weights.low,
        high=weights.high,
        mean_eigenvalue=counted_mean_eigenvalue(counted, method),
        modulus=counted_modulus(counted, method),
        width=counted.width,
        n_near_ties=counted.ties.token.size,
        n_tokens=counted.n_tokens,
    )


def hessian_at(known: Shifted, bias: ArrayLike | None, k: int) -> Hessian | None:
    """S1's Hessian in 1/score units with its error, or None where experts are exchangeable (S2)."""
    shifts = _shifts(known, bias)
    if _are_equal(shifts, known):
        return None
    found = integrate_hessian(known.noise, shifts, k)
    return Hessian(found.matrix / known.scale, found.error / known.scale)


def exchangeable_modulus(known: Shifted, k: int, n_experts: int) -> Estimate:
    """S2's modulus, in 1/score units: a closed form where there is one."""
    exact = closed_form(known.noise, k, n_experts)
    if exact is not None:
        exact /= known.scale
        return Estimate(exact, exact, exact, "closed form (S2)")
    found = integrate_modulus(known.noise, k, n_experts, 0.0)
    low, high = max(0.0, found.value - found.error), found.value + found.error
    return Estimate(found.value / known.scale, low / known.scale, high / known.scale, "quadrature (S2)")


def independent(
    source: Any,
    k: int,
    what: str = 'method="quadrature"',
    way_out: str = 'use method="gap" or "difference"',
) -> tuple[int, int, Shifted]:
    """Check the hypotheses of the quadrature, or of ``what`` needs it; return E, K and the scores' law."""
    if not isinstance(source, Source):
        raise InputError(
            f"{what} needs a source with a known distribution, got {type(source).__name__}; for an array "
            f"{way_out}"
        )
    n_experts, k = sizes(source.n_experts, k)
    noise = noise_of(source)
    if noise is None:
        raise InputError(
            f"{what} needs scores that are independent over experts and identically distributed "
            f"up to location (S1), which this source does not declare; {way_out}"
        )
    if transform_of(source) != "raw":
        raise InputError(
            f'{what} needs the transform "raw", got {transform_of(source)!r}: softmax couples '
            f"the experts and sigmoid saturates, so the product form of S1 is lost; {way_out}"
        )
    if not hasattr(noise, "logpdf"):
        raise InputError(
            f"`source` has a distribution without a density: if its scores never tie, {way_out}; "
            "scores with atoms have no curvature (S1)"
        )
    minimiser = source.population_bias()
    centre = np.zeros(n_experts) if minimiser is None else centred_bias(minimiser, n_experts)
    return n_experts, k, Shifted(noise, scale_of(source), centre)


def noise_of(source: Source) -> Any | None:
    """Return the frozen SciPy distribution of the standard noise, or None where the source has none."""
    try:
        return source.noise_distribution()
    except InputError:
        return None


def transform_of(source: Source) -> str:
    """The source's transform, "raw" where it names none."""
    return str(getattr(source, "transform", "raw"))


def scale_of(source: Source) -> float:
    """The factor on the source's noise, 1 where it names none."""
    return float(getattr(source, "scale", 1.0))


def _count(
    source: Source | ArrayLike, k: int, bias: ArrayLike | None, method: str, width: float | None = None
) -> Counted:
    """Near-ties of an array or of a source's pilot tokens, enough of them for an interval."""
    n_tokens: int
    batches: Iterator[Float64Array]
    if isinstance(source, Source):
        n_experts, k = sizes(source.n_experts, k)
        place = bias if bias is not None else source.population_bias()
        if place is None:
            raise InputError("`bias` must be given: this source's population minimiser is not known")
        centre = centred_bias(place, n_experts)
        n_tokens, batches = pilot(source, _TOKENS)
    else:
        scores = _score_array(source)
        n_experts, k = sizes(scores.shape[1], k)
        centre = centred_bias(np.zeros(n_experts) if bias is None else bias, n_experts)
        n_tokens, batches = len(scores), blocks(scores)
    counted = count_near_ties(batches, n_tokens, centre, k, method, width)
    require_enough(counted)
    return counted


def counted_modulus_of(source: Source | ArrayLike, k: int, bias: ArrayLike | None, method: str) -> Estimate:
    """lambda_2 as counted by a method of `estimate_curvature`."""
    return counted_modulus(_count(source, k, bias, method), method)


def _check_method(method: Any) -> None:
    if method not in METHODS:
        raise InputError(unknown_name("method", str(method), METHODS))


def _shifts(known: Shifted, bias: ArrayLike | None) -> Float64Array:
    """Offset plus bias of each expert, up to a constant, in units of the noise."""
    n_experts = known.minimiser.size
    if bias is None:
        return np.zeros(n_experts)
    return (centred_bias(bias, n_experts) - known.minimiser) / known.scale


def _are_equal(shifts: Float64Array, known: Shifted) -> bool:
    reach = 1.0 + float(np.abs(known.minimiser).max()) / known.scale
    return float(np.abs(shifts).max()) <= _EQUAL * reach


def _score_array(scores: Any) -> NDArray[Any]:
    array = np.asarray(scores)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise InputError(
            "`source` must be a source or a (tokens, experts) array of real scores, got "
            f"{type(scores).__name__} of shape {array.shape} and dtype {array.dtype}"
        )
    return array
