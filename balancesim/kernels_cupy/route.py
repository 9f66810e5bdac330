"""Routing of given scores on the card, in one pass over them; batches from the host are streamed."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from balancesim.kernels_cupy import device
from balancesim.kernels_cupy.program import fits, layout, program
from balancesim.types import IntArray

_WARPS = 4
_CHUNK_BYTES = 1 << 28
_SHARED_EXPERTS = 8192
"""Experts whose loads a block of the general kernel counts in shared memory."""

NOT_FINITE, TOO_FEW = 1, 2


class Routed(NamedTuple):
    """Loads (E,), value, the chosen experts or None, and flags: `NOT_FINITE` and `TOO_FEW`, or zero."""

    loads: IntArray
    value: float
    experts: Any
    flags: int


class RouteKernel(NamedTuple):
    """A compiled kernel, its shared memory, the blocks that the card holds, a block's tokens at a time."""

    function: Any
    n_bytes: int
    n_blocks: int
    per_block: int


def route_tokens(scores: Any, bias: Any, k: int, *, experts: bool, chunk_bytes: int | None = None) -> Routed:
    """Route a batch that lies on the host or on the card.

    Parameters
    ----------
    scores : (T, E) C-contiguous array of float32 or float64
        NumPy's or CuPy's.
    bias : (E,) ndarray of the same dtype
        Added to the scores.
    k : int
        Experts per token.
    experts : bool
        Whether to return the choice, where the scores are.
    chunk_bytes : int, optional
        The most that is copied to the card at a time; by default what a quarter of its free memory holds.

    Returns
    -------
    Routed
        Loads are exact, ties to the lower index; the value is a float64 sum whose order depends on the card.
    """
    cupy = device.cupy()
    n_tokens, n_experts = scores.shape
    loads = cupy.zeros(n_experts, np.uint64)
    flags = cupy.zeros(1, np.uint32)
    prices = cupy.asarray(bias)
    on_card = device.is_on_card(scores)
    if chunk_bytes is None:
        chunk_bytes = min(_CHUNK_BYTES, device.free_bytes() // 4)
    rows = n_tokens if on_card else max(1, chunk_bytes // max(scores[:1].nbytes, 1))
    chosen = _room(cupy if on_card else np, n_tokens, k) if experts else None
    values = []
    buffer = None if on_card else cupy.empty((min(rows, n_tokens), n_experts), scores.dtype)
    for first in range(0, n_tokens, rows):
        part = scores[first : first + rows]
        if buffer is not None:
            buffer[: part.shape[0]].set(part)
            part = buffer[: part.shape[0]]
        own = None
        if chosen is not None:
            own = chosen if on_card else _room(cupy, part.shape[0], k)
        values.append(start_routing(part, prices, k, loads, flags, own))
        if chosen is not None and own is not None and not on_card:
            chosen[first : first + rows] = own.get()
    value = float(sum(float(part.sum()) for part in (one.get() for one in values)))
    return Routed(loads.get().astype(np.int64), value, chosen, int(flags.get()[0]))


def contiguous(scores: Any) -> Any:
    """Return scores that lie on the card as a C-contiguous CuPy array, a view where that is one already.

    Parameters
    ----------
    scores : array
        Of any library that has the CUDA array interface.

    Returns
    -------
    CuPy array
        The same numbers.
    """
    cupy = device.cupy()
    return cupy.ascontiguousarray(cupy.asarray(scores))


def _room(module: Any, n_tokens: int, k: int) -> Any:
    return module.empty((n_tokens, k), np.int64)


def start_routing(scores: Any, bias: Any, k: int, loads: Any, flags: Any, experts: Any) -> Any:
    """Start one part; return its blocks' values, on the card."""
    cupy = device.cupy()
    n_tokens, n_experts = scores.shape
    vector = scores.data.ptr % 16 == 0 and n_experts * scores.itemsize % 16 == 0
    found = route_kernel(n_experts, k, scores.dtype.itemsize, vector, experts is not None)
    n_blocks = max(1, min(found.n_blocks, -(-n_tokens // found.per_block)))
    values = cupy.empty(n_blocks)
    device.launch(
        found.function,
        n_blocks,
        32 * _WARPS,
        (
            scores, np.int64(n_tokens), np.int32(n_experts), np.int32(k), bias, loads, values, flags,
            np.uint64(0) if experts is None else experts,
        ),
        found.n_bytes,
    )  # fmt: skip
    return values


@cache
def route_kernel(
    n_experts: int, k: int, itemsize: int, vector: bool = True, choice: bool = False
) -> RouteKernel:
    """Compile the kernel for these sizes, and find how many of its blocks the card holds."""
    real = "float" if itemsize == 4 else "double"
    if not fits(n_experts, k):
        shared = n_experts <= _SHARED_EXPERTS
        function = device.kernel(program("any", real, WARPS=_WARPS, SHARED=int(shared)), "route_any")
        n_bytes, per_block = (4 * n_experts if shared else 0), _WARPS
    else:
        shape = layout(n_experts, k)
        macros = {**shape.macros(), "WARPS": _WARPS, "VECTOR": int(vector), "CHOICE": int(choice)}
        function = device.kernel(program("route", real, **macros), "route_tokens")
        stride = shape.stride(itemsize)
        n_bytes = (shape.lanes + 32 * _WARPS) * stride * itemsize + 4 * shape.lanes * shape.slots
        per_block = _WARPS * shape.tokens
    device.allow_shared_memory(function, n_bytes)
    return RouteKernel(function, n_bytes, device.resident_blocks(function, 32 * _WARPS, n_bytes), per_block)
