"""The stochastic gradient at a bias: its covariance, and what its mean square is at most (S4, S7)."""

import numpy as np
from numpy.typing import ArrayLike

from balancesim.errors import InputError
from balancesim.numbers import check_int
from balancesim.routing import route
from balancesim.sources import Source
from balancesim.theory.arguments import centred_bias, check_source, sizes
from balancesim.theory.curvature import noise_of, transform_of
from balancesim.types import Float64Array

_SAMPLE_TOKENS = 65_536
_BATCH_TOKENS = 4096
_MIN_TOKENS = 1024


def gradient_covariance(
    source: Source, k: int = 2, bias: ArrayLike | None = None, *, n_samples: int = _SAMPLE_TOKENS
) -> Float64Array:
    """Covariance of the gradient g of one token, at a bias.

    Parameters
    ----------
    source : Source
        Tokens independent of each other; a batch of T of them has 1/T of this covariance.
    k : int, optional
        Experts per token, 1 <= k < E.
    bias : (E,) array_like, optional
        In score units; default: the source's population minimiser p*.
    n_samples : int, optional
        Tokens counted, at least 1024, where the covariance is not known; from the source's steps 0, 1, ...

    Returns
    -------
    (E, E) ndarray of float64
        Without a unit; rows sum to zero. Exact, K(1 - K/E)/(E - 1) (I - 11'/E), for a source whose experts
        are exchangeable at p* by declaration (independent and alike up to offsets, transform "raw") and no
        ``bias``; else the sample covariance of the tokens' choices, whose entries have standard errors of
        about K/(E sqrt(n_samples)).

    Raises
    ------
    InputError
        If an argument is out of range, ``source`` is an array, p* is not known and no bias is given, or a
        recording is shorter than 1024 tokens.

    Notes
    -----
    The trace is K - |share|^2, share_k the probability that a token chooses expert k: K(1 - K/E) at balance
    and less elsewhere. Source: theory.md S4, S7. The cost is that of routing ``n_samples`` tokens and E^2
    products for each.
    """
    check_source(source)
    n_experts, k = sizes(source.n_experts, k)
    n_tokens = check_int("n_samples", n_samples, _MIN_TOKENS)
    if bias is None and _is_exchangeable(source):
        scale = k * (1.0 - k / n_experts) / (n_experts - 1)
        return scale * (np.eye(n_experts) - 1.0 / n_experts)
    place = source.population_bias() if bias is None else bias
    if place is None:
        raise InputError("`bias` must be given: this source's population minimiser is not known")
    price = centred_bias(place, n_experts)
    available = source.n_steps(1)
    if available is not None and available < n_tokens:
        if available < _MIN_TOKENS:
            raise InputError(
                f"`source` holds {available} tokens; a covariance needs {_MIN_TOKENS} at least: record more"
            )
        n_tokens = available
    size = min(_BATCH_TOKENS, n_tokens)
    n_batches = n_tokens // size
    products, total = np.zeros((n_experts, n_experts)), np.zeros(n_experts)
    for step in range(n_batches):
        scores = np.asarray(source.batch(step, size))
        experts = route(scores, price.astype(scores.dtype), k=k, experts=True).experts
        chosen = np.zeros((size, n_experts))
        np.put_along_axis(chosen, np.asarray(experts), 1.0, axis=1)
        products += chosen.T @ chosen
        total += chosen.sum(axis=0)
    n = n_batches * size
    share = total / n
    found: Float64Array = (products / n - np.outer(share, share)) * (n / (n - 1))
    return found


def squared_gradient_bound(expected_loads: ArrayLike, *, k: int, n_tokens: int) -> Float64Array:
    """Bound on E|g|^2 of a batch, from the loads that a bias is expected to cause.

    Parameters
    ----------
    expected_loads : (..., E) array_like
        E A/T, the probability that a token chooses each expert; sums to K.
    k : int
        Experts per token, 1 <= k < E.
    n_tokens : int
        Tokens per batch, T, independent of each other.

    Returns
    -------
    (...) ndarray of float64
        |E A/T - K/E|^2 + K(1 - K/E)/T, without a unit: S4's measured form. Its average over a run's biases
        may be given to `regret_bound`, one number a step.

    Raises
    ------
    InputError
        If a size is out of range, a load lies outside [0, 1], or the loads do not sum to K within 1e-6.
    """
    loads = np.asarray(expected_loads, dtype=np.float64)
    if loads.ndim == 0:
        raise InputError("`expected_loads` must have one entry per expert, got a number")
    n_experts, k = sizes(loads.shape[-1], k)
    tokens = check_int("n_tokens", n_tokens, 1)
    if not ((loads >= 0.0) & (loads <= 1.0)).all():
        raise InputError("`expected_loads` must be probabilities, between 0 and 1: loads divided by T")
    worst = float(np.abs(loads.sum(axis=-1) - k).max(initial=0.0))
    if worst > 1e-6 * k:
        raise InputError(f"`expected_loads` must sum to k = {k}, got a sum that is {worst:.3g} away")
    share = k / n_experts
    return np.asarray(((loads - share) ** 2).sum(axis=-1) + k * (1.0 - share) / tokens)


def _is_exchangeable(source: Source) -> bool:
    """Whether the source declares independent scores that are alike up to offsets, and p* undoes these."""
    declared = noise_of(source) is not None and transform_of(source) == "raw"
    return declared and source.population_bias() is not None
