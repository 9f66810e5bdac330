"""What the theory says about regret: S4's bound, S7's sharp constant, S8's exponents."""

from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma

from balancesim.errors import InputError
from balancesim.numbers import check_int
from balancesim.theory.arguments import real_number, sizes
from balancesim.types import Float64Array


@overload
def regret_bound(
    *,
    modulus: float,
    k: int,
    n_experts: int,
    horizon: int,
    squared_gradient_bound: ArrayLike | None = None,
    delay: float = 0,
    initial_distance: float = 0.0,
) -> float: ...


@overload
def regret_bound(
    *,
    modulus: float,
    k: int,
    n_experts: int,
    horizon: ArrayLike,
    squared_gradient_bound: ArrayLike | None = None,
    delay: float = 0,
    initial_distance: float = 0.0,
) -> Float64Array: ...


def regret_bound(
    *,
    modulus: float,
    k: int,
    n_experts: int,
    horizon: Any,
    squared_gradient_bound: ArrayLike | None = None,
    delay: float = 0,
    initial_distance: float = 0.0,
) -> float | Float64Array:
    """Upper bound on the expected regret of steps 1/(modulus (n + delay)), per token and summed over steps.

    Parameters
    ----------
    modulus : float
        A lower bound on the curvature over a convex set that holds every iterate and p*, in 1/score units:
        S4's mu_C, ``modulus(source, k, radius=R).low`` for iterates projected onto radius R. With the modulus
        at p* alone the statement is false for unprojected iterates.
    k, n_experts : int
        1 <= k < n_experts.
    horizon : int or array of int
        Number of steps N >= 1, or several.
    squared_gradient_bound : float or (n_steps,) array_like, optional
        Bound on E|g_n|^2, g the violation per token: one for every step, or one for each of the steps
        1, 2, ... up to the largest ``horizon`` at least (`squared_gradient_bound`, or measured). Default
        K(1 - K/E), which always holds.
    delay : float
        S4's n0 >= 0.
    initial_distance : float
        Euclidean distance of the first bias from p*, score units. It counts only with a delay.

    Returns
    -------
    float or array of the shape of ``horizon``
        In score units: (mu n0/2) |p_1 - p*|^2 + 1/(2 mu) * sum of G_n^2/(n + n0) for n = 1..N, the sum to
        rounding; G_n^2 the bound on E|g_n|^2.

    Raises
    ------
    InputError
        If an argument is out of range.

    Notes
    -----
    Source: theory.md S4, our derivation of a claim of Han & Zhong 2025, arXiv:2512.03915; the
    proof is the classical one for online gradient descent on strongly convex functions.
    """
    n_experts, k = sizes(n_experts, k)
    mu = real_number("modulus", modulus, positive=True)
    n0 = real_number("delay", delay, positive=False)
    distance = real_number("initial_distance", initial_distance, positive=False)
    steps = np.asarray(horizon)
    if steps.dtype.kind not in "iu" or steps.size == 0 or (steps < 1).any():
        raise InputError(f"`horizon` must be one or more integers that are at least 1, got {horizon!r}")
    if squared_gradient_bound is not None and np.ndim(squared_gradient_bound) > 0:
        weighted = _weighted_sum(squared_gradient_bound, steps, n0)
    else:
        squared = k * (1.0 - k / n_experts)
        if squared_gradient_bound is not None:
            squared = real_number("squared_gradient_bound", squared_gradient_bound, positive=False)
        weighted = squared * (digamma(steps + (n0 + 1.0)) - digamma(n0 + 1.0))
    bound = 0.5 * mu * n0 * distance**2 + weighted / (2.0 * mu)
    return float(bound) if steps.ndim == 0 else np.asarray(bound, dtype=np.float64)


