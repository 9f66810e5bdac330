"""The compiled online step against NumPy, and against MKL's normals with a plain compiled loop."""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np

from balancesim.balancers import AlfLB
from balancesim.bench.instances import Shape
from balancesim.bench.routing import route_by_insertion, route_by_numpy
from balancesim.bench.rows import Row, at_least, compared, missing
from balancesim.bench.timing import Call, Plan, interleaved, per_unit
from balancesim.simulation import simulate
from balancesim.sources import Normal
from balancesim.types import Float64Array

_SHAPE = Shape(16384, 64, 8)
# Rules that share a draw, factor over NumPy per rule, steps timed.
_SHARED = ((1, 12.0, 24), (16, 60.0, 6))
_THREADS = 2
NUMPY = "numpy SFC64 normals + argpartition"
MKL = "mkl_random normals + numba insertion"


def online(plan: Plan) -> Iterator[Row]:
    """Time the online step per rule: draw, route, measure, update, against NumPy's draw and route alone.

    Parameters
    ----------
    plan : Plan
        Rounds, and the time for the whole area.

    Yields
    ------
    Row
        One per number of rules that share each draw. Ours runs one seed on each of two threads.
    """
    each = plan.share(len(_SHARED))
    for n_rules, factor, n_steps in _SHARED:
        yield from step(each, _SHAPE, n_rules, n_steps, factor)


def step(plan: Plan, shape: Shape, n_rules: int, n_steps: int, factor: float | None) -> Iterator[Row]:
    """Time one step of several rules that share draws.

    Parameters
    ----------
    plan : Plan
        Rounds and time.
    shape : Shape
        The batch.
    n_rules, n_steps : int
        Rules that share each draw, and steps a call.
    factor : float or None
        What to reach over NumPy, per rule.

    Yields
    ------
    Row
        One a peer.
    """
    n_tokens, n_experts, k = shape
    case = f"{shape}, {n_rules} rules a draw"
    plan.say(case)
    generator = np.random.Generator(np.random.SFC64(0))
    prices = np.zeros(n_experts, np.float32)
    rules = [AlfLB(step_size=0.1 * (1 + s)) for s in range(n_rules)]

    def numpy_step() -> None:
        route_by_numpy(generator.standard_normal((n_tokens, n_experts), dtype=np.float32), prices, k)

    def one_seed(seed: int) -> None:
        source = Normal(n_experts=n_experts, seed=seed)
        simulate(rules, source, n_tokens=n_tokens, k=k, horizon=n_steps, n_records=2, n_exact=0)

    peers: dict[str, Call] = {NUMPY: numpy_step}
    fast_normals, absent = _mkl_normals(shape)
    if fast_normals is not None:
        peers[MKL] = lambda: route_by_insertion(fast_normals(), prices, k)
    with ThreadPoolExecutor(_THREADS) as pool:
        pairs = interleaved(functools.partial(_wait_for_all, pool, one_seed), peers, plan)
    goals = {NUMPY: at_least(factor), MKL: at_least(None)}
    for name in peers:
        each = per_unit(pairs[name], _THREADS * n_steps * n_rules, 1.0)
        yield compared("online", case, name, each, goals[name], unit="s per step and rule")
    if fast_normals is None:
        yield missing("online", case, MKL, goals[MKL], absent)


def _mkl_normals(shape: Shape) -> tuple[Callable[[], Float64Array] | None, str]:
    """What draws a batch with MKL's vectorised normals, float64, or why nothing does."""
    if find_spec("mkl_random") is None:
        return None, "not installed: pip install mkl_random"
    try:
        import mkl_random
    except (ImportError, OSError) as error:
        return None, f"cannot be loaded: {error}"
    state = mkl_random.MKLRandomState(0)
    return lambda: state.standard_normal(shape[:2]), ""


def _wait_for_all(pool: ThreadPoolExecutor, one_seed: Callable[[int], None]) -> None:
    for done in [pool.submit(one_seed, seed) for seed in range(_THREADS)]:
        done.result()
