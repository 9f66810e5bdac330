"""One trial of a statement: a number, the range that the statement allows it, and what follows."""

import math
from dataclasses import dataclass
from enum import StrEnum

from balancesim.errors import InputError


class Verdict(StrEnum):
    """What a trial, or all trials of a statement, say of it."""

    HOLDS = "holds"
    FAILS = "fails"
    UNMET = "hypothesis not met"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Case:
    """A statement tried on one instance, or on one family of instances.

    Attributes
    ----------
    instance : str
        What it was tried on, such as ``"pareto 0.8, E=16, K=2"``.
    quantity : str
        What was measured, with its unit where it has one.
    value : float
        What was found.
    low, high : float
        Interval of the quantity where it is random; both are ``value`` where it is not.
    least, most : float
        What the statement allows; infinite where it does not say.
    unmet : str or None
        The hypothesis that the instance does not meet; None where it meets them all.
    control : str or None
        What was taken away or turned round in a negative control, which must fail; None for the statement.
    decide : str
        What would decide the case if it is inconclusive.
    """

    instance: str
    quantity: str
    value: float
    low: float
    high: float
    least: float
    most: float
    unmet: str | None = None
    control: str | None = None
    decide: str = ""

    def __post_init__(self) -> None:
        if self.least > self.most:
            raise InputError(f"`least` must not exceed `most`, got {self.least!r} and {self.most!r}")
        if self.low > self.high:
            raise InputError(f"`low` must not exceed `high`, got {self.low!r} and {self.high!r}")

    @property
    def verdict(self) -> Verdict:
        """Where the interval lies: inside what is allowed, outside, or across an end.

        NaN, in the value or at an end of its interval, fails a statement and leaves a control undecided: a
        control must fail by a number, which infinity is.
        """
        if self.unmet is not None:
            return Verdict.UNMET
        if any(math.isnan(number) for number in (self.value, self.low, self.high)):
            return Verdict.FAILS if self.control is None else Verdict.INCONCLUSIVE
        if self.least <= self.low and self.high <= self.most:
            return Verdict.HOLDS
        if self.high < self.least or self.low > self.most:
            return Verdict.FAILS
        return Verdict.INCONCLUSIVE

    @property
    def margin(self) -> float:
        """Room between the interval and the nearest end of what is allowed, in parts of that end.

        Negative where the interval crosses it; in the quantity's unit where the end is zero; infinite where
        nothing is asked.
        """
        rooms = [
            room / abs(end) if end else room
            for end, room in ((self.least, self.low - self.least), (self.most, self.most - self.high))
            if math.isfinite(end)
        ]
        return min(rooms, default=math.inf)


def at_most(
    instance: str,
    quantity: str,
    value: float,
    bound: float,
    *,
    low: float | None = None,
    high: float | None = None,
    unmet: str | None = None,
    control: str | None = None,
    decide: str = "",
) -> Case:
    """Return the case that a quantity must not exceed a bound; `Case` says what the arguments are.

    Raises
    ------
    InputError
        If ``low`` exceeds ``high``.
    """
    return between(
        instance, quantity, value, -math.inf, bound,
        low=low, high=high, unmet=unmet, control=control, decide=decide,
    )  # fmt: skip


def at_least(
    instance: str,
    quantity: str,
    value: float,
    bound: float,
    *,
    low: float | None = None,
    high: float | None = None,
    unmet: str | None = None,
    control: str | None = None,
    decide: str = "",
) -> Case:
    """Return the case that a quantity must reach a bound; `Case` says what the arguments are.

    Raises
    ------
    InputError
        If ``low`` exceeds ``high``.
    """
    return between(
        instance, quantity, value, bound, math.inf,
        low=low, high=high, unmet=unmet, control=control, decide=decide,
    )  # fmt: skip


def between(
    instance: str,
    quantity: str,
    value: float,
    least: float,
    most: float,
    *,
    low: float | None = None,
    high: float | None = None,
    unmet: str | None = None,
    control: str | None = None,
    decide: str = "",
) -> Case:
    """Return the case that a quantity must lie in a range; `Case` says what the arguments are.

    Raises
    ------
    InputError
        If ``least`` exceeds ``most``, or ``low`` exceeds ``high``.
    """
    value = float(value)
    return Case(
        instance,
        quantity,
        value,
        value if low is None else float(low),
        value if high is None else float(high),
        float(least),
        float(most),
        unmet,
        control,
        decide,
    )