def _weighted_sum(squared: ArrayLike, steps: Any, delay: float) -> Float64Array:
    """Sums of squared[n - 1]/(n + delay) up to each of ``steps``."""
    values = np.asarray(squared, dtype=np.float64)
    if values.ndim != 1 or values.size < steps.max():
        raise InputError(
            "`squared_gradient_bound` must be a number, or one for each of the steps 1 to "
            f"{steps.max()}, got shape {values.shape}"
        )
    if not np.isfinite(values).all() or (values < 0.0).any():
        raise InputError("`squared_gradient_bound` must be finite and at least 0")
    sums: Float64Array = np.cumsum(values / (np.arange(1.0, values.size + 1.0) + delay))[steps - 1]
    return sums


def sharp_slope(*, modulus: float, k: int, n_experts: int, n_tokens: int, multiple: float = 1.0) -> float:
    """Slope of the expected regret in ln N for exchangeable scores and steps multiple/(modulus n).

    Parameters
    ----------
    modulus : float
        mu(p*), in 1/score units.
    k, n_experts : int
        1 <= k < n_experts.
    n_tokens : int
        Tokens per batch.
    multiple : float
        c, the step in units of 1/mu, above 1/2.

    Returns
    -------
    float
        c^2/(2c - 1) * K(1 - K/E)/(2 mu T), score units per token; K(1 - K/E)/(2 mu T) at c = 1.

    Raises
    ------
    InputError
        If an argument is out of range, or ``multiple`` is at most 1/2: the regret is then a power of N (S8).

    Notes
    -----
    S7's sum of a^2 lambda s^2/(2 (2 a lambda - 1)) over the E - 1 directions that sum to zero,
    each with lambda = mu, a = c/mu and s^2 = K(1 - K/E)/(T (E - 1)). Source: Chung 1954, Fabian 1968; the
    application is ours.
    """
    n_experts, k = sizes(n_experts, k)
    tokens = check_int("n_tokens", n_tokens, 1)
    mu = real_number("modulus", modulus, positive=True)
    c = real_number("multiple", multiple, positive=True)
    if c <= 0.5:
        raise InputError(
            f"`multiple` must be above 1/2 for a logarithm, got {c}: the regret then grows like a power of N "
            "(power_exponent)"
        )
    total_variance = k * (1.0 - k / n_experts) / tokens
    return c * c / (2.0 * c - 1.0) * total_variance / (2.0 * mu)


def general_slope(hessian: ArrayLike, covariance: ArrayLike, *, n_tokens: int, step_size: float) -> float:
    """Slope of the expected regret in ln N for steps a/n, from the Hessian and the gradient's covariance.

    Parameters
    ----------
    hessian : (E, E) array_like
        H(p*), in 1/score units: symmetric, zero along the all-ones direction (theory.md S1).
    covariance : (E, E) array_like
        Of one token's gradient at p*, as `gradient_covariance` gives it.
    n_tokens : int
        Tokens per batch, T.
    step_size : float
        a, in score units: that of ``AlfLB(schedule="harmonic")``.

    Returns
    -------
    float
        Sum over the eigenpairs (lambda_i, v_i) of H on the zero-sum subspace of
        a^2 lambda_i s_i^2/(2 (2 a lambda_i - 1)), s_i^2 = v_i' Cov v_i/T; score units per token.

    Raises
    ------
    InputError
        If a matrix or number is out of range, or 2 a lambda_i <= 1 for some i: the regret is then a power
        of N (S8).

    Notes
    -----
    The two matrices need not commute: the off-diagonal terms of the covariance in H's eigenbasis drop
    out of the trace of H times the iterates' covariance. A delay changes nothing. Source: theory.md S7.
    """
    rates, variances = _directions(hessian, covariance, n_tokens)
    a = real_number("step_size", step_size, positive=True)
    least = float(rates.min())
    if 2.0 * a * least <= 1.0:
        raise InputError(
            f"`step_size` must exceed 1/(2 lambda_2) = {0.5 / least if least > 0.0 else np.inf:.6g} for a "
            f"logarithm, got {a}: the regret then grows like a power of N (power_exponent)"
        )
    return float(np.sum(a * a * rates * variances / (2.0 * (2.0 * a * rates - 1.0))))


