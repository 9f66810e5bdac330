"""Population minimiser of phi-balancing's dual objective (P6): where expected loads and price agree.

With p the bias and v = v_0 - (K/lambda) p, v_0 the gradient of phi at uniform shares, the objective
E topsum_K(scores + p) + lambda phi*(v) is convex, and its gradient is K (s(p) - grad phi*(v)), s(p) the
expected shares at bias p. Newton's method on that gradient finds the zero; no mean of the scores is needed.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from balancesim.batches import as_bias
from balancesim.errors import InputError
from balancesim.numbers import check_positive
from balancesim.potentials import Potential
from balancesim.problem import check_sizes
from balancesim.routing import route
from balancesim.sources.base import Source
from balancesim.types import Float64Array

_SAMPLE_SEED = 2**63 - 3
_SAMPLE_TOKENS = 2**18
_SAMPLE_SCORES = 2**24
_SLOPE_TOKENS = 2**15
_EXACT = 1e-12
_MAX_STEPS = 100
_MAX_HALVINGS = 60


class _Shares(NamedTuple):
    """From a bias to expected shares (E,), and to their derivatives by the bias (E, E)."""

    at: Callable[[Float64Array], Float64Array]
    slope: Callable[[Float64Array], Float64Array]


class PenalisedMinimiser(NamedTuple):
    """The minimiser of P6's dual objective, and how well it is known.

    Attributes
    ----------
    bias : (E,) ndarray of float64
        The price in score units, zero where v is that of uniform shares.
    shares : (E,) ndarray of float64
        m*, the expected shares there; they sum to 1.
    residual : float
        The largest difference between expected shares and grad phi*(v).
    excess : float
        Bound on what the objective at the bias is expected to exceed its minimum by, per token and step, in
        score units, because shares were counted on a sample; zero for quadrature. It enters a regret's
        comparator once a step.
    method : str
        How expected shares were found.
    """

    bias: Float64Array
    shares: Float64Array
    residual: float
    excess: float
    method: str


def penalised_minimiser(
    source: Source, potential: Potential, *, strength: float, k: int
) -> PenalisedMinimiser:
    """Find the minimiser of E topsum_K(scores + p) + strength * phi*(v_0 - (K/strength) p).

    Parameters
    ----------
    source : Source
        Scores whose distribution does not change along the steps.
    potential : Potential
        phi.
    strength : float
        lambda, in score units, positive.
    k : int
        Experts per token, 1 <= k < E.

    Returns
    -------
    PenalisedMinimiser
        Zero bias, exactly, where the source's p* is zero. Else, for independent scores with a density and the
        transform "raw", to a residual of about 1e-12 by quadrature; for other scores on 2**18 tokens (fewer
        for E > 64) of a seed of their own, see ``excess``.

    Raises
    ------
    InputError
        If an argument is out of range, or the source changes along the steps.

    Notes
    -----
    Source: theory.md P6 (ours). For each of about ten Newton steps, quadrature costs some 200 E^3 evaluations
    of the density where all offsets differ (E = 16: some 0.2 s), counting 2 E routings of the sample. The
    latest results are kept, as a sweep asks for the same one at every seed.
    """
    check_sizes(source.n_experts, k)
    check_positive("strength", strength)
    model = source.kernel_model()
    if model is not None and (model.phase_start.size > 1 or model.walk_rate > 0.0):
        raise InputError(
            f"`source` {source.describe()} changes along the run, so that phi-balancing's objective has no "
            'one minimiser; measure regret against another comparator, e.g. "hindsight"'
        )
    source = source.with_seed(_SAMPLE_SEED)
    solve = _solve if _is_hashable(source) else _solve.__wrapped__
    return solve(source, potential, strength, k)


def share_slope(source: Source, bias: ArrayLike, *, k: int) -> Float64Array:
    """Return the derivatives of the expected shares by the bias, at one bias.

    Parameters
    ----------
    source : Source
        Scores whose distribution does not change along the steps.
    bias : (E,) array_like
        In score units.
    k : int
        Experts per token, 1 <= k < E.

    Returns
    -------
    (E, E) ndarray of float64
        Symmetric, per score unit; by quadrature or counted, as `penalised_minimiser` finds its shares.

    Raises
    ------
    InputError
        If a size is out of range.
    """
    check_sizes(source.n_experts, k)
    price = as_bias(bias, source.n_experts, "bias")
    return _expected(source.with_seed(_SAMPLE_SEED), k)[0].slope(price)


@lru_cache(maxsize=256)
def _solve(source: Source, potential: Potential, strength: float, k: int) -> PenalisedMinimiser:
    balanced = source.population_bias()
    n_experts = source.n_experts
    if balanced is not None and float(np.ptp(balanced)) == 0.0:
        uniform = np.full(n_experts, 1.0 / n_experts)
        return PenalisedMinimiser(np.zeros(n_experts), uniform, 0.0, 0.0, "balanced without a bias")
    expected, n_tokens = _expected(source, k)
    if not n_tokens:
        found = _newton(expected, potential, strength, k, n_experts, _EXACT)
        return PenalisedMinimiser(*found, 0.0, "quadrature")
    # Well below the shares' standard deviation, about sqrt(1/(E K N)).
    goal = 0.03 / math.sqrt(n_experts * k * n_tokens)
    found = _newton(expected, potential, strength, k, n_experts, goal)
    excess = _excess(n_tokens, found[1], potential, strength, k)
    return PenalisedMinimiser(*found, excess, f"{n_tokens} tokens counted")


def _expected(source: Source, k: int) -> tuple[_Shares, int]:
    """Expected shares, and on how many tokens they are counted: 0 for quadrature."""
    noise = _independent_noise(source)
    if noise is not None:
        offsets: Float64Array = source.expert_offsets()  # type: ignore[attr-defined]  # it has noise
        return _quadrature(noise, offsets, float(getattr(source, "scale", 1.0)), k), 0
    scores = _sample(source)
    return _counting(scores, k), len(scores)


def _is_hashable(source: Source) -> bool:
    try:
        hash(source)
    except TypeError:
        return False
    return True


def _newton(
    expected: _Shares, potential: Potential, strength: float, k: int, n_experts: int, goal: float
) -> tuple[Float64Array, Float64Array, float]:
    """Bias, shares and residual; damped so that the objective falls along each step."""
    origin = potential.gradient(np.full(n_experts, 1.0 / n_experts))
    at_zero = potential.gradient(np.zeros(1))[0]
    ratio = k / strength
    bias = np.zeros(n_experts)

    def look(price: Float64Array) -> tuple[Float64Array, Float64Array]:
        shares = expected.at(price)
        return shares, shares - potential.conjugate_gradient(origin - ratio * price)

    def hessian(price: Float64Array) -> Float64Array:
        v = origin - ratio * price
        with np.errstate(divide="ignore"):
            bend = np.where(v > at_zero, 1.0 / potential.curvature(potential.conjugate_gradient(v)), 0.0)
        full = expected.slope(price) + np.diag(ratio * np.minimum(bend, 1e100))
        return full + (1e-14 * float(np.trace(full)) + 1e-300) * np.eye(n_experts)

    shares, gap = look(bias)
    best = bias, shares, float(np.abs(gap).max())
    for _ in range(_MAX_STEPS):
        if best[2] <= goal:
            break
        step = -np.linalg.solve(hessian(bias), gap)
        # v stays below its ceiling: at most nine tenths of the way there.
        room = (potential.ceiling - (origin - ratio * bias)) / np.maximum(-ratio * step, 1e-300)
        length = min(1.0, 0.9 * float(room.min()))
        steepness = float(gap @ step)
        for _ in range(_MAX_HALVINGS):
            shares, new_gap = look(bias + length * step)
            if float(new_gap @ step) <= abs(steepness):
                break
            length *= 0.5
        bias, gap = bias + length * step, new_gap
        residual = float(np.abs(gap).max())
        if residual < best[2]:
            best = bias, shares, residual
    for array in best[:2]:
        array.flags.writeable = False
    return best


def _independent_noise(source: Source) -> Any | None:
    """The frozen distribution of scores that are independent up to offsets, or None."""
    if getattr(source, "transform", "") != "raw":
        return None
    try:
        noise = source.noise_distribution()
    except InputError:
        return None
    return noise if hasattr(noise, "pdf") and hasattr(source, "expert_offsets") else None


# Panels end where any expert's score passes these logits of its distribution: each transition is resolved
# whatever its width beside the others.
_PANEL_ENDS = np.array(
    [-36.0, -20.0, -12.0, -8.0, -5.0, -3.0, -1.5, 0.0, 1.5, 3.0, 5.0, 8.0, 12.0, 20.0, 36.0]
)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)


def _quadrature(noise: Any, offsets: Float64Array, scale: float, k: int) -> _Shares:
    """Expected shares by integrating along each expert's own score z = c_k + Q(u), u = expit(t)."""
    from balancesim.kernels.inclusion import add_inclusion

    n_experts = offsets.size
    with np.errstate(all="ignore"):
        ends = np.unique(_quantile(noise, _PANEL_ENDS))
    support = [edge for edge in noise.support() if math.isfinite(edge)]
    ends = np.unique(np.concatenate([ends[np.isfinite(ends)], support]))

    @lru_cache(maxsize=1)  # the slope is wanted where shares have just been
    def both(raw: bytes) -> tuple[Float64Array, Float64Array]:
        centre = (offsets + np.frombuffer(raw)) / scale
        shares, slope = np.zeros(n_experts), np.zeros((n_experts, n_experts))
        for e in range(n_experts):
            with np.errstate(all="ignore"):
                shift = centre[e] - centre
                passed = (ends[None, :] - shift[:, None]).ravel()
                t = np.asarray(noise.logcdf(passed) - noise.logsf(passed))
                inside = t[(t > _PANEL_ENDS[0]) & (t < _PANEL_ENDS[-1])]
                panels = np.unique(np.concatenate([_PANEL_ENDS, inside]))
                half = 0.5 * np.diff(panels)[:, None]
                nodes = (0.5 * (panels[1:] + panels[:-1])[:, None] + half * _NODES).ravel()
                weight = (half * _WEIGHTS).ravel() * expit(nodes) * expit(-nodes)
                z = _quantile(noise, nodes)[:, None] + shift
                above, density = np.nan_to_num(noise.sf(z)), np.nan_to_num(noise.pdf(z)) / scale
            add_inclusion(
                e, k, weight, np.ascontiguousarray(above), np.ascontiguousarray(density), shares, slope
            )
        return shares / k, slope / k

    return _Shares(lambda bias: both(bias.tobytes())[0], lambda bias: both(bias.tobytes())[1])


