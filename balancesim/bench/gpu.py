"""Routing, drawing and the simulation loop on a CUDA card, against the card's own limits and PyTorch."""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from balancesim import sources
from balancesim.balancers import AlfLB
from balancesim.bench.instances import Shape
from balancesim.bench.rows import Row, at_least, at_most, compared, measured, missing
from balancesim.bench.timing import Call, Pair, Plan, Sample, interleaved
from balancesim.errors import MissingDependencyError

AREA = "gpu"
COPY = "copying as many bytes"
TORCH = "torch.topk on the card"
FLOOR = "its arithmetic alone"

_SHAPES = (Shape(1 << 18, 64, 8), Shape(1 << 20, 64, 8), Shape(1 << 18, 256, 8), Shape(1 << 20, 64, 1))
_BANDWIDTH_FACTOR, _TORCH_FACTOR, _FLOOR_FACTOR = 2.0, 10.0, 2.0
_BYTES = 1 << 31
"""Scores that rounds take turns in: many times the card's second-level cache."""

_LAUNCHES = 8
_FUSED = Shape(1 << 20, 64, 8)
_LONG, _LONG_STEPS, _LONG_RULES = Shape(1024, 64, 8), 1_000_000, 16

# Operations a score: of integers, comparisons, minima and maxima, of which a multiprocessor does 64 a cycle;
# and all, of which it does 128. Counted from the kernels' text for float32 and K = 8. Routing sorts eight
# scores (19 comparators of a minimum and a maximum), merges them into eight (8 maxima, 12 comparators), adds
# a bias to each and compares it. Drawing standard normals takes Philox (20 products and 20 xors for four
# words), and for two scores a logarithm, a root, a sine and a cosine: 97 operations, of which a correctly
# rounded division and a root are 10 each.
_ROUTE_HALF, _ROUTE_ALL = 70 / 8 + 1, 70 / 8 + 2
_DRAW_HALF, _DRAW_ALL = 15.0, 59.0
_HALF_LANES, _ALL_LANES = 64, 128


class Card(NamedTuple):
    """The card: CuPy, its name, multiprocessors, and cycles a second."""

    cupy: Any
    name: str
    multiprocessors: int
    clock: float


def gpu(plan: Plan) -> Iterator[Row]:
    """Time what runs on the card.

    Parameters
    ----------
    plan : Plan
        Rounds, and the time for the whole area.

    Yields
    ------
    Row
        Routing against copying and PyTorch, drawing fused with routing against its arithmetic, and one run of
        10^6 steps; one row that says why where there is no card.
    """
    try:
        card = _card()
    except MissingDependencyError as error:
        yield missing(AREA, "routing", COPY, at_most(_BANDWIDTH_FACTOR), str(error))
        return
    each = plan.share(2 * len(_SHAPES) + 3)
    for shape in _SHAPES:
        yield from _routing(each, card, shape)
    for n_rules in (1, 16):
        yield _fused(each, card, n_rules)
    yield _long_run(plan, card)


def arithmetic_floor(shape: Shape, n_rules: int, multiprocessors: int, clock: float) -> float:
    """Seconds that the arithmetic of drawing and routing takes at full rate.

    Parameters
    ----------
    shape : Shape
        The batch; K = 8.
    n_rules : int
        Biases that share a draw.
    multiprocessors : int
        Of the card.
    clock : float
        Cycles a second.

    Returns
    -------
    float
        The busier of the two pipes' time.
    """
    cycles = max(
        (_DRAW_HALF + n_rules * _ROUTE_HALF) / _HALF_LANES, (_DRAW_ALL + n_rules * _ROUTE_ALL) / _ALL_LANES
    )
    return shape.n_tokens * shape.n_experts * cycles / (multiprocessors * clock)


def _card() -> Card:
    from balancesim.kernels_cupy.device import cupy, multiprocessors

    module = cupy()
    properties = module.cuda.runtime.getDeviceProperties(module.cuda.Device().id)
    clock = 1e3 * module.cuda.Device().attributes["ClockRate"]
    return Card(module, properties["name"].decode(), multiprocessors(), clock)


