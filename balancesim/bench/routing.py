"""Routing of given float32 scores against NumPy, Numba, PyTorch, JAX and one read of the scores."""

import functools
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numba
import numpy as np

from balancesim.batches import blocked, in_parts
from balancesim.bench.instances import Shape
from balancesim.bench.rows import Row, at_least, at_most, compared, missing
from balancesim.bench.timing import Call, Plan, interleaved
from balancesim.routing import route, route_blocked, route_numba
from balancesim.types import FloatArray, IntArray

AREA = "routing"
NUMPY = "numpy argpartition"
NUMBA = "numba insertion"
TORCH = "torch.topk"
JAX = "jax.lax.top_k"
READ = "one read of the scores"


class Goals(NamedTuple):
    """Factors over peers that a layout is to reach at one shape; None: no goal."""

    numpy: float | None
    torch: float | None
    numba: float | None = None


class Case(NamedTuple):
    """A shape, and what the array as it comes and the scores laid out before are to reach."""

    shape: Shape
    as_it_comes: Goals
    laid_out: Goals


_CASES = (
    Case(Shape(16384, 64, 8), Goals(14.0, 10.0), Goals(25.0, 20.0, 7.0)),
    Case(Shape(4096, 256, 8), Goals(14.0, 10.0), Goals(25.0, 20.0, 7.0)),
    Case(Shape(65536, 8, 2), Goals(14.0, 10.0), Goals(25.0, 20.0, 7.0)),
    Case(Shape(8192, 16, 1), Goals(10.0, 10.0), Goals(20.0, 20.0, 7.0)),
)
_FLOOR_FACTOR = 2.5
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
        Per shape: the public function against each peer, its work once the arguments are checked, and the
        same on scores that are `blocked`, also against one read of the scores.
    """
    each = plan.share(10 * len(_CASES))
    for case in _CASES:
        yield from routing_of(each, case)


def routing_of(plan: Plan, case: Case) -> Iterator[Row]:
    """Time one shape.

    Parameters
    ----------
    plan : Plan
        Rounds, and the time for one peer.
    case : Case
        The batch and its goals.

    Yields
    ------
    Row
    """
    shape = case.shape
    rng = np.random.default_rng(0)
    scores = rng.standard_normal(shape[:2], dtype=np.float32)
    bias = (0.1 * rng.standard_normal(shape.n_experts)).astype(np.float32)
    peers: dict[str, Call] = {
        NUMPY: functools.partial(route_by_numpy, scores, bias, shape.k),
        NUMBA: functools.partial(route_by_insertion, scores, bias, shape.k),
    }
    absent: dict[str, str] = {}
    for name, make in ((TORCH, _torch_route), (JAX, _jax_route)):
        found, note = make(scores, bias, shape.k)
        if found is None:
            absent[name] = note
        else:
            peers[name] = found
    tiles = blocked(scores)
    ways: dict[str, tuple[Call, Goals]] = {
        f"{shape}": (functools.partial(route, scores, bias, k=shape.k), case.as_it_comes),
        f"{shape}, arguments checked before": (
            functools.partial(route_numba, scores, bias, shape.k, False),
            case.as_it_comes,
        ),
        f"{shape}, blocked, arguments checked before": (
            functools.partial(route_blocked, tiles, bias, shape.k, False),
            case.laid_out,
        ),
    }
    for name, (ours, goals) in ways.items():
        plan.say(f"{name} against {', '.join(peers)}")
        wanted = {NUMPY: goals.numpy, NUMBA: goals.numba, TORCH: goals.torch, JAX: None}
        pairs = interleaved(ours, peers, plan)
        for peer in peers:
            yield compared(AREA, name, peer, pairs[peer], at_least(wanted[peer]))
        for peer, note in absent.items():
            yield missing(AREA, name, peer, at_least(wanted[peer]), note)
    plan.say(f"{name} against {READ}")
    floor = interleaved(ours, {READ: functools.partial(read_all, scores)}, plan)[READ]
    speed = scores.nbytes / float(np.median([pair.peer.solve for pair in floor])) / 1e9
    yield compared(AREA, name, READ, floor, at_most(_FLOOR_FACTOR), note=f"the read makes {speed:.0f} GB/s")


def read_all(scores: FloatArray) -> float:
    """Read scores once, on the threads that routing has: the floor of any routing.

    Parameters
    ----------
    scores : (T, E) ndarray of float32
        The batch.

    Returns
    -------
    float
        Their sum, in no particular order.
    """
    reader = _reader()
    parts = in_parts(lambda first, last: reader(scores[first:last].reshape(-1)), scores.shape)
    return float(sum(parts))


@functools.cache
def _reader() -> Any:
    return numba.njit(nogil=True, cache=True, fastmath=True)(_read)


def _read(values: Any) -> Any:
    total = values.dtype.type(0.0)
    for i in range(values.size):
        total += values[i]
    return total


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


def _jax_route(scores: FloatArray, bias: FloatArray, k: int) -> tuple[Call | None, str]:
    """What routes with JAX, compiled, or why nothing does."""
    if find_spec("jax") is None:
        return None, "not installed: pip install jax"
    jax: Any = import_module("jax")

    def best(batch: Any, prices: Any) -> Any:
        values, chosen = jax.lax.top_k(batch + prices, k)
        return jax.numpy.bincount(chosen.ravel(), length=batch.shape[1]), values.sum()

    compiled, batch, prices = jax.jit(best), jax.numpy.asarray(scores), jax.numpy.asarray(bias)
    return lambda: jax.block_until_ready(compiled(batch, prices)), ""
