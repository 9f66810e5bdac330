"""Regret of many seeds: run side by side, reduced to what a statement is held against, with intervals."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike

import balancesim as bs
from balancesim.balancers import AlfLB
from balancesim.checks import Case, between
from balancesim.runs import Run
from balancesim.sources import Source
from balancesim.types import Float64Array, IntArray
from paper_checks.intervals import half_width

_T = TypeVar("_T")


class Curves(NamedTuple):
    """Regret of one rule at R recorded steps: ``steps`` (R,), ``regret`` (seeds, R)."""

    steps: IntArray
    regret: Float64Array


class Interval(NamedTuple):
    """A mean over seeds and its confidence interval by Student's t."""

    value: float
    low: float
    high: float


def name_of(source: Source, k: int, n_tokens: int) -> str:
    """Return what a table calls an instance."""
    return f"{source.describe()}, E={source.n_experts}, K={k}, T={n_tokens}"


def ratio_case(
    instance: str,
    quantity: str,
    measured: Interval,
    predicted: float,
    *,
    within: float,
    control: str | None = None,
) -> Case:
    """Return the case that a mean over seeds is what was predicted, to a fraction ``within``."""
    value, low, high = (end / predicted for end in measured)
    return between(
        instance, quantity, value, 1.0 - within, 1.0 + within, low=low, high=high, control=control,
        decide="more seeds or a longer horizon",
    )  # fmt: skip


def over_seeds(measure: Callable[[int], _T], seeds: Iterable[int]) -> list[_T]:
    """Return ``measure`` of each seed, in order; seeds run side by side and share nothing."""
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as threads:
        return list(threads.map(measure, seeds))


def regret_curves(
    rules: Sequence[AlfLB],
    source: Source,
    *,
    k: int,
    n_tokens: int,
    horizon: int,
    seeds: Sequence[int],
    comparator: Any = "population",
    n_records: int = 64,
) -> list[Curves]:
    """Simulate rules on shared draws, once a seed.

    Parameters
    ----------
    rules : sequence of AlfLB
    source : Source
    k, n_tokens, horizon, comparator, n_records
        As `balancesim.simulate` takes them.
    seeds : sequence of int

    Returns
    -------
    list of Curves
        One per rule.
    """

    def measure(seed: int) -> list[Run]:
        return bs.simulate(
            rules, source, n_tokens=n_tokens, k=k, horizon=horizon, seed=seed,
            comparator=comparator, n_records=n_records, n_exact=0,
        )  # fmt: skip

    runs = over_seeds(measure, seeds)
    return [
        Curves(runs[0][i].steps, np.array([of_seed[i].regret for of_seed in runs])) for i in range(len(rules))
    ]


def slopes(curves: Curves, first: int, last: int | None = None) -> Float64Array:
    """Least-squares slope in ln N of each curve over the records from ``first`` to ``last``, (seeds,)."""
    used = (curves.steps >= first) & (curves.steps <= (last or curves.steps[-1]))
    logs = np.log(curves.steps[used])
    logs = logs - logs.mean()
    found: Float64Array = curves.regret[:, used] @ logs / (logs @ logs)
    return found


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean of one number a seed, with its interval."""
    sample = np.asarray(values, dtype=np.float64)
    mean, reach = float(sample.mean()), float(half_width(sample, confidence))
    return Interval(mean, mean - reach, mean + reach)
