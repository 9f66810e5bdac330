"""One comparison as the table and the JSON document show it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from balancesim.bench.timing import Estimate, Pair, Sample, estimate

SECONDS = "s"


class Ratio(Enum):
    """What is compared; the value is how the table says it."""

    PEER_OVER_OURS = "peer / ours"
    OURS_OVER_PEER = "ours / peer"
    OURS = "ours"


class Goal(NamedTuple):
    """What is compared, and the bound to reach: at least, for the peer over ours; None: no goal."""

    ratio: Ratio
    bound: float | None

    def text(self) -> str:
        """Say it in the table."""
        if self.bound is None:
            return self.ratio.value
        word = "at least" if self.ratio is Ratio.PEER_OVER_OURS else "at most"
        return f"{self.ratio.value} {word} {self.bound:g}"

    def is_met(self, value: float) -> bool | None:
        """Whether a ratio reaches it; None where nothing is to be reached."""
        if self.bound is None:
            return None
        return value >= self.bound if self.ratio is Ratio.PEER_OVER_OURS else value <= self.bound


def at_least(bound: float | None) -> Goal:
    """The peer's figure over ours."""
    return Goal(Ratio.PEER_OVER_OURS, bound)


def at_most(bound: float | None) -> Goal:
    """Our figure over the peer's."""
    return Goal(Ratio.OURS_OVER_PEER, bound)


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes
    ----------
    area, case : str
        What was measured, and on what.
    unit : str
        Unit of all figures but the ratios.
    ours : Estimate or None
        The whole call.
    ours_solve : Estimate or None
        What the call itself reports as solving (setting up included), without checking what it is given and
        what it returns; None where it reports nothing.
    peer_name : str
        What the peer is; empty where there is none.
    peer, peer_build : Estimate or None
        The peer's solving alone, and its setting up where it has such a step.
    goal : Goal
        Which ratio this is, and what it is to reach.
    ratio : Estimate or None
        Of each round's two neighbours in time, from ``ours`` and ``peer``: without the peer's set-up.
    ratio_with_build : Estimate or None
        The same with the peer's set-up.
    note : str
        What else there is to say, such as how to install a missing peer.
    curve : tuple of (float, float)
        What a fitted exponent was fitted to: sizes and seconds.
    """

    area: str
    case: str
    unit: str
    goal: Goal
    ours: Estimate | None = None
    ours_solve: Estimate | None = None
    peer_name: str = ""
    peer: Estimate | None = None
    peer_build: Estimate | None = None
    ratio: Estimate | None = None
    ratio_with_build: Estimate | None = None
    note: str = ""
    curve: tuple[tuple[float, float], ...] = ()

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where there is none, or nothing was measured."""
        compared = self.ours if self.goal.ratio is Ratio.OURS else self.ratio
        return None if compared is None else self.goal.is_met(compared.median)

    @property
    def verdict(self) -> str:
        """Say so in a word."""
        if self.goal.bound is None:
            return ""
        return {None: "not measured", True: "reached", False: "missed"}[self.met]

    def document(self) -> dict[str, Any]:
        """The row as JSON takes it."""
        figures = ("ours", "ours_solve", "peer", "peer_build", "ratio", "ratio_with_build")
        found: dict[str, Estimate | None] = {name: getattr(self, name) for name in figures}
        return {
            "area": self.area,
            "case": self.case,
            "unit": self.unit,
            "peer_name": self.peer_name,
            **{name: None if value is None else dict(vars(value)) for name, value in found.items()},
            "ratio_is": self.goal.ratio.value,
            "goal": self.goal.bound,
            "met": self.met,
            "note": self.note,
            "curve": [list(point) for point in self.curve],
        }


def compared(
    area: str,
    case: str,
    peer_name: str,
    pairs: Sequence[Pair],
    goal: Goal,
    *,
    unit: str = SECONDS,
    note: str = "",
) -> Row:
    """Sum up the rounds of ours and a peer.

    Parameters
    ----------
    area, case, peer_name : str
        See `Row`.
    pairs : sequence of Pair
        The rounds, at least one.
    goal : Goal
        What the ratio is to reach.
    unit, note : str, optional
        See `Row`.

    Returns
    -------
    Row
    """
    has_build = any(pair.peer.build > 0.0 for pair in pairs)
    return Row(
        area=area,
        case=case,
        unit=unit,
        goal=goal,
        ours=estimate([pair.ours.whole for pair in pairs]),
        ours_solve=_own_account([pair.ours for pair in pairs]),
        peer_name=peer_name,
        peer=estimate([pair.peer.solve for pair in pairs]),
        peer_build=estimate([pair.peer.build for pair in pairs]) if has_build else None,
        ratio=_ratio([(pair.ours.whole, pair.peer.solve) for pair in pairs], goal),
        ratio_with_build=_ratio([(p.ours.whole, p.peer.build + p.peer.solve) for p in pairs], goal)
        if has_build
        else None,
        note=note,
    )


def measured(area: str, case: str, samples: Sequence[Sample], *, note: str = "") -> Row:
    """Sum up the rounds of ours alone.

    Parameters
    ----------
    area, case : str
        See `Row`.
    samples : sequence of Sample
        The rounds, at least one.
    note : str, optional
        See `Row`.

    Returns
    -------
    Row
    """
    return Row(
        area=area,
        case=case,
        unit=SECONDS,
        goal=Goal(Ratio.OURS, None),
        ours=estimate([sample.whole for sample in samples]),
        ours_solve=_own_account(samples),
        note=note,
    )


def missing(area: str, case: str, peer_name: str, goal: Goal, note: str) -> Row:
    """The row of a peer that could not be measured.

    Parameters
    ----------
    area, case, peer_name : str
        See `Row`.
    goal : Goal
        What the ratio would have to reach.
    note : str
        Why, and the way out.

    Returns
    -------
    Row
    """
    return Row(area=area, case=case, unit=SECONDS, goal=goal, peer_name=peer_name, note=note)


def _own_account(samples: Sequence[Sample]) -> Estimate | None:
    if not any(sample.build > 0.0 or sample.solve < sample.whole for sample in samples):
        return None
    return estimate([sample.build + sample.solve for sample in samples])


def _ratio(figures: Sequence[tuple[float, float]], goal: Goal) -> Estimate:
    over_ours = goal.ratio is Ratio.PEER_OVER_OURS
    return estimate([peer / ours if over_ours else ours / peer for ours, peer in figures])
