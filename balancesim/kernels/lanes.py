"""Tiles as one row of numbers, for loops over lanes that read and write many rows.

With (row, lane) indices LLVM can tell neither that rows of a tile do not overlap nor that a row's number is
not negative, and checks both at run time for every pair of rows: as much work as the loops themselves. Rows
that lie a constant `ROW` apart in one flat array, indexed without a sign, need one check for two arrays.
"""

from typing import Any

import numpy as np
from numba.core import types
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload
from numba.np.arrayobj import populate_array

from balancesim.kernels.jit import INLINE_OPTIONS, inline
from balancesim.kernels.model import LANES

ROW = np.uint64(LANES)
"""Distance of two rows in a flat tile."""


def flat(tile: Any) -> Any:
    """Return a C-contiguous array of two dimensions as one row: a view, valid for as long as the array."""
    return tile.reshape(-1)


@intrinsic
def _view(typing_context, tile):
    if tile.layout != "C":
        raise TypingError(f"`tile` must be C-contiguous, got {tile}")
    row = types.Array(tile.dtype, 1, "C")

    def generate(context, builder, signature, args):
        array = context.make_array(tile)(context, builder, args[0])
        view = context.make_array(row)(context, builder)
        # No owner, so that nothing counts references in the loops' way.
        populate_array(
            view,
            data=array.data,
            shape=[array.nitems],
            strides=[array.itemsize],
            itemsize=array.itemsize,
            meminfo=None,
        )
        return view._getvalue()

    return row(tile), generate


@overload(flat, jit_options=INLINE_OPTIONS)
def _flat(tile):
    return lambda tile: _view(tile)  # type: ignore[call-arg]


@inline
def start(row):
    """Index of a row's first lane in a flat tile."""
    return np.uint64(row) * ROW


def as_wide(count: Any, scores: Any) -> Any:
    """Return an integer in as many bits as a score has, so that SIMD counts as many lanes as it compares.

    Of two int32 Numba makes an int64: sums are to be brought back at every step.
    """
    return np.int32(count) if scores.itemsize == 4 else np.int64(count)


@overload(as_wide, jit_options=INLINE_OPTIONS)
def _as_wide(count, scores):
    if scores.dtype.bitwidth == 32:
        return lambda count, scores: np.int32(count)  # noqa: ARG005 - the arguments of what it stands for
    return lambda count, scores: np.int64(count)  # noqa: ARG005
