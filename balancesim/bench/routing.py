"""Routing of given float32 scores, token-major in memory, against NumPy, Numba and PyTorch."""

import functools
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numba
import numpy as np

from balancesim.bench.instances import Shape
from balancesim.bench.rows import Row, at_least, compared, missing
from balancesim.bench.timing import Call, Plan, interleaved
from balancesim.routing import route, route_numba
from balancesim.types import FloatArray, IntArray

AREA = "routing"
NUMPY = "numpy argpartition"
NUMBA = "numba insertion"
TORCH = "torch.topk"

# Factor over NumPy that each is to reach.
_CASES = (
    (Shape(16384, 64, 8), 10.0),
    (Shape(4096, 256, 8), 10.0),
    (Shape(65536, 8, 2), 10.0),
    (Shape(8192, 16, 1), 8.0),
)
_TORCH_FACTOR = 10.0
_THREADS = 2


def routing(plan: Plan) -> Iterator[Row]:
    """Time routing: add the bias, take the K largest, count loads, sum what is chosen.

    Parameters
    ----------
    plan : Plan
        Rounds, and the time for the whole area.

    Yields
    ------
    Row
        Per shape: the public function against each peer, and its work once the arguments are checked against
        NumPy.
    """
    each = plan.share(4 * len(_CASES))
    for shape, factor in _CASES:
        yield from routing_of(each, shape, factor)


def routing_of(plan: Plan, shape: Shape, factor: float | None) -> Iterator[Row]:
    """Time one shape.

    Parameters
    ----------
    plan : Plan
        Rounds, and the time for one peer.
    shape : Shape
        The batch.
    factor : float or None
        What to reach over NumPy.

    Yields
    ------
    Row
    """
    rng = np.random.default_rng(0)
    scores = rng.standard_normal(shape[:2], dtype=np.float32)
    bias = (0.1 * rng.standard_normal(shape.n_experts)).astype(np.float32)
    peers: dict[str, Call] = {
        NUMPY: functools.partial(route_by_numpy, scores, bias, shape.k),
        NUMBA: functools.partial(route_by_insertion, scores, bias, shape.k),
    }
    torch_route, note = _torch_route(scores, bias, shape.k)
    if torch_route is not None:
        peers[TORCH] = torch_route
    goals = {NUMPY: factor, NUMBA: None, TORCH: _TORCH_FACTOR}
    plan.say(f"{shape} against {', '.join(peers)}")
    pairs = interleaved(functools.partial(route, scores, bias, k=shape.k), peers, plan)
    for name in peers:
        yield compared(AREA, str(shape), name, pairs[name], at_least(goals[name]))
    if torch_route is None:
        yield missing(AREA, str(shape), TORCH, at_least(_TORCH_FACTOR), note)
    plan.say(f"{shape} with arguments checked before")
    checked = functools.partial(route_numba, scores, bias, shape.k, False)
    pairs = interleaved(checked, {NUMPY: peers[NUMPY]}, plan)
    case = f"{shape}, arguments checked before"
    yield compared(AREA, case, NUMPY, pairs[NUMPY], at_least(factor))


def route_by_numpy(scores: FloatArray, bias: FloatArray, k: int) -> tuple[IntArray, float]:
    """Route with argpartition, as most would write it.

    Parameters
    ----------
    scores : (T, E) ndarray
        The batch.
    bias : (E,) ndarray
        Added to the scores.
    k : int
        Experts per token.

    Returns
    -------
    tuple of (E,) ndarray of int64 and float
        Loads and the sum of the chosen biased scores.
    """
    biased = scores + bias
    n_experts = biased.shape[1]
    chosen = np.argpartition(biased, n_experts - k, axis=1)[:, n_experts - k :]
    value = float(np.take_along_axis(biased, chosen, axis=1).sum(dtype=np.float64))
    return np.bincount(chosen.ravel(), minlength=n_experts), value


def route_by_insertion(scores: FloatArray, bias: FloatArray, k: int) -> tuple[IntArray, float]:
    """Route with a plain compiled loop: each token's K best by insertion, tokens shared by two threads.

    Parameters
    ----------
    scores, bias, k
        As those of `route_by_numpy`.

    Returns
    -------
    tuple of (E,) ndarray of int64 and float
        Loads and the sum of the chosen biased scores.
    """
    threads = min(_THREADS, numba.get_num_threads())
    numba.set_num_threads(threads)
    loads, values = _insertion()(scores, bias, k, 8 * threads)
    return loads.sum(axis=0), float(values.sum())


@functools.cache
def _insertion() -> Any:
    return numba.njit(parallel=True, cache=True)(_insert)


def _insert(scores: Any, bias: Any, k: Any, n_parts: Any) -> Any:
    n_tokens, n_experts = scores.shape
    loads = np.zeros((n_parts, n_experts), np.int64)
    values = np.zeros(n_parts)
    for part in numba.prange(n_parts):
        best = np.empty(k, scores.dtype)
        chosen = np.empty(k, np.int64)
        for token in range(n_tokens * part // n_parts, n_tokens * (part + 1) // n_parts):
            best[:] = -np.inf
            for expert in range(n_experts):
                biased = scores[token, expert] + bias[expert]
                if biased > best[k - 1]:
                    place = k - 1
                    while place > 0 and best[place - 1] < biased:
                        best[place] = best[place - 1]
                        chosen[place] = chosen[place - 1]
                        place -= 1
                    best[place] = biased
                    chosen[place] = expert
            for place in range(k):
                loads[part, chosen[place]] += 1
                values[part] += best[place]
    return loads, values


def _torch_route(scores: FloatArray, bias: FloatArray, k: int) -> tuple[Call | None, str]:
    """What routes with PyTorch, or why nothing does."""
    if find_spec("torch") is None:
        return None, "not installed: pip install torch"
    try:
        import torch
    except (ImportError, OSError) as error:
        return None, f"cannot be loaded: {error}"
    torch.set_num_threads(_THREADS)
    batch, prices = torch.from_numpy(scores), torch.from_numpy(bias)

    def run() -> object:
        top = torch.topk(batch + prices, k, dim=1, sorted=False)
        loads = torch.bincount(top.indices.ravel(), minlength=batch.shape[1])
        return loads, float(top.values.sum(dtype=torch.float64))

    return run, ""