def _routing(plan: Plan, card: Card, shape: Shape) -> Iterator[Row]:
    """One shape: several launches a call, on buffers in turn, so that none finds its scores in the cache."""
    from balancesim.kernels_cupy.route import start_routing

    cupy, size = card.cupy, shape.n_tokens * shape.n_experts
    n_buffers = max(2, min(_LAUNCHES, _BYTES // (4 * size)))
    buffers = [cupy.random.standard_normal(shape[:2], dtype=cupy.float32) for _ in range(n_buffers)]
    bias = cupy.asarray(np.linspace(-0.1, 0.1, shape.n_experts, dtype=np.float32))
    loads, flags = cupy.zeros(shape.n_experts, cupy.uint64), cupy.zeros(1, cupy.uint32)
    half = cupy.empty(size // 2, cupy.float32)

    def ours(buffer: Any) -> None:
        start_routing(buffer, bias, shape.k, loads, flags, None)

    def copy(buffer: Any) -> None:
        cupy.copyto(half, buffer.ravel()[: size // 2])

    peers = {COPY: _launches(card, copy, buffers)}
    torch_route, note = _torch_route(bias, shape.k)
    if torch_route is not None:
        peers[TORCH] = _launches(card, torch_route, buffers)
    mebibytes = 4 * size >> 20
    case = f"route {shape}, {mebibytes} MiB"
    plan.say(f"{case} on {card.name}")
    pairs = interleaved(_launches(card, ours, buffers), peers, plan)
    rates = [4 * size / pair.ours.whole * _LAUNCHES / 1e9 for pair in pairs[COPY]]
    said = f"{np.median(rates):.0f} GB/s; {card.name}"
    yield compared(AREA, case, COPY, _each(pairs[COPY]), at_most(_BANDWIDTH_FACTOR), note=said)
    if torch_route is None:
        yield missing(AREA, case, TORCH, at_least(_TORCH_FACTOR), note)
    else:
        yield compared(AREA, case, TORCH, _each(pairs[TORCH]), at_least(_TORCH_FACTOR))


def _fused(plan: Plan, card: Card, n_rules: int) -> Row:
    """Draw and route for several biases, against the arithmetic that takes."""
    from balancesim.kernels_cupy.scores import DeviceModel, DrawAndRoute

    source = sources.Normal(n_experts=_FUSED.n_experts)
    biases = 0.1 * np.random.default_rng(0).standard_normal((n_rules, _FUSED.n_experts))
    task = DrawAndRoute(DeviceModel(source.kernel_model(), source.dtype), _FUSED.n_tokens, _FUSED.k, biases)
    case = f"draw and route {_FUSED}, {n_rules} {'rule' if n_rules == 1 else 'rules'}"
    plan.say(case)
    call = _launches(card, task.launch, list(range(_LAUNCHES)))
    floor = arithmetic_floor(_FUSED, n_rules, card.multiprocessors, card.clock)
    pairs = interleaved(call, {FLOOR: lambda: None}, plan)[FLOOR]
    found = [Pair(pair.ours, Sample(*(_LAUNCHES * floor,) * 3)) for pair in pairs]
    note = f"floor at {card.clock / 1e9:.2f} GHz"
    return compared(AREA, case, FLOOR, _each(found), at_most(_FLOOR_FACTOR), note=note)


def _long_run(plan: Plan, card: Card) -> Row:
    """10^6 steps of 16 rules in one call of `simulate`."""
    from balancesim.simulation import simulate

    rules = [AlfLB(step_size=size) for size in np.geomspace(0.01, 10.0, _LONG_RULES)]
    source = sources.Normal(n_experts=_LONG.n_experts)
    run = functools.partial(
        simulate, rules, source, n_tokens=_LONG.n_tokens, k=_LONG.k, n_exact=0, backend="cupy"
    )
    case = f"{_LONG_STEPS:.0e} steps of {_LONG}, {_LONG_RULES} rules".replace("e+0", "e")
    plan.say(case)
    run(horizon=100)
    start = time.perf_counter()
    run(horizon=_LONG_STEPS)
    seconds = time.perf_counter() - start
    return measured(AREA, case, [Sample(seconds, 0.0, seconds)], note=f"one call, on {card.name}")


def _launches(card: Card, function: Callable[[Any], Any], arguments: list[Any]) -> Call:
    """Launch on arguments in turn, then wait: a call long enough for the clock."""

    def call() -> None:
        for i in range(_LAUNCHES):
            function(arguments[i % len(arguments)])
        card.cupy.cuda.Device().synchronize()

    return call


def _each(pairs: list[Pair]) -> list[Pair]:
    """One launch of each pair of calls."""
    return [Pair(*(Sample(*(x / _LAUNCHES for x in sample)) for sample in pair)) for pair in pairs]


def _torch_route(bias: Any, k: int) -> tuple[Callable[[Any], Any] | None, str]:
    """What routes with PyTorch on the card, or why nothing does."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return None, f"cannot be loaded: {error}"
    if not torch.cuda.is_available():
        return None, "this build of torch finds no card"
    prices = torch.as_tensor(bias, device="cuda")

    def run(buffer: Any) -> object:
        top = torch.topk(torch.as_tensor(buffer, device="cuda") + prices, k, dim=1, sorted=False)
        loads = torch.bincount(top.indices.ravel(), minlength=prices.numel())
        total = top.values.sum(dtype=torch.float64)
        torch.cuda.current_stream().synchronize()
        return loads, total

    return run, ""
