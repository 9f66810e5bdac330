"""Interleaved timing: on a shared machine only ratios of neighbours in time mean anything."""

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

LEAST_ROUNDS = 3
"""Rounds that even a slow peer gets, unless fewer are asked for."""

_ROUND = 0.01
_PAUSE = 0.005
"""Seconds for the threads of what ran before, which may wait in a loop, to go to sleep."""

LEVEL = 0.95
"""Of the intervals, where there are rounds enough."""


class Parts(NamedTuple):
    """What a call may report about itself: seconds to set the problem up, and to solve it."""

    build: float
    solve: float


Call = Callable[[], object]
"""Something to time; where it returns `Parts`, they are kept apart."""


class Sample(NamedTuple):
    """Seconds of one call: by the clock outside, and its parts; without parts, all of it is solving."""

    whole: float
    build: float
    solve: float


class Pair(NamedTuple):
    """One round: ours, then the peer's."""

    ours: Sample
    peer: Sample


def _silent(_: str) -> None:
    pass


@dataclass(frozen=True)
class Plan:
    """How much to measure.

    Attributes
    ----------
    rounds : int
        Rounds of each comparison, at least 1.
    seconds : float
        Time that the rounds of all comparisons aim at; a slow peer gets fewer, `LEAST_ROUNDS` at least.
    say : callable
        Is told what is measured next.
    """

    rounds: int
    seconds: float = math.inf
    say: Callable[[str], None] = field(default=_silent)

    def share(self, n_comparisons: int) -> "Plan":
        """The plan of one comparison among several."""
        return Plan(self.rounds, self.seconds / max(n_comparisons, 1), self.say)

    def rounds_of(self, seconds: float) -> int:
        """Rounds for a comparison one round of which takes so long."""
        affordable = self.seconds / seconds if seconds > 0.0 else math.inf
        return min(self.rounds, max(LEAST_ROUNDS, int(min(affordable, self.rounds))))


@dataclass(frozen=True)
class Estimate:
    """A median over rounds and its interval.

    Attributes
    ----------
    median, low, high : float
        Distribution-free interval between two order statistics.
    rounds : int
        Number of values.
    coverage : float
        Probability that the interval holds the median, were rounds independent: the least above 95 %; with
        fewer than 6 rounds no interval reaches that, and the range of all values is given with what it has.
    """

    median: float
    low: float
    high: float
    rounds: int
    coverage: float


def estimate(values: Sequence[float]) -> Estimate:
    """Sum up the values of the rounds.

    Parameters
    ----------
    values : sequence of float
        At least one.

    Returns
    -------
    Estimate
    """
    ordered = sorted(values)
    n = len(ordered)
    # Both tails of Binomial(n, 1/2) below `rank`, which the interval from there on leaves out.
    rank, missed = 0, 2.0 * 0.5**n
    while rank + 1 < (n + 1) // 2:
        more = missed + 2.0 * math.comb(n, rank + 1) * 0.5**n
        if more > 1.0 - LEVEL:
            break
        rank, missed = rank + 1, more
    middle = 0.5 * (ordered[(n - 1) // 2] + ordered[n // 2])
    return Estimate(middle, ordered[rank], ordered[n - 1 - rank], n, max(0.0, 1.0 - missed))


def interleaved(ours: Call, peers: Mapping[str, Call], plan: Plan) -> dict[str, list[Pair]]:
    """Time a function and its peers in turn.

    Parameters
    ----------
    ours : callable
        Called before each peer in every round, so that a ratio is one of neighbours in time.
    peers : mapping of str to callable
        Those whose rounds are over sit out; the others go on.
    plan : Plan
        Rounds, and the time for one peer. Each function is called untimed first, and counted: within a round
        it is then called as often as takes 10 ms, once at least, with its data and threads at hand.

    Returns
    -------
    dict of str to list of Pair
        Seconds a call, of each peer's rounds.
    """
    with _no_collection():
        count, seconds = _warm(ours)
        warmed = {name: _warm(peer) for name, peer in peers.items()}
        due = {name: plan.rounds_of(seconds + needs) for name, (_, needs) in warmed.items()}
        pairs: dict[str, list[Pair]] = {name: [] for name in peers}
        for turn in range(max(due.values(), default=0)):
            for name, peer in peers.items():
                if turn < due[name]:
                    mine = _sample(ours, count)
                    pairs[name].append(Pair(mine, _sample(peer, warmed[name][0])))
    return pairs


def alone(ours: Call, plan: Plan) -> list[Sample]:
    """Time a function without a peer.

    Parameters
    ----------
    ours : callable
        Called untimed first.
    plan : Plan
        Rounds and time.

    Returns
    -------
    list of Sample
        Seconds a call, of each round.
    """
    with _no_collection():
        count, seconds = _warm(ours)
        return [_sample(ours, count) for _ in range(plan.rounds_of(seconds))]


def plain_pairs(ours: Sequence[float], peer: Sequence[float]) -> list[Pair]:
    """Pairs of figures that are not times, such as MiB.

    Parameters
    ----------
    ours, peer : sequence of float
        Of the same rounds.

    Returns
    -------
    list of Pair
    """
    return [Pair(Sample(a, 0.0, a), Sample(b, 0.0, b)) for a, b in zip(ours, peer, strict=True)]


def per_unit(pairs: Sequence[Pair], ours: float, peer: float) -> list[Pair]:
    """Pairs for one unit of work, where a call does several.

    Parameters
    ----------
    pairs : sequence of Pair
        For whole calls.
    ours, peer : float
        Units that a call of either does.

    Returns
    -------
    list of Pair
    """
    return [
        Pair(
            *(Sample(*(x / units for x in sample)) for sample, units in zip(pair, (ours, peer), strict=True))
        )
        for pair in pairs
    ]


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector, which may take 0.1 s with large packages loaded, out of the rounds."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _warm(function: Call) -> tuple[int, float]:
    """Calls that a round takes and its seconds, found after a first call that may compile."""
    function()
    seconds = _sample(function, 1).whole
    count = max(1, round(_ROUND / seconds)) if seconds > 0.0 else 1
    return count, count * seconds


def _sample(function: Call, count: int) -> Sample:
    reported: list[Parts] = []
    time.sleep(_PAUSE)
    if count > 1:
        function()  # wakes threads and caches; a call longer than a round has time to do so itself
    start = time.perf_counter()
    for _ in range(count):
        result = function()
        if isinstance(result, Parts):
            reported.append(result)
    whole = (time.perf_counter() - start) / count
    if not reported:
        return Sample(whole, 0.0, whole)
    build, solve = (sum(values) / len(reported) for values in zip(*reported, strict=True))
    return Sample(whole, build, solve)
