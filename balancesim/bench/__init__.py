"""Speed and memory against named peers, as ratios taken within one run: ``balancesim bench``."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Area:
    """One group of comparisons, loaded only when it is measured.

    Attributes
    ----------
    module : str
        Its function of the area's name takes a `balancesim.bench.timing.Plan` and yields rows.
    seconds : float
        Default time that its rounds aim at.
    summary : str
        One line.
    """

    module: str
    seconds: float
    summary: str


AREAS = {
    "exact": Area("balancesim.bench.exact", 180.0, "exact solves against min-cost flow, HiGHS, POT, CVXPY"),
    "routing": Area(
        "balancesim.bench.routing", 60.0, "routing of given scores against array libraries and Numba"
    ),
    "online": Area("balancesim.bench.online", 30.0, "the online step against numpy's draw and route"),
    "sweep": Area("balancesim.bench.sweep", 60.0, "two workers of a sweep against one and two processes"),
    "scaling": Area("balancesim.bench.scaling", 60.0, "growth of time and memory with every size"),
    "gpu": Area("balancesim.bench.gpu", 40.0, "routing and the simulation loop on a CUDA card"),
    "memory": Area("balancesim.bench.process", 30.0, "peak memory of a long run"),
    "startup": Area("balancesim.bench.process", 100.0, "the time to start, and to compile a sweep's kernels"),
}
