"""Compiled routing and the compiled online step against NumPy."""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from balancesim.balancers import AlfLB
from balancesim.bench.timing import Goal, Row, compare, interleaved
from balancesim.routing import route, route_numba
from balancesim.simulation import simulate
from balancesim.sources import Normal
from balancesim.types import FloatArray, IntArray

# Tokens, experts, experts per token, factor over NumPy that token-major routing is to reach.
_SHAPES = ((16384, 64, 8, 10.0), (4096, 256, 8, 10.0), (65536, 8, 2, 10.0), (8192, 16, 1, 8.0))
_ONLINE = (16384, 64, 8)
# Rules that share a draw, factor over NumPy per rule, steps timed.
_SHARED = ((1, 8.0, 24), (16, 40.0, 6))
_THREADS = 2
_NUMPY_STEP = "numpy SFC64 normals + argpartition"


def routing(rounds: int) -> Iterator[Row]:
    """Time routing of given float32 scores, (T, E) in memory.

    Parameters
    ----------
    rounds : int
        Rounds of each comparison.

    Yields
    ------
    Row
        Two per shape: the public function, and its work once the arguments are checked.
    """
    for n_tokens, n_experts, k, factor in _SHAPES:
        rng = np.random.default_rng(0)
        scores = rng.standard_normal((n_tokens, n_experts), dtype=np.float32)
        bias = (0.1 * rng.standard_normal(n_experts)).astype(np.float32)
        case = f"{n_tokens}x{n_experts} K={k}"
        peer = functools.partial(_numpy_route, scores, bias, k)
        for name, ours in (
            ("route", functools.partial(route, scores, bias, k=k)),
            ("route, arguments checked before", functools.partial(route_numba, scores, bias, k, False)),
        ):
            samples = _milliseconds(*interleaved(ours, peer, rounds))
            goal = Goal(factor, is_least=True)
            yield compare("routing", f"{case}, {name}", samples, "ms", "numpy argpartition", goal)


def online(rounds: int) -> Iterator[Row]:
    """Time the online step per rule: draw, route, measure, update, against NumPy's draw and route alone.

    Parameters
    ----------
    rounds : int
        Rounds of each comparison.

    Yields
    ------
    Row
        One per number of rules that share each draw. Ours runs one seed on each of two threads.
    """
    n_tokens, n_experts, k = _ONLINE
    generator = np.random.Generator(np.random.SFC64(0))
    prices = np.zeros(n_experts, np.float32)

    def numpy_step() -> None:
        _numpy_route(generator.standard_normal((n_tokens, n_experts), dtype=np.float32), prices, k)

    for n_rules, factor, n_steps in _SHARED:
        rules = [AlfLB(step_size=0.1 * (1 + s)) for s in range(n_rules)]

        def one_seed(seed: int, rules: list[AlfLB] = rules, n_steps: int = n_steps) -> None:
            source = Normal(n_experts=n_experts, seed=seed)
            simulate(rules, source, n_tokens=n_tokens, k=k, horizon=n_steps, n_records=2)

        with ThreadPoolExecutor(_THREADS) as pool:
            both_seeds = functools.partial(_wait_for_all, pool, one_seed)
            ours, peer = interleaved(both_seeds, numpy_step, rounds)
        samples = _milliseconds([x / (_THREADS * n_steps * n_rules) for x in ours], peer)
        case = f"{n_tokens}x{n_experts} K={k}, {n_rules} rules a draw"
        goal = Goal(factor, is_least=True)
        yield compare("online", case, samples, "ms per step and rule", _NUMPY_STEP, goal)


def _wait_for_all(pool: ThreadPoolExecutor, one_seed: Callable[[int], None]) -> None:
    for done in [pool.submit(one_seed, seed) for seed in range(_THREADS)]:
        done.result()


def _milliseconds(ours: list[float], peer: list[float]) -> tuple[list[float], list[float]]:
    return [1e3 * x for x in ours], [1e3 * x for x in peer]


def _numpy_route(scores: FloatArray, bias: FloatArray, k: int) -> tuple[IntArray, float]:
    biased = scores + bias
    n_experts = biased.shape[1]
    chosen = np.argpartition(biased, n_experts - k, axis=1)[:, n_experts - k :]
    value = float(np.take_along_axis(biased, chosen, axis=1).sum(dtype=np.float64))
    return np.bincount(chosen.ravel(), minlength=n_experts), value
