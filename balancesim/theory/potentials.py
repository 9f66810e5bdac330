"""What the theory says about potentials: P5's mini-batch bias and its cost to a rule, P7's regret bounds."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from balancesim.errors import InputError
from balancesim.numbers import check_int
from balancesim.potentials import NegativeEntropy, PNorm, Potential, SquaredNorm, Tsallis
from balancesim.theory.arguments import real_number, sizes
from balancesim.types import Estimate, Float64Array

_BATCH_ENTRIES = 2**22


class MinibatchBias(NamedTuple):
    """How far phi of a batch's mean lies above phi of the population's mean.

    Attributes
    ----------
    batch_sizes : (S,) ndarray of int64
        Tokens per batch, B.
    bias : (S,) ndarray of float64
        Mean of phi(batch mean) - phi(population mean) over the batches of each size.
    error : (S,) ndarray of float64
        Its standard error; infinite where the bias is.
    slope : Estimate
        The limit of B times the bias, with a 95 % interval.
    analytic : float
        tr(Hess phi Cov)/2, what the slope is by P5.
    """

    batch_sizes: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
    bias: Float64Array
    error: Float64Array
    slope: Estimate
    analytic: float


def minibatch_bias(
    potential: Potential,
    shares: ArrayLike,
    *,
    batch_sizes: ArrayLike = (64, 128, 256, 512, 1024),
    n_batches: int = 4000,
    seed: int = 0,
) -> MinibatchBias:
    """Measure the bias of phi on mini-batches, and its slope in 1/B (P5).

    Parameters
    ----------
    potential : Potential
        phi.
    shares : (N, E) array_like
        The population: one token's shares a row, such as softmax probabilities, or 1/K for each chosen
        expert. Batches draw from its rows with replacement.
    batch_sizes : sequence of int, optional
        At least two different numbers of tokens.
    n_batches : int, optional
        Batches of each size, at least 2.
    seed : int, optional
        Of the draws.

    Returns
    -------
    MinibatchBias

    Raises
    ------
    InputError
        If an argument is out of range, a share is off the potential's domain, or an expert has no share at
        all where phi has no curvature there.

    Notes
    -----
    What is averaged is the Bregman divergence of the batch's mean from the population's: it has the mean of
    phi(batch) - phi(population), as the linear term has mean zero, and a small part of the variance. The
    slope is the constant of a weighted least-squares fit of B times the bias by a + b/B + c/B^2 (a + b/B for
    two sizes), so that higher orders do not pass for slope. A batch that gives an expert nothing makes the
    log barrier infinite, and so the bias: P5 does not hold for hard loads there.
    Source: theory.md P5.
    """
    rows = np.asarray(shares, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 2 or rows.shape[1] < 2 or not (rows >= 0.0).all():
        raise InputError(f"`shares` must be (N, E) numbers that are at least 0, got shape {rows.shape}")
    numbers = np.unique(np.array([check_int("batch_sizes", b, 1) for b in np.atleast_1d(batch_sizes)]))
    if numbers.size < 2:
        raise InputError("`batch_sizes` must hold at least two different sizes, to tell a slope from a level")
    check_int("n_batches", n_batches, 2)
    mean = rows.mean(axis=0)
    curvature = potential.curvature(mean)
    if not np.isfinite(curvature).all():
        raise InputError(f"{potential.name}: the mean share of expert {int(np.argmin(mean))} is 0 (P5)")
    analytic = 0.5 * float(curvature @ rows.var(axis=0))
    rng = np.random.default_rng(seed)
    bias, error = np.empty(numbers.size), np.empty(numbers.size)
    for i, size in enumerate(numbers):
        values = np.array([potential.divergence(batch, mean) for batch in _means(rows, size, n_batches, rng)])
        bias[i], error[i] = values.mean(), math.inf
        if math.isfinite(bias[i]):
            error[i] = values.std(ddof=1) / math.sqrt(n_batches)
    if not np.isfinite(bias).all():
        unknown = Estimate(math.inf, math.nan, math.inf, "a batch left an expert without load")
        return MinibatchBias(numbers, bias, error, unknown, analytic)
    powers = np.vander(1.0 / numbers, min(3, numbers.size), increasing=True)
    weight = 1.0 / np.maximum(numbers * error, 1e-300)
    covariance = np.linalg.pinv((powers * weight[:, None]).T @ (powers * weight[:, None]))
    fitted = covariance @ (powers * weight[:, None] ** 2).T @ (numbers * bias)
    half = 1.96 * math.sqrt(float(covariance[0, 0]))
    slope = Estimate(
        float(fitted[0]), float(fitted[0]) - half, float(fitted[0]) + half, "weighted fit in 1/B"
    )
    return MinibatchBias(numbers, bias, error, slope, analytic)


def _means(rows: Float64Array, size: int, n_batches: int, rng: np.random.Generator) -> Float64Array:
    """Means of batches drawn with replacement, (n_batches, E)."""
    at_once = max(1, _BATCH_ENTRIES // (int(size) * rows.shape[1]))
    parts = [
        rows[rng.integers(len(rows), size=(min(at_once, n_batches - first), size))].mean(axis=1)
        for first in range(0, n_batches, at_once)
    ]
    return np.concatenate(parts)


def averaging_excess(
    potential: Potential,
    minimiser: ArrayLike,
    covariance: ArrayLike,
    *,
    ema_rate: float,
    strength: float,
    k: int,
    n_tokens: int,
    slope: ArrayLike | None = None,
) -> float:
    """Return what phi-balancing with a constant rate loses per step to its own noise (P5 in P6's objective).

    Parameters
    ----------
    potential : Potential
        phi.
    minimiser : (E,) array_like
        m*, the shares at the minimiser of the rule's own objective (`balancesim.penalised`).
    covariance : (E, E) array_like
        Of one token's shares there: 1/K for each of its K experts.
    ema_rate : float
        eta, in (0, 1].
    strength : float
        lambda, in score units.
    k : int
        Experts per token.
    n_tokens : int
        Tokens per batch, T.
    slope : (E, E) array_like, optional
        S, the derivatives of the expected shares by the bias there (`balancesim.penalised.share_slope`); zero
        where left out, as if the price moved no choice.

    Returns
    -------
    float
        Mean regret per token and step of late batches on the rule's own objective, in score units, to first
        order in 1/T: lambda/(2 T) times the sum of eta c_i / (2 - eta beta_i), beta_i the eigenvalues of
        I + (lambda/K) R S R, R the root of Hess phi(m*), and c_i the diagonal of R Cov R in its eigenbasis.
        Infinite where some eta beta_i is 2 or more: the rule then has no stationary law near m*.

    Raises
    ------
    InputError
        If an argument is out of range, shapes do not fit, or a point is off the potential's domain.

    Notes
    -----
    The c_i sum to tr(Hess phi Cov). With S = 0 this is eta/(2 - eta) lambda tr(Hess phi Cov)/(2 T); as
    beta_i >= 1 that is a lower bound in general, which small rates reach.
    Source: theory.md P5, P6 (ours).
    """
    shares, noise = np.asarray(minimiser, dtype=np.float64), np.asarray(covariance, dtype=np.float64)
    n_experts, k = sizes(shares.size, k)
    moved = np.zeros((n_experts, n_experts)) if slope is None else np.asarray(slope, dtype=np.float64)
    for name, matrix in (("covariance", noise), ("slope", moved)):
        if matrix.shape != (n_experts, n_experts) or not np.isfinite(matrix).all():
            raise InputError(f"`{name}` must be finite, ({n_experts}, {n_experts}), got {matrix.shape}")
    rate = real_number("ema_rate", ema_rate, positive=True)
    if rate > 1.0:
        raise InputError(f"`ema_rate` must be a number in (0, 1], got {ema_rate!r}")
    weight = real_number("strength", strength, positive=True)
    check_int("n_tokens", n_tokens, 1)
    # Curvature may be infinite where an expert is never chosen: it has no noise.
    used = np.flatnonzero(np.diag(noise) > 0.0)
    root = np.sqrt(potential.curvature(shares)[used])
    scaled = root[:, None] * root
    inside = np.ix_(used, used)
    bend = np.eye(used.size) + weight / k * scaled * 0.5 * (moved + moved.T)[inside]
    beta, modes = np.linalg.eigh(bend)
    if (rate * beta >= 2.0).any():
        return math.inf
    parts = np.einsum("ei,ef,fi->i", modes, scaled * noise[inside], modes)
    return weight / (2.0 * n_tokens) * float((rate * parts / (2.0 - rate * beta)).sum())


def averaging_bound(
    potential: Potential, averages: ArrayLike, minimiser: ArrayLike, *, strength: float
) -> Float64Array:
    """P7's bound along a run with the harmonic rate: it holds for every sequence of scores.

    Parameters
    ----------
    potential : Potential
        phi.
    averages : (N + 1, E) array_like
        m before each of steps 1..N and after the last; the first is uniform.
    minimiser : (E,) array_like
        The m that goes with the price regret is measured against: m*, or any other.
    strength : float
        lambda, in score units.

    Returns
    -------
    (N,) ndarray of float64
        lambda [D(m_1, m*) + sum over n <= N of (n + 1) D(m_{n+1}, m_n)], D the Bregman divergence of phi: an
        upper bound on the realised regret after each step on P6's objective, per token, in score units.

    Raises
    ------
    InputError
        If shapes do not fit or a point is off the potential's domain.

    Notes
    -----
    Source: theory.md P7 (ours).
    """
    weight = real_number("strength", strength, positive=True)
    m = np.asarray(averages, dtype=np.float64)
    if m.ndim != 2 or len(m) < 2:
        raise InputError(f"`averages` must be (N + 1, E) with N at least 1, got shape {m.shape}")
    start = potential.divergence(m[0], minimiser)
    moves = [(n + 1) * potential.divergence(m[n], m[n - 1]) for n in range(1, len(m))]
    return np.asarray(weight * (start + np.cumsum(moves)), dtype=np.float64)


def averaging_ceiling(
    potential: Potential, minimiser: ArrayLike, *, strength: float, k: int, horizon: ArrayLike
) -> Float64Array:
    """P7's bound before a run: logarithmic, whatever the scores, for potentials whose Hessian allows it.

    Parameters
    ----------
    potential : Potential
        phi, with f''(m) m bounded on (0, 1/K]: negative entropy, squared norm, p-norm, Tsallis with q > 1.
    minimiser : (E,) array_like
        The m that goes with the price regret is measured against.
    strength : float
        lambda, in score units.
    k : int
        Experts per token.
    horizon : array_like of int
        Steps N, at least 1.

    Returns
    -------
    ndarray of float64
        In the shape of ``horizon``: lambda [D(m_1, m*) + C ln(1 + N)], C = b/K where f'' <= b on [0, 1/K]
        (squared norm, p-norm and Tsallis from 2 on), else c E/K where f''(m) <= c/m.

    Raises
    ------
    InputError
        For the log barrier and Tsallis with q < 1, for which theory.md has counterexamples; if an argument is
        out of range.

    Notes
    -----
    Source: theory.md P7 (ours).
    """
    weight = real_number("strength", strength, positive=True)
    target = np.asarray(minimiser, dtype=np.float64)
    n_experts, k = sizes(target.size, k)
    steps = np.asarray(horizon)
    if steps.dtype.kind not in "iu" or (steps < 1).any():
        raise InputError(f"`horizon` must be integers that are at least 1, got {horizon!r}")
    constant = _logarithmic_constant(potential, n_experts, k)
    start = potential.divergence(np.full(n_experts, 1.0 / n_experts), target)
    return np.asarray(weight * (start + constant * np.log1p(steps)), dtype=np.float64)


def _logarithmic_constant(potential: Potential, n_experts: int, k: int) -> float:
    match potential:
        case NegativeEntropy():
            return n_experts / k
        case SquaredNorm():
            return 1.0 / k
        case PNorm(p):
            factor, power = (p - 1.0) * k ** (1.0 - p), p
        case Tsallis(q) if q > 1.0:
            factor, power = q * k ** (1.0 - q), q
        case _:
            raise InputError(
                f"`potential` {potential!r} has no logarithmic bound that holds for all scores, as m f''(m) "
                "is unbounded at zero load (P7); use averaging_bound along a run"
            )
    return float(factor if power >= 2.0 else factor * n_experts / k)