def hindsight_gain(hessian: ArrayLike, covariance: ArrayLike, *, n_tokens: int) -> float:
    """What the best fixed bias in hindsight is expected to gain on p* over a whole run, per token.

    Parameters
    ----------
    hessian, covariance : (E, E) array_like
        As in `general_slope`; every direction that sums to zero needs curvature.
    n_tokens : int
        Tokens per batch, T.

    Returns
    -------
    float
        tr(H^+ Cov)/(2 T), score units: whatever the number of steps, for long runs. K(1 - K/E)/(2 mu T) for
        exchangeable scores. Along a run of N steps the gain grows linearly, n/N of it after n.

    Raises
    ------
    InputError
        If a matrix or number is out of range.

    Notes
    -----
    Source: theory.md S6 (ours).
    """
    rates, variances = _directions(hessian, covariance, n_tokens)
    if float(rates.min()) <= 0.0:
        raise InputError("`hessian` must be positive on vectors that sum to zero: nothing determines p* else")
    return 0.5 * float(np.sum(variances / rates))


def _directions(
    hessian: ArrayLike, covariance: ArrayLike, n_tokens: int
) -> tuple[Float64Array, Float64Array]:
    """Eigenvalues of H on the zero-sum subspace, and the batch gradient's variance along each eigenvector."""
    tokens = check_int("n_tokens", n_tokens, 1)
    curvature, spread = _matrix("hessian", hessian), _matrix("covariance", covariance)
    if curvature.shape != spread.shape:
        raise InputError(
            f"`covariance` must have the shape of `hessian`, {curvature.shape}, got {spread.shape}"
        )
    n_experts = len(curvature)
    # With the all-ones direction lifted above every other, it comes last.
    lift = 4.0 * float(np.abs(curvature).sum(axis=1).max()) + 1.0
    values, vectors = np.linalg.eigh(curvature + lift / n_experts)
    zero_sum = vectors[:, :-1]
    return values[:-1], np.einsum("ki,kj,ji->i", zero_sum, spread, zero_sum) / tokens


def _matrix(name: str, value: ArrayLike) -> Float64Array:
    """Return a symmetric matrix, symmetrised, whose rows sum to zero up to estimation's rounding."""
    matrix = np.asarray(value, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise InputError(f"`{name}` must be (E, E) with E >= 2, got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise InputError(f"`{name}` must be finite")
    size = float(np.abs(matrix).max())
    if float(np.abs(matrix - matrix.T).max()) > 1e-8 * size:
        raise InputError(f"`{name}` must be symmetric")
    rows = float(np.abs(matrix.sum(axis=1)).max())
    if rows > 1e-6 * size * len(matrix):
        raise InputError(f"`{name}` must have rows that sum to zero, got a row sum of {rows:.3g}")
    return 0.5 * (matrix + matrix.T)


def power_exponent(multiple: float) -> float:
    """Exponent 1 - 2c of the regret's growth in N for steps c/(mu n) that are too short.

    Parameters
    ----------
    multiple : float
        c, the step in units of 1/mu, with 0 < c < 1/2.

    Returns
    -------
    float
        The exponent, in (0, 1).

    Raises
    ------
    InputError
        Outside that range: from 1/2 on there is no such power (at 1/2 the regret grows like ln N squared).

    Notes
    -----
    Source: theory.md S8 (Chung 1954, Nemirovski et al. 2009, Moulines & Bach 2011; the application is ours).
    """
    c = real_number("multiple", multiple, positive=True)
    if c >= 0.5:
        raise InputError(
            f"`multiple` must be below 1/2 for a power law, got {c}: there is none from 1/2 on (S7)"
        )
    return 1.0 - 2.0 * c
