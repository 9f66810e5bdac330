"""How time and memory of a simulation grow with each of its sizes, with fitted exponents."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import process_time
from typing import NamedTuple

import numpy as np

from balancesim.balancers import AlfLB
from balancesim.bench.process import printed
from balancesim.bench.rows import Goal, Ratio, Row, at_most, compared
from balancesim.bench.timing import Plan, estimate, plain_pairs
from balancesim.simulation import simulate
from balancesim.sources import Normal

AREA = "scaling"

_MEMORY = """
import sys
from balancesim.bench.process import peak_mebibytes
from balancesim.bench.scaling import Sizes, run
run(Sizes(*map(int, sys.argv[1:])))
print(peak_mebibytes())
"""


class Sizes(NamedTuple):
    """What a simulation is made of: T, E, K, steps, and S rules that share draws."""

    n_tokens: int = 1024
    n_experts: int = 64
    k: int = 8
    horizon: int = 256
    n_rules: int = 1


@dataclass(frozen=True)
class Axis:
    """One size, while the others stay.

    Attributes
    ----------
    size : str
        A field of `Sizes`.
    values : tuple of int
        Ascending.
    exponent : float
        What the fitted exponent of time must not exceed.
    memory : float or None
        What the peak at the last value over that at the first must not exceed; None: it may grow.
    """

    size: str
    values: tuple[int, ...]
    exponent: float
    memory: float | None


# A fit over a few octaves is within some per cent of a straight line: 1.05 is called linear.
AXES = (
    Axis("n_tokens", (512, 1024, 2048, 4096, 8192), 1.05, 1.1),
    Axis("n_experts", (32, 64, 128, 256, 512, 1024), 1.05, None),
    Axis("k", (1, 2, 4, 8, 16, 32), 1.0, 1.1),
    Axis("horizon", (128, 256, 512, 1024, 2048), 1.05, 1.1),
    Axis("n_rules", (1, 2, 4, 8, 16), 1.0, None),
)


def scaling(plan: Plan) -> Iterator[Row]:
    """Time simulations along each axis.

    Parameters
    ----------
    plan : Plan
        Rounds, and the time for the whole area.

    Yields
    ------
    Row
        Per axis: the exponent of time, fitted in every round, with the times behind it; and the peak memory
        at its largest value against that at its smallest.
    """
    each = plan.share(len(AXES))
    for axis in AXES:
        yield exponent(each, axis)
        yield peak(each, axis)


def exponent(plan: Plan, axis: Axis) -> Row:
    """Fit how processor time grows along an axis.

    Parameters
    ----------
    plan : Plan
        Rounds and time.
    axis : Axis
        What varies.

    Returns
    -------
    Row
        Its figure is the exponent; the curve holds the median seconds of each value.
    """
    plan.say(f"time against {axis.size}")
    points = [Sizes()._replace(**{axis.size: value}) for value in axis.values]
    for point in points:
        run(point)
    first = [_seconds(point) for point in points]
    n_rounds = plan.rounds_of(sum(first))
    rounds = [first, *([_seconds(point) for point in points] for _ in range(n_rounds - 1))]
    slopes = [float(np.polyfit(np.log(axis.values), np.log(times), 1)[0]) for times in rounds]
    medians = np.median(np.array(rounds), axis=0)
    return Row(
        area=AREA,
        case=f"exponent of time in {axis.size}, {axis.values[0]} to {axis.values[-1]}",
        unit="",
        goal=Goal(Ratio.OURS, axis.exponent),
        ours=estimate(slopes),
        note=f"others: {_others(axis)}",
        curve=tuple((float(value), float(time)) for value, time in zip(axis.values, medians, strict=True)),
    )


def peak(plan: Plan, axis: Axis) -> Row:
    """Compare the peak memory of processes at the two ends of an axis.

    Parameters
    ----------
    plan : Plan
        Told what is measured; one round, as the peak hardly varies.
    axis : Axis
        What varies.

    Returns
    -------
    Row
    """
    plan.say(f"memory against {axis.size}")
    ends = (axis.values[0], axis.values[-1])
    low, high = (printed(_MEMORY, *Sizes()._replace(**{axis.size: end})) for end in ends)
    case = f"peak memory, {axis.size} = {axis.values[-1]}"
    pairs = plain_pairs([high], [low])
    return compared(AREA, case, f"{axis.size} = {axis.values[0]}", pairs, at_most(axis.memory), unit="MiB")


def run(sizes: Sizes) -> None:
    """Simulate ALF-LB on normal scores.

    Parameters
    ----------
    sizes : Sizes
        How much.
    """
    rules = [AlfLB(step_size=1.0 + rule) for rule in range(sizes.n_rules)]
    source = Normal(n_experts=sizes.n_experts, seed=0)
    simulate(rules, source, n_tokens=sizes.n_tokens, k=sizes.k, horizon=sizes.horizon, n_records=2, n_exact=0)


def _seconds(sizes: Sizes) -> float:
    started = process_time()
    run(sizes)
    return max(process_time() - started, math.ulp(1.0))


def _others(axis: Axis) -> str:
    words: Sequence[str] = [
        f"{name}={value}" for name, value in Sizes()._asdict().items() if name != axis.size
    ]
    return ", ".join(words)
