"""How rounds alternate, how many there are, and how they are summed up. No test asserts a time."""

import gc
import math
import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest

from balancesim.bench.timing import (
    LEAST_ROUNDS,
    Pair,
    Parts,
    Plan,
    Sample,
    alone,
    estimate,
    interleaved,
    per_unit,
    plain_pairs,
)


def takes(seconds: float, name: str, calls: list[str]) -> Callable[[], None]:
    def run() -> None:
        calls.append(name)
        time.sleep(seconds)

    return run


def test_ours_runs_before_each_peer_after_untimed_calls() -> None:
    calls: list[str] = []
    ours, first, second = (takes(0.02, name, calls) for name in ("ours", "first", "second"))
    pairs = interleaved(ours, {"first": first, "second": second}, Plan(3))
    warm_up = ["ours"] * 2 + ["first"] * 2 + ["second"] * 2
    assert calls == warm_up + ["ours", "first", "ours", "second"] * 3
    assert [len(pairs[name]) for name in ("first", "second")] == [3, 3]
    assert min(sample.whole for pair in pairs["first"] for sample in pair) >= 0.02


def test_a_slow_peer_gets_fewer_rounds_but_some() -> None:
    calls: list[str] = []
    slow, fast = takes(0.05, "slow", calls), takes(0.01, "fast", calls)
    pairs = interleaved(lambda: None, {"slow": slow, "fast": fast}, Plan(8, seconds=0.01))
    assert len(pairs["slow"]) == LEAST_ROUNDS
    pairs = interleaved(lambda: None, {"slow": slow, "fast": fast}, Plan(8))
    assert len(pairs["slow"]) == len(pairs["fast"]) == 8


def test_rounds_of_a_plan() -> None:
    assert Plan(21).rounds_of(1e9) == 21
    assert Plan(21, 10.0).rounds_of(1.0) == 10
    assert Plan(21, 10.0).rounds_of(9.0) == LEAST_ROUNDS
    assert Plan(2, 10.0).rounds_of(9.0) == 2
    assert Plan(21, 10.0).rounds_of(0.0) == 21
    assert Plan(21, 10.0).share(5).seconds == 2.0


def test_short_calls_are_timed_together() -> None:
    calls: list[str] = []
    assert len(alone(takes(0.0, "ours", calls), Plan(2))) == 2
    assert len(calls) > 10


def test_parts_that_a_call_reports_are_kept_apart() -> None:
    (sample,) = alone(lambda: Parts(2.0, 3.0), Plan(1))
    assert (sample.build, sample.solve) == pytest.approx((2.0, 3.0))
    assert sample.whole < 2.0
    (sample,) = alone(lambda: None, Plan(1))
    assert (sample.build, sample.solve) == (0.0, sample.whole)


def test_the_garbage_collector_rests_meanwhile() -> None:
    seen: list[bool] = []
    alone(lambda: seen.append(gc.isenabled()), Plan(1))
    assert not any(seen)
    assert gc.isenabled()


def test_an_estimate_of_few_rounds_is_their_range() -> None:
    found = estimate([3.0, 1.0, 2.0])
    assert (found.median, found.low, found.high, found.rounds) == (2.0, 1.0, 3.0, 3)
    assert found.coverage == 0.75
    assert estimate([7.0]).coverage == 0.0
    assert estimate([1.0, 2.0]).median == 1.5


@pytest.mark.parametrize("n", range(6, 60))
def test_an_interval_of_order_statistics_is_the_narrowest_that_covers(n: int) -> None:
    found = estimate([float(i) for i in range(n)])
    assert found.median == statistics.median(range(n))
    assert found.low + found.high == n - 1
    # The median lies left of the interval if at most `low` values lie below it.
    missed = [2 * sum(math.comb(n, i) for i in range(int(found.low) + more)) / 2**n for more in (1, 2)]
    assert found.coverage == pytest.approx(1.0 - missed[0], abs=1e-14)
    assert missed[0] <= 0.05 < missed[1]


def test_intervals_cover_as_often_as_they_say() -> None:
    # 4000 draws at 97.3 %: five standard errors are 1.3 %, a false alarm in about 10^6.
    values = np.random.default_rng(5).exponential(size=(4000, 21))
    found = [estimate(row.tolist()) for row in values]
    assert found[0].coverage == pytest.approx(0.9734, abs=1e-4)
    share = np.mean([x.low <= math.log(2.0) <= x.high for x in found])
    assert share == pytest.approx(found[0].coverage, abs=0.013)


def test_per_unit_and_plain_pairs() -> None:
    pairs = per_unit([Pair(Sample(8.0, 2.0, 4.0), Sample(9.0, 0.0, 9.0))], 2.0, 3.0)
    assert pairs == [Pair(Sample(4.0, 1.0, 2.0), Sample(3.0, 0.0, 3.0))]
    assert plain_pairs([1.0], [2.0]) == [Pair(Sample(1.0, 0.0, 1.0), Sample(2.0, 0.0, 2.0))]
