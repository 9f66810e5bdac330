"""Potentials of phi-balancing: convex functions of the experts' shares that are least where all are equal."""

import math
from abc import ABC
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from balancesim.errors import InputError, unknown_name
from balancesim.kernels import potentials as kernels
from balancesim.numbers import is_number
from balancesim.types import Float64Array

__all__ = ["LogBarrier", "NegativeEntropy", "PNorm", "Potential", "SquaredNorm", "Tsallis", "named"]


class Potential(ABC):
    """A strictly convex, symmetric phi(m) = sum_k f(m_k) of loads or shares m >= 0 (P1-P3).

    The five potentials are all there are: compiled rules know them by `code` and `parameter`. Values at zero
    are limits; each class states them. The conjugate is the largest <v, m> - phi(m) over m >= 0, so that
    below f'(0) it does not see v.
    """

    code: ClassVar[int]
    """What compiled functions know the potential by (`balancesim.kernels.potentials`)."""

    name: ClassVar[str]
    """The name in configurations."""

    @property
    def parameter(self) -> float:
        """The exponent; 0 where there is none."""
        return 0.0

    @property
    def ceiling(self) -> float:
        """The supremum of f', infinite for most: the conjugate is finite for v below it."""
        return math.inf

    def value(self, m: ArrayLike) -> float:
        """Return phi(m).

        Parameters
        ----------
        m : (E,) array_like
            Finite and at least zero.

        Returns
        -------
        float

        Raises
        ------
        InputError
            For a point off the domain.
        """
        return float(kernels.value_of(self.code, self.parameter, self._point("m", m)))

    def gradient(self, m: ArrayLike) -> Float64Array:
        """Return v = grad phi(m), (E,); the arguments and errors are those of `value`."""
        point = self._point("m", m)
        found = np.empty_like(point)
        kernels.write_gradient(self.code, self.parameter, point, found)
        return found

    def curvature(self, m: ArrayLike) -> Float64Array:
        """Return the diagonal of the Hessian at m, (E,), all there is; arguments and errors as `value`."""
        point = self._point("m", m)
        found = np.empty_like(point)
        kernels.write_curvature(self.code, self.parameter, point, found)
        return found

    def conjugate(self, v: ArrayLike) -> float:
        """Return phi*(v), the largest <v, m> - phi(m) over m >= 0 (P2).

        Parameters
        ----------
        v : (E,) array_like
            Below `ceiling`; minus infinity, the gradient at zero of some, is allowed.

        Returns
        -------
        float

        Raises
        ------
        InputError
            For a point off the domain.
        """
        return float(kernels.conjugate_of(self.code, self.parameter, self._point("v", v)))

    def conjugate_gradient(self, v: ArrayLike) -> Float64Array:
        """Return the m >= 0 at which that is reached, (E,); arguments and errors as `conjugate`.

        The inverse of `gradient`.
        """
        point = self._point("v", v)
        found = np.empty_like(point)
        kernels.write_conjugate_gradient(self.code, self.parameter, point, found)
        return found

    def divergence(self, a: ArrayLike, b: ArrayLike) -> float:
        """Return the Bregman divergence phi(a) - phi(b) - <grad phi(b), a - b>, at least zero.

        Parameters
        ----------
        a, b : (E,) array_like
            Finite and at least zero.

        Returns
        -------
        float
            Infinite where the gradient at b, or phi at a, is. Computed without subtracting near-equal values:
            its relative error is a few units in the last place however close a is to b.

        Raises
        ------
        InputError
            For a point off the domain, or lengths that differ.
        """
        first, second = self._point("a", a), self._point("b", b)
        if first.size != second.size:
            raise InputError(f"`a` and `b` must have the same length, got {first.size} and {second.size}")
        return float(kernels.divergence_of(self.code, self.parameter, first, second))

    def _point(self, name: str, values: Any) -> Float64Array:
        """A point as kernels take it, checked against the domain."""
        try:
            point = np.ascontiguousarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            raise InputError(
                f"{self.name}: `{name}` must be numbers, one per expert, got {values!r}"
            ) from None
        if point.ndim != 1:
            raise InputError(f"{self.name}: `{name}` must have shape (E,), got {point.shape}")
        if name == "v":
            inside = point < self.ceiling
            rule = f"be below {self.ceiling:g}, where its conjugate is finite"
        else:
            inside = (point >= 0.0) & (point < np.inf)
            rule = "be finite and at least 0"
        if not inside.all():
            expert = int(np.argmin(inside))
            raise InputError(
                f"{self.name}: `{name}` must {rule}, got {float(point[expert])!r} at expert {expert}"
            )
        return point


