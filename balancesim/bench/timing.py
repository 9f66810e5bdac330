"""Interleaved timing: on a shared machine only ratios of neighbours in time mean anything."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

_ROUND = 0.01


class Goal(NamedTuple):
    """What a ratio is to reach: the peer over ours at least ``bound``, or ours over the peer at most."""

    bound: float
    is_least: bool


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes
    ----------
    area, case : str
        What was measured, and on what.
    ours, peer : float
        Medians over the rounds, in ``unit``.
    unit : str
        Unit of both.
    peer_name : str
        What ``peer`` is.
    ratio : float
        Median over the rounds of the goal's ratio, each of two neighbours in time.
    goal : str
        What is divided by what, and what the ratio is to reach.
    met : bool
        Whether it does.
    """

    area: str
    case: str
    ours: float
    peer: float
    unit: str
    peer_name: str
    ratio: float
    goal: str
    met: bool


def interleaved(
    ours: Callable[[], object], peer: Callable[[], object], rounds: int
) -> tuple[list[float], list[float]]:
    """Time two functions in turn.

    Parameters
    ----------
    ours, peer : callable
        Each is called untimed first. Within a round each is then called as often as takes 10 ms, once at
        least, so that a short call is timed with its data and threads at hand.
    rounds : int
        At least 1.

    Returns
    -------
    tuple of two lists of float
        Seconds a call, of each round.
    """
    counts = [_calls_in(function) for function in (ours, peer)]
    pairs = [(_seconds(ours, counts[0]), _seconds(peer, counts[1])) for _ in range(rounds)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def compare(
    area: str, case: str, samples: tuple[list[float], list[float]], unit: str, peer_name: str, goal: Goal
) -> Row:
    """Sum up the rounds of one comparison.

    Parameters
    ----------
    area, case : str
        What was measured, and on what.
    samples : tuple of two lists of float
        Figures of each round in ``unit``: ours, then the peer's.
    unit, peer_name : str
        See `Row`.
    goal : Goal
        What the ratio is to reach.

    Returns
    -------
    Row
    """
    ours, peer = samples
    ratios = [b / a if goal.is_least else a / b for a, b in zip(ours, peer, strict=True)]
    ratio = statistics.median(ratios)
    return Row(
        area=area,
        case=case,
        ours=statistics.median(ours),
        peer=statistics.median(peer),
        unit=unit,
        peer_name=peer_name,
        ratio=ratio,
        goal=f"peer / ours at least {goal.bound:g}"
        if goal.is_least
        else f"ours / peer at most {goal.bound:g}",
        met=ratio >= goal.bound if goal.is_least else ratio <= goal.bound,
    )


def _calls_in(function: Callable[[], object]) -> int:
    """Calls that take as long as a round should, found after a first call that may compile."""
    function()
    return max(1, round(_ROUND / _seconds(function, 1)))


def _seconds(function: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls
