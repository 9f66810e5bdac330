"""The simulation loop on the card: many steps a launch, with no word from the host between them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from balancesim.errors import InputError
from balancesim.kernels_cupy import device
from balancesim.kernels_cupy.program import Layout, fits, program, spread_layout
from balancesim.kernels_cupy.scores import DeviceModel
from balancesim.types import Float64Array, IntArray

_MOST_RULES = 32
_MOST_WARPS = 20
"""Warps that route at a time in a block: more would leave too few registers to each."""

_LEAST_WARPS = 4
"""Warps of a block, where there are fewer passes: they draw too."""

_NUMBERS = 4
MOST_RECORDS = 64
"""Records of one launch; more would need more launches, not more memory."""

_COUNTS = ("n_rules", "n_comparators", "n_tokens", "k", "n_records", "has_projection")
_NUMBER_FIELDS = ("limit", "largest_price", "balanced")
_POINTERS = (
    "parameters", "updates", "against", "comparators", "comparator_sum", "records", "price", "stopped",
    "sums", "numbers", "window_loads", "loads", "barrier", "recorded_sums", "recorded_numbers",
    "recorded_price", "recorded_loads", "recorded_window",
)  # fmt: skip
_LOOP = np.dtype(
    [(name, np.int64) for name in _COUNTS]
    + [(name, np.float64) for name in _NUMBER_FIELDS]
    + [(name, np.uint64) for name in _POINTERS]
)


class Problem(NamedTuple):
    """What a loop runs: S rules that share draws.

    Attributes
    ----------
    n_tokens, k : int
        Tokens a step, experts per token.
    parameters : (S, 5) ndarray of float64
        Schedule, step size, delay, recentring and radius of ALF-LB; anything for a rule whose price stays.
    updates : (S,) ndarray of bool
        Whether the price moves.
    against : (S,) ndarray of int64
        The comparator's index, or -1.
    comparators : (C, E) ndarray of float64
        What regret is measured against.
    price : (S, E) ndarray of float64
        Where prices start.
    limit, largest_price : float
        As in `balancesim.kernels.loop.run_steps`.
    """

    n_tokens: int
    k: int
    parameters: Float64Array
    updates: NDArray[np.bool_]
    against: IntArray
    comparators: Float64Array
    price: Float64Array
    limit: float
    largest_price: float


class Records(NamedTuple):
    """What R steps left behind.

    ``loads``, ``window_loads`` (R, S, E) int64; ``price`` (R, S, E); ``numbers`` (R, S, 4): violation, the
    window's sum of it, price sum and moved; ``regret``, ``lost`` (R, S) and ``top`` (R,), sums over tokens.
    """

    loads: IntArray
    window_loads: IntArray
    price: Float64Array
    numbers: Float64Array
    regret: Float64Array
    lost: Float64Array
    top: Float64Array


class Steps:
    """Rules on their way through the steps of one source.

    Parameters
    ----------
    problem : Problem
        The rules and the batch.
    model : DeviceModel
        A model of the source; later ones may hold other rows, but no other kind of source.
    """

    def __init__(self, problem: Problem, model: DeviceModel) -> None:
        cupy = device.cupy()
        n_rules, n_experts = problem.price.shape
        n_comparators = problem.comparators.shape[0]
        if not fits(n_experts, problem.k):
            raise InputError(
                '`backend` "cupy" simulates at most 2048 experts and K = 16, '
                f'got {n_experts} and {problem.k}; use backend "numba"'
            )
        self.problem, self._macros = problem, model.macros()
        self.n_passes = 1 + n_comparators + n_rules
        self._warps = max(n_warps(self.n_passes), 1 + n_comparators)
        self._n_threads = 32 * (self._warps + 1)
        self._shape = spread_layout(n_experts, problem.k, problem.n_tokens, device.multiprocessors())
        n_tiles = -(-problem.n_tokens // self._shape.tokens)
        self._function = device.kernel(
            program(
                "loop", model.real, **self._shape.macros(), **self._macros, WARPS=self._warps,
                BLOCK_THREADS=self._n_threads,
            ),
            "run_steps",
            cooperative=True,
        )  # fmt: skip
        self.n_blocks = min(n_tiles, device.multiprocessors())
        self._n_bytes = shared_bytes(n_rules, n_experts, n_comparators, model, self._shape, self.n_blocks)
        device.allow_shared_memory(self._function, self._n_bytes)
        dtype = model.dtype
        comparators = problem.comparators.astype(dtype)
        self._arrays = {
            "parameters": cupy.asarray(problem.parameters),
            "updates": cupy.asarray(problem.updates.astype(np.int64)),
            "against": cupy.asarray(problem.against),
            "comparators": cupy.asarray(comparators),
            "comparator_sum": cupy.asarray(_sums_in_order(comparators)),
            "price": cupy.asarray(problem.price),
            "stopped": cupy.zeros(n_rules, np.int64),
            "sums": cupy.zeros((self.n_blocks, self.n_passes, 2)),
            "numbers": cupy.zeros((n_rules, _NUMBERS)),
            "window_loads": cupy.zeros((n_rules, n_experts), np.int64),
            "loads": cupy.zeros((3, n_rules, n_experts), np.int32),
            "barrier": cupy.zeros(1, np.uint32),
        }

    def run(self, model: DeviceModel, first: int, last: int, records: Sequence[int]) -> Records:
        """Run steps ``first .. last``, counted from 1, and return what those among ``records`` leave.

        Parameters
        ----------
        model : DeviceModel
            Where the scores of these steps come from.
        first, last : int
            The steps; ``first`` follows the last one that was run.
        records : sequence of int
            At most `MOST_RECORDS` steps among these, ascending.

        Returns
        -------
        Records
            One row a record; rows after a rule has stopped mean nothing. Steps go on though every rule has.
        """
        cupy = device.cupy()
        n_rules, n_experts = self.problem.price.shape
        n = len(records)
        made = {
            "records": cupy.asarray(np.array(records, np.int64)),
            "recorded_sums": cupy.zeros((n, self.n_blocks, self.n_passes, 2)),
            "recorded_numbers": cupy.zeros((n, n_rules, _NUMBERS)),
            "recorded_price": cupy.zeros((n, n_rules, n_experts)),
            "recorded_loads": cupy.zeros((n, n_rules, n_experts), np.int64),
            "recorded_window": cupy.zeros((n, n_rules, n_experts), np.int64),
        }
        model.prepare(first - 1, last - 1)
        self._arrays["barrier"].fill(0)
        problem = self.problem
        values = {
            "n_rules": n_rules,
            "n_comparators": problem.comparators.shape[0],
            "n_tokens": problem.n_tokens,
            "k": problem.k,
            "n_records": n,
            "has_projection": int(_has_projection(problem)),
            "limit": problem.limit,
            "largest_price": problem.largest_price,
            "balanced": problem.n_tokens * problem.k / n_experts,
            **{name: array.data.ptr for name, array in {**self._arrays, **made}.items()},
        }
        struct = np.array(tuple(values[name] for name in _LOOP.names or ()), _LOOP)
        arguments = (*model.keys, model.struct(), struct, np.int64(first), np.int64(last))
        device.launch(self._function, self.n_blocks, self._n_threads, arguments, self._n_bytes)
        sums = made["recorded_sums"].get().sum(axis=1)
        n_base = self.n_passes - n_rules
        return Records(
            loads=made["recorded_loads"].get(),
            window_loads=made["recorded_window"].get(),
            price=made["recorded_price"].get(),
            numbers=made["recorded_numbers"].get(),
            regret=sums[:, n_base:, 0],
            lost=sums[:, n_base:, 1],
            top=sums[:, 0, 0],
        )

    def stopped(self) -> IntArray:
        """The step after which each rule stopped, 0 for those that still run, (S,)."""
        found: IntArray = self._arrays["stopped"].get()
        return found


def n_warps(n_passes: int) -> int:
    """Warps that share so many passes over a tile evenly."""
    turns = -(-n_passes // _MOST_WARPS)
    return max(-(-n_passes // turns), _LEAST_WARPS)


def most_rules(n_experts: int, n_tokens: int, k: int, n_comparators: int, model: DeviceModel) -> int:
    """Rules of one launch: as many as a block's shared memory holds, at most 32."""
    if not fits(n_experts, k):
        return _MOST_RULES
    shape = spread_layout(n_experts, k, n_tokens, device.multiprocessors())
    n_blocks = min(-(-n_tokens // shape.tokens), device.multiprocessors())
    limit = device.shared_memory_limit()
    for n_rules in range(_MOST_RULES, 1, -1):
        if shared_bytes(n_rules, n_experts, n_comparators, model, shape, n_blocks) <= limit:
            return n_rules
    return 1


def shared_bytes(
    n_rules: int, n_experts: int, n_comparators: int, model: DeviceModel, shape: Layout, n_blocks: int
) -> int:
    """Shared memory of a block, in the order of ``Shared`` in ``loop.cu``."""
    size = model.dtype.itemsize
    n_base = 1 + n_comparators
    n_passes, n_owned = n_base + n_rules, -(-n_rules // n_blocks)
    row = shape.stride(size) * size
    n_bytes: int = (
        (32 + 2 * n_passes * shape.lanes) * row
        + model.extra_bytes(shape.tokens)
        + 8 * n_rules * (n_experts + 6)
        + 8 * 64 * n_passes
        + 8 * n_owned * (_NUMBERS + n_experts)
        + size * n_base * shape.tokens * shape.ranks
        + 4 * (4 * n_rules + shape.tokens)
    )
    return n_bytes


def _has_projection(problem: Problem) -> bool:
    centred = (problem.parameters[:, 3] != 0.0) | np.isfinite(problem.parameters[:, 4])
    return bool((centred & problem.updates).any())


def _sums_in_order(comparators: Any) -> Float64Array:
    """Sums of rounded numbers from the first expert to the last, as the Numba loop makes them."""
    totals = np.zeros(comparators.shape[0])
    for column in comparators.T:
        totals += column.astype(np.float64)
    return totals