@dataclass(frozen=True)
class NegativeEntropy(Potential):
    """phi(m) = sum m ln m, v = 1 + ln m; phi*(v) = sum exp(v - 1).

    At a load of zero phi is 0 and v minus infinity. The conjugate overflows to infinity from v = 710.8 on.
    """

    code = kernels.NEGATIVE_ENTROPY
    name = "negative_entropy"


@dataclass(frozen=True)
class SquaredNorm(Potential):
    """phi(m) = sum m^2 / 2, v = m; phi*(v) = sum max(v, 0)^2 / 2.

    At a load of zero phi and v are 0.
    """

    code = kernels.SQUARED_NORM
    name = "squared_norm"


@dataclass(frozen=True)
class PNorm(Potential):
    """phi(m) = sum m^p / p, v = m^(p - 1); phi*(v) = sum max(v, 0)^r / r with 1/p + 1/r = 1.

    At a load of zero phi and v are 0. p = 2 is `SquaredNorm`.

    Parameters
    ----------
    p : float
        The exponent, above 1.
    """

    code = kernels.P_NORM
    name = "p_norm"
    p: float

    def __post_init__(self) -> None:
        if not (is_number(self.p) and 1.0 < self.p < math.inf):
            raise InputError(f"`p` of a p-norm must be a finite number above 1, got {self.p!r}")

    @property
    def parameter(self) -> float:
        """The exponent."""
        return float(self.p)


@dataclass(frozen=True)
class Tsallis(Potential):
    """phi(m) = sum (m^q - m)/(q - 1), v = (q m^(q - 1) - 1)/(q - 1); phi*(v) = sum m^q at that m.

    The negative of Tsallis' entropy; q to 1 is `NegativeEntropy` less the sum of m. At a load of zero phi is
    0, and v is -1/(q - 1) for q > 1 but minus infinity for q < 1; then v stays below 1/(1 - q).

    Parameters
    ----------
    q : float
        The exponent, above 0 and not 1.
    """

    code = kernels.TSALLIS
    name = "tsallis"
    q: float

    def __post_init__(self) -> None:
        if not (is_number(self.q) and 0.0 < self.q < math.inf and self.q != 1.0):
            raise InputError(
                f"`q` of Tsallis' potential must be a finite number above 0, got {self.q!r}"
                + ("; at q = 1 it is the negative entropy" if is_number(self.q) and self.q == 1.0 else "")
            )

    @property
    def parameter(self) -> float:
        """The exponent."""
        return float(self.q)

    @property
    def ceiling(self) -> float:
        """1/(1 - q) for q < 1."""
        return 1.0 / (1.0 - self.q) if self.q < 1.0 else math.inf


@dataclass(frozen=True)
class LogBarrier(Potential):
    """phi(m) = -sum ln m, v = -1/m; phi*(v) = -E - sum ln(-v), for v < 0.

    At a load of zero phi is infinite and v minus infinity.
    """

    code = kernels.LOG_BARRIER
    name = "log_barrier"

    @property
    def ceiling(self) -> float:
        """Zero."""
        return 0.0


_WITH_POWER: dict[str, type[PNorm | Tsallis]] = {kind.name: kind for kind in (PNorm, Tsallis)}
_WITHOUT: dict[str, type[Potential]] = {
    kind.name: kind for kind in (NegativeEntropy, SquaredNorm, LogBarrier)
}


def named(name: str, power: float | None = None) -> Potential:
    """Return the potential of a name.

    Parameters
    ----------
    name : {"negative_entropy", "squared_norm", "p_norm", "tsallis", "log_barrier"}
        Which.
    power : float, optional
        The exponent of "p_norm" and "tsallis"; the others take none.

    Returns
    -------
    Potential

    Raises
    ------
    InputError
        For an unknown name, or an exponent that is missing, out of range or too many.
    """
    if name in _WITH_POWER:
        if power is None:
            raise InputError(f'`power` must be given for the potential "{name}", its exponent')
        return _WITH_POWER[name](power)
    if name not in _WITHOUT:
        raise InputError(f"`potential`: {unknown_name('potential', str(name), {**_WITH_POWER, **_WITHOUT})}")
    if power is not None:
        raise InputError(
            f'`power` must be left out for the potential "{name}", which has none, got {power!r}'
        )
    return _WITHOUT[name]()
