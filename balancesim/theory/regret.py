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
    squared_gradient_bound: float | None = None,
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
    squared_gradient_bound: float | None = None,
    delay: float = 0,
    initial_distance: float = 0.0,
) -> Float64Array: ...


def regret_bound(
    *,
    modulus: float,
    k: int,
    n_experts: int,
    horizon: Any,
    squared_gradient_bound: float | None = None,
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
    squared_gradient_bound : float, optional
        Bound on E|g_n|^2, g the violation per token. Default K(1 - K/E), which always holds; near balance
        K(1 - K/E)/T + |mean violation|^2 is smaller.
    delay : float
        S4's n0 >= 0.
    initial_distance : float
        Euclidean distance of the first bias from p*, score units. It counts only with a delay.

    Returns
    -------
    float or array of the shape of ``horizon``
        In score units: (mu n0/2) |p_1 - p*|^2 + G^2/(2 mu) * sum of 1/(n + n0) for n = 1..N, the sum to
        rounding.

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
    squared = k * (1.0 - k / n_experts)
    if squared_gradient_bound is not None:
        squared = real_number("squared_gradient_bound", squared_gradient_bound, positive=False)
    steps = np.asarray(horizon)
    if steps.dtype.kind not in "iu" or steps.size == 0 or (steps < 1).any():
        raise InputError(f"`horizon` must be one or more integers that are at least 1, got {horizon!r}")
    harmonic = digamma(steps + (n0 + 1.0)) - digamma(n0 + 1.0)
    bound = 0.5 * mu * n0 * distance**2 + squared / (2.0 * mu) * harmonic
    return float(bound) if steps.ndim == 0 else np.asarray(bound, dtype=np.float64)


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
