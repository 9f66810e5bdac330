"""Scores with structure: correlated experts, clustered tokens, offsets that drift."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from balancesim.errors import InputError
from balancesim.numbers import check_int, is_number
from balancesim.sources.base import DrawnSource, alias_table, check_choice
from balancesim.sources.families import NOISES, IndependentSource, Normal
from balancesim.types import Float64Array

if TYPE_CHECKING:
    from balancesim.kernels.model import ScoreModel


@dataclass(frozen=True, kw_only=True)
class NoisySource(DrawnSource):
    """A drawn source whose independent part is a parameterless family, by name.

    Parameters
    ----------
    n_experts : int
        Number of experts, at least 2.
    noise : {"normal", "gumbel", "logistic", "uniform", "exponential", "cauchy"}, optional
        Family of the independent part.
    seed : int, optional
        Key of all draws.
    offsets : (E,) sequence of float, "iqr" or None, optional
        Added to each expert's scores; "iqr" spaces them evenly over one interquartile range of the noise.
    scale : float, optional
        Factor on the noise, positive.
    transform : {"raw", "sigmoid", "softmax"}, optional
        What becomes of the sum of offset, structure and noise.
    """

    noise: str = "normal"

    def __post_init__(self) -> None:
        check_choice("noise", self.noise, tuple(NOISES))
        super().__post_init__()

    @cached_property
    def noise_source(self) -> IndependentSource:
        """The independent part as a source of its own."""
        return NOISES[self.noise](n_experts=self.n_experts, seed=self.seed, scale=self.scale)

    def noise_quartiles(self) -> tuple[float, float]:
        return self.noise_source.noise_quartiles()

    def exceedance(self, magnitude: float) -> float:
        return self.noise_source.exceedance(magnitude)


def _check_share(name: str, value: float) -> None:
    if not (is_number(value) and 0.0 <= value <= 1.0):
        raise InputError(f"`{name}` must lie in [0, 1], got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Factor(NoisySource):
    """Correlated experts: each token has a few normal factors that all experts' scores share.

    scores = offsets + scale (sqrt(strength) W f + sqrt(1 - strength) z), the rows of W of unit length.

    Parameters
    ----------
    n_experts : int
        Number of experts, at least 2.
    n_factors : int, optional
        Number of factors.
    strength : float, optional
        Share of the variance that the factors carry, in [0, 1] (of unit-variance noise).
    structure_seed : int, optional
        Seed of W, apart from the seed of the draws: the population stays the same over seeds.
    noise : str, optional
        Family of the independent part, "normal" by default.
    seed : int, optional
        Key of all draws.
    offsets : (E,) sequence of float, "iqr" or None, optional
        Added to each expert's scores; "iqr" spaces them evenly over one interquartile range of the noise.
    scale : float, optional
        Factor on scores before the offsets, positive.
    transform : {"raw", "sigmoid", "softmax"}, optional
        What becomes of the sum.
    """

    name = "factor"
    n_factors: int = 4
    strength: float = 0.5
    structure_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("n_factors", self.n_factors, 1)
        check_int("structure_seed", self.structure_seed, 0)
        _check_share("strength", self.strength)

    def make_model(self) -> "ScoreModel":
        directions = Normal(n_experts=self.n_factors + self.n_factors % 2, seed=self.structure_seed)
        weights = directions.batch(0, self.n_experts)[:, : self.n_factors].astype(np.float64)
        weights *= self.scale * math.sqrt(self.strength) / np.linalg.norm(weights, axis=1, keepdims=True)
        return self.build_model(
            self.noise_source.family, scale=self.scale * math.sqrt(1.0 - self.strength), loadings=weights
        )

    def describe(self) -> str:
        return f"Factor ({self.n_factors} factors, strength {self.strength:g})"


@dataclass(frozen=True, kw_only=True)
class Clustered(NoisySource):
    """Clustered tokens: each token belongs to a cluster with its own expected scores.

    scores = offsets + scale (sqrt(strength) centre[cluster] + sqrt(1 - strength) z), normal centres.

    Parameters
    ----------
    n_experts : int
        Number of experts, at least 2.
    n_clusters : int, optional
        Number of clusters.
    strength : float, optional
        Share of the variance that the cluster carries, in [0, 1] (of unit-variance noise).
    zipf : float, optional
        Cluster frequencies fall like rank^-zipf; 0 makes them equal.
    structure_seed : int, optional
        Seed of the centres, apart from the seed of the draws: the population stays the same over seeds.
    noise : str, optional
        Family of the independent part, "normal" by default.
    seed : int, optional
        Key of all draws.
    offsets : (E,) sequence of float, "iqr" or None, optional
        Added to each expert's scores; "iqr" spaces them evenly over one interquartile range of the noise.
    scale : float, optional
        Factor on scores before the offsets, positive.
    transform : {"raw", "sigmoid", "softmax"}, optional
        What becomes of the sum.
    """

    name = "clustered"
    n_clusters: int = 32
    strength: float = 0.5
    zipf: float = 1.0
    structure_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("n_clusters", self.n_clusters, 1)
        check_int("structure_seed", self.structure_seed, 0)
        _check_share("strength", self.strength)
        if not (is_number(self.zipf) and 0.0 <= self.zipf < math.inf):
            raise InputError(f"`zipf` must be finite and at least 0, got {self.zipf!r}")

    def make_model(self) -> "ScoreModel":
        centres = Normal(n_experts=self.n_experts, seed=self.structure_seed).batch(0, self.n_clusters)
        table = centres.astype(np.float64) * (self.scale * math.sqrt(self.strength))
        return self.build_model(
            self.noise_source.family,
            scale=self.scale * math.sqrt(1.0 - self.strength),
            table=table,
            phase_row=(0, self.n_clusters),
            aliases=[alias_table(np.arange(1.0, self.n_clusters + 1.0) ** -self.zipf)],
        )

    def describe(self) -> str:
        return f"Clustered ({self.n_clusters} clusters, strength {self.strength:g})"


@dataclass(frozen=True, kw_only=True)
class Drifting(NoisySource):
    """Offsets that move: a Gaussian random walk, sudden switches, or both.

    Parameters
    ----------
    n_experts : int
        Number of experts, at least 2.
    walk_rate : float, optional
        Standard deviation of one step of each offset's walk, in units of ``scale``. The walk is a Brownian
        bridge over 2^32 steps, so that any step is found without replaying those before it.
    switch_at : int or sequence of int, optional
        Steps, ascending, at which the fixed offsets are reversed over the experts: the most wanted expert
        becomes the least wanted.
    noise : str, optional
        Family of the independent part, "normal" by default.
    seed : int, optional
        Key of all draws and of the walk.
    offsets : (E,) sequence of float, "iqr" or None, optional
        The fixed offsets; needed with ``switch_at``.
    scale : float, optional
        Factor on the noise and the walk, positive.
    transform : {"raw", "sigmoid", "softmax"}, optional
        What becomes of the sum.
    """

    name = "drifting"
    walk_rate: float = 0.01
    switch_at: int | Sequence[int] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.walk_rate) and 0.0 <= self.walk_rate < math.inf):
            raise InputError(f"`walk_rate` must be finite and at least 0, got {self.walk_rate!r}")
        steps = tuple(self.switch_at) if isinstance(self.switch_at, Sequence) else (self.switch_at,)
        if any(
            check_int("switch_at", step, 1) <= before
            for before, step in zip((0, *steps), steps, strict=False)
        ):
            raise InputError(f"`switch_at` must be ascending steps of at least 1, got {steps}")
        if steps and self.offsets is None:
            raise InputError('`switch_at` reverses the offsets and needs some: set `offsets`, e.g. to "iqr"')
        object.__setattr__(self, "switch_at", steps)

    def make_model(self) -> "ScoreModel":
        offsets = self.expert_offsets()
        starts: tuple[int, ...] = (0, *self._switches)
        return self.build_model(
            self.noise_source.family,
            offsets=np.array([offsets if i % 2 == 0 else offsets[::-1] for i in range(len(starts))]),
            phase_start=starts,
            walk_rate=self.walk_rate * self.scale,
        )

    @property
    def _switches(self) -> tuple[int, ...]:
        return () if isinstance(self.switch_at, int) else tuple(self.switch_at)

    def population_bias(self) -> Float64Array | None:
        """Known only where nothing moves."""
        if self.walk_rate > 0.0 or self._switches:
            return None
        fixed: Any = NOISES[self.noise]
        known: Float64Array | None = fixed(
            n_experts=self.n_experts, offsets=self.offsets, scale=self.scale, transform=self.transform
        ).population_bias()
        return known

    def describe(self) -> str:
        parts = [f"walk {self.walk_rate:g}"] if self.walk_rate > 0.0 else []
        parts += [f"switch at {', '.join(map(str, self._switches))}"] if self._switches else []
        return f"Drifting ({'; '.join(parts) or 'still'})"