def _quantile(noise: Any, t: Float64Array) -> Float64Array:
    """Quantile at the logit ``t``, from the nearer end so that no digit is lost."""
    lower, upper = noise.ppf(expit(np.minimum(t, 0.0))), noise.isf(expit(-np.maximum(t, 0.0)))
    return np.asarray(np.where(t < 0.0, lower, upper), dtype=np.float64)


def _sample(source: Source) -> Any:
    """A large fixed sample: the first tokens."""
    n_tokens = min(_SAMPLE_TOKENS, max(1, _SAMPLE_SCORES // source.n_experts))
    if source.n_steps(1) is not None:
        n_tokens = min(n_tokens, int(source.n_steps(1) or 1))
    return np.asarray(source.batch(0, n_tokens))


def _counting(scores: Any, k: int) -> _Shares:
    """Shares counted on a sample; derivatives are differences on a part of it, over a part of the gaps."""
    n_experts = scores.shape[1]

    def count(bias: Float64Array, tokens: Any) -> Float64Array:
        return np.asarray(route(tokens, bias.astype(tokens.dtype), k=k).loads / (len(tokens) * k))

    def slope(bias: Float64Array) -> Float64Array:
        part = scores[:_SLOPE_TOKENS]
        biased = np.sort(part[:4096].astype(np.float64) + bias, axis=1)
        width = max(0.25 * float(np.median(biased[:, -k] - biased[:, -k - 1])), 1e-300)
        found = np.empty((n_experts, n_experts))
        for e in range(n_experts):
            nudge = width * (np.arange(n_experts) == e)
            found[:, e] = (count(bias + nudge, part) - count(bias - nudge, part)) / (2.0 * width)
        return 0.5 * (found + found.T)

    return _Shares(lambda bias: count(bias, scores), slope)


def _excess(n_tokens: int, shares: Float64Array, potential: Potential, strength: float, k: int) -> float:
    """Return lambda tr(Hess phi Cov)/(2 N), as the objective's curvature is at least that of lambda phi*.

    The variance of one token's share of expert k is m_k (1/K - m_k).
    """
    variance = shares * np.maximum(1.0 / k - shares, 0.0)
    used = variance > 0.0
    bend = potential.curvature(shares[used])
    return strength * float((bend * variance[used]).sum()) / (2.0 * n_tokens)
