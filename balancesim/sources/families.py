"""Independent scores of the classical families; heavy tails are drawn from the tail itself."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from scipy import special

from balancesim.kernels import model as codes
from balancesim.numbers import check_positive
from balancesim.sources.base import DrawnSource, location_minimiser
from balancesim.types import Float64Array

if TYPE_CHECKING:
    from balancesim.kernels.model import ScoreModel


@dataclass(frozen=True, kw_only=True)
class IndependentSource(DrawnSource):
    """Scores that are independent over tokens and experts, identically distributed up to the offsets.

    Parameters
    ----------
    n_experts : int
        Number of experts, at least 2.
    seed : int, optional
        Key of all draws.
    offsets : (E,) sequence of float, "iqr" or None, optional
        Added to each expert's scores; "iqr" spaces them evenly over one interquartile range.
    scale : float, optional
        Factor on the noise, positive.
    transform : {"raw", "sigmoid", "softmax"}, optional
        What becomes of the sum of offset and noise.
    """

    family: ClassVar[int]

    @property
    def shape(self) -> float:
        """The family's parameter; 1 where it has none."""
        return 1.0

    @abstractmethod
    def noise_distribution(self) -> Any:
        """Return the frozen SciPy distribution of the standard noise."""

    def make_model(self) -> "ScoreModel":
        return self.build_model(self.family, shape=self.shape)

    def population_bias(self) -> Float64Array | None:
        """Minus the offsets, centred (raw scores), or zero where no expert is preferred; else None."""
        return location_minimiser(self.expert_offsets(), self.transform)

    def describe(self) -> str:
        after = "" if self.transform == "raw" else f", {self.transform}"
        return f"{type(self).__name__}{after}"


class Uniform(IndependentSource):
    """Uniform scores on [0, scale]."""

    name = "uniform"
    family = codes.UNIFORM

    def noise_distribution(self) -> Any:
        from scipy import stats

        return stats.uniform()


class Normal(IndependentSource):
    """Normal scores of mean 0 and standard deviation ``scale``."""

    name = "normal"
    family = codes.NORMAL

    def noise_distribution(self) -> Any:
        from scipy import stats

        return stats.norm()


class Logistic(IndependentSource):
    """Logistic scores."""

    name = "logistic"
    family = codes.LOGISTIC

    def noise_distribution(self) -> Any:
        from scipy import stats

        return stats.logistic()


class Gumbel(IndependentSource):
    """Gumbel (maximum) scores: with K = 1, the choice is softmax sampling."""

    name = "gumbel"
    family = codes.GUMBEL

    def noise_distribution(self) -> Any:
        from scipy import stats

        return stats.gumbel_r()


class Exponential(IndependentSource):
    """Exponential scores of mean ``scale``."""

    name = "exponential"
    family = codes.EXPONENTIAL

    def noise_distribution(self) -> Any:
        from scipy import stats

        return stats.expon()


class Cauchy(IndependentSource):
    """Cauchy scores: no mean."""

    name = "cauchy"
    family = codes.CAUCHY

    def noise_distribution(self) -> Any:
        from scipy import stats

        return stats.cauchy()

    def exceedance(self, magnitude: float) -> float:
        return 2.0 / (math.pi * magnitude)


@dataclass(frozen=True, kw_only=True)
class StudentT(IndependentSource):
    """Student t scores.

    Parameters
    ----------
    n_experts : int
        Number of experts, at least 2.
    degrees : float
        Degrees of freedom, positive: the tail index.
    seed : int, optional
        Key of all draws.
    offsets : (E,) sequence of float, "iqr" or None, optional
        Added to each expert's scores; "iqr" spaces them evenly over one interquartile range.
    scale : float, optional
        Factor on the noise, positive.
    transform : {"raw", "sigmoid", "softmax"}, optional
        What becomes of the sum of offset and noise.
    """

    name = "student-t"
    family = codes.STUDENT_T
    degrees: float = 2.0

    def __post_init__(self) -> None:
        check_positive("degrees", self.degrees)
        super().__post_init__()

    @property
    def shape(self) -> float:
        return self.degrees

    def noise_distribution(self) -> Any:
        from scipy import stats

        return stats.t(self.degrees)

    def exceedance(self, magnitude: float) -> float:
        return 2.0 * float(special.stdtr(self.degrees, -magnitude))

    def describe(self) -> str:
        return f"{super().describe()} ({self.degrees:g} degrees)"


@dataclass(frozen=True, kw_only=True)
class LogNormal(IndependentSource):
    """Log-normal scores, exp(sigma z).

    Parameters
    ----------
    n_experts : int
        Number of experts, at least 2.
    sigma : float
        Standard deviation of the logarithm, positive.
    seed : int, optional
        Key of all draws.
    offsets : (E,) sequence of float, "iqr" or None, optional
        Added to each expert's scores; "iqr" spaces them evenly over one interquartile range.
    scale : float, optional
        Factor on the noise, positive.
    transform : {"raw", "sigmoid", "softmax"}, optional
        What becomes of the sum of offset and noise.
    """

    name = "log-normal"
    family = codes.LOG_NORMAL
    sigma: float = 1.0

    def __post_init__(self) -> None:
        check_positive("sigma", self.sigma)
        super().__post_init__()

    @property
    def shape(self) -> float:
        return self.sigma

    def noise_distribution(self) -> Any:
        from scipy import stats

        return stats.lognorm(self.sigma)

    def exceedance(self, magnitude: float) -> float:
        return float(special.ndtr(-math.log(magnitude) / self.sigma))

    def describe(self) -> str:
        return f"{super().describe()} (sigma {self.sigma:g})"


@dataclass(frozen=True, kw_only=True)
class Pareto(IndependentSource):
    """Pareto scores of minimum ``scale``: P(score > x) = (x / scale)^-a.

    Parameters
    ----------
    n_experts : int
        Number of experts, at least 2.
    tail_index : float
        The index a, positive; the mean is infinite for a <= 1.
    seed : int, optional
        Key of all draws.
    offsets : (E,) sequence of float, "iqr" or None, optional
        Added to each expert's scores; "iqr" spaces them evenly over one interquartile range.
    scale : float, optional
        Factor on the noise, positive.
    transform : {"raw", "sigmoid", "softmax"}, optional
        What becomes of the sum of offset and noise.
    """

    name = "pareto"
    family = codes.PARETO
    tail_index: float = 1.5

    def __post_init__(self) -> None:
        check_positive("tail_index", self.tail_index)
        super().__post_init__()

    @property
    def shape(self) -> float:
        return self.tail_index

    def noise_distribution(self) -> Any:
        from scipy import stats

        return stats.pareto(self.tail_index)

    def exceedance(self, magnitude: float) -> float:
        return magnitude**-self.tail_index if magnitude > 1.0 else 1.0

    def height(self) -> float:
        return max(1.0, self.tail_index)

    def describe(self) -> str:
        return f"{super().describe()} (index {self.tail_index:g})"


NOISES: dict[str, type[IndependentSource]] = {
    family.name: family for family in (Uniform, Normal, Logistic, Gumbel, Exponential, Cauchy)
}
"""Families without a parameter, which other sources take by name as their noise."""
