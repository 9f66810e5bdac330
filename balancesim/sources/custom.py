"""Distributions of one's own: any SciPy distribution, any function of uniforms."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy import special

from balancesim.errors import InputError
from balancesim.numbers import check_int, check_positive
from balancesim.rng import check_seed, philox_key
from balancesim.sources.base import (
    HEADROOM,
    OVERFLOW_PROBABILITY,
    TRANSFORMS,
    Source,
    Transform,
    check_choice,
    check_step,
    location_minimiser,
    set_offsets,
)
from balancesim.types import Float64Array, FloatArray


def _uniforms(seed: int, step: int, n_tokens: int, n_experts: int) -> tuple[Float64Array, Float64Array]:
    """Counter-based uniforms and their complements, (T, E); each is precise where it is small."""
    from balancesim.kernels.scores import draw_uniforms

    key0, key1 = philox_key(seed)
    uniform = np.empty((check_int("n_tokens", n_tokens, 1), n_experts))
    complement = np.empty_like(uniform)
    draw_uniforms(np.uint64(key0), np.uint64(key1), check_step(step), uniform, complement)
    return uniform, complement


@dataclass(frozen=True, kw_only=True)
class _MappedSource(Source):
    """A source that maps uniforms to scores in Python; slower than those that kernels draw."""

    n_experts: int
    seed: int = 0
    offsets: Sequence[float] | None = None
    scale: float = 1.0
    transform: Transform = "raw"

    def __post_init__(self) -> None:
        check_int("n_experts", self.n_experts, 2)
        check_seed(self.seed)
        check_positive("scale", self.scale)
        check_choice("transform", self.transform, TRANSFORMS)
        if self.offsets is not None:
            set_offsets(self, "offsets", self.offsets)

    def with_seed(self, seed: int) -> Self:
        return dataclasses.replace(self, seed=seed)

    def expert_offsets(self) -> Float64Array:
        """The offsets as numbers, (E,)."""
        return np.zeros(self.n_experts) if self.offsets is None else np.array(self.offsets, dtype=np.float64)

    def _finish(self, noise: Float64Array, dtype: Any) -> FloatArray:
        scores = self.expert_offsets() + self.scale * noise
        masked = scores == -np.inf
        if self.transform == "sigmoid":
            scores = special.expit(scores)
        elif self.transform == "softmax":
            scores = special.softmax(scores, axis=1)
        scores[masked] = -np.inf
        finished: FloatArray = scores.astype(dtype)
        return finished


@dataclass(frozen=True)
class FromScipy(_MappedSource):
    """I.i.d. scores from any frozen SciPy distribution, by inversion from either tail.

    Draws in Python, so a run costs what the distribution's quantile function costs.

    Parameters
    ----------
    distribution : frozen scipy.stats distribution
        Distribution of the standard noise.
    n_experts : int
        Number of experts, at least 2.
    seed : int, optional
        Key of all draws.
    offsets : (E,) sequence of float, optional
        Added to each expert's scores.
    scale : float, optional
        Factor on what is drawn, positive.
    transform : {"raw", "sigmoid", "softmax"}, optional
        What becomes of the sum of offset and noise.
    """

    name = "scipy"
    distribution: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        missing = [method for method in ("ppf", "isf", "sf", "cdf") if not hasattr(self.distribution, method)]
        if missing:
            raise InputError(
                f"`distribution` must be a frozen scipy.stats distribution, got {self.distribution!r} "
                f"without {', '.join(missing)}; call e.g. FromScipy(scipy.stats.genpareto(0.5), n_experts=8)"
            )

    def batch(self, step: int, n_tokens: int) -> FloatArray:
        uniform, complement = _uniforms(self.seed, step, n_tokens, self.n_experts)
        noise = np.where(
            uniform < 0.5,
            self.distribution.ppf(np.minimum(uniform, 0.5)),
            self.distribution.isf(np.minimum(complement, 0.5)),
        )
        return self._finish(noise, self.dtype)

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32, or float64 where float32 would overflow with probability above 1e-12."""
        limit = float(np.finfo(np.float32).max) * HEADROOM / self.scale
        exceedance = float(self.distribution.sf(limit) + self.distribution.cdf(-limit))
        return np.dtype(np.float64 if exceedance > OVERFLOW_PROBABILITY else np.float32)

    def noise_distribution(self) -> Any:
        return self.distribution

    def population_bias(self) -> Float64Array | None:
        return location_minimiser(self.expert_offsets(), self.transform)

    def describe(self) -> str:
        kind = getattr(self.distribution, "dist", None)
        return f"SciPy {getattr(kind, 'name', type(self.distribution).__name__)}"


@dataclass(frozen=True)
class FromFunction(_MappedSource):
    """Scores from a function of uniforms; draws in Python and routes in float64.

    Parameters
    ----------
    function : callable
        Maps (T, E) float64 uniforms in (0, 1) to (T, E) scores, each token (row) on its own; experts may
        depend on each other.
    n_experts : int
        Number of experts, at least 2.
    seed : int, optional
        Key of all draws.
    offsets : (E,) sequence of float, optional
        Added to each expert's scores.
    scale : float, optional
        Factor on what is drawn, positive.
    transform : {"raw", "sigmoid", "softmax"}, optional
        What becomes of the sum of offset and noise.
    """

    name = "function"
    function: Callable[[Float64Array], Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = self.batch(0, 5)
        if not np.array_equal(whole[:3], self.batch(0, 3)):
            raise InputError(
                "`function` must treat each token on its own: its first 3 rows changed when 2 more were added"
            )

    def batch(self, step: int, n_tokens: int) -> FloatArray:
        uniform, _ = _uniforms(self.seed, step, n_tokens, self.n_experts)
        noise = np.asarray(self.function(uniform), dtype=np.float64)
        if noise.shape != uniform.shape:
            raise InputError(
                f"`function` must return an array of its argument's shape, {uniform.shape}, got {noise.shape}"
            )
        if np.isnan(noise).any() or (noise == math.inf).any():
            raise InputError(
                "`function` must return finite scores (or minus infinity as a mask), got NaN or inf"
            )
        return self._finish(noise, np.float64)

    def describe(self) -> str:
        return f"function {getattr(self.function, '__name__', type(self.function).__name__)}"
