"""Blocks of eight by eight, transposed in registers.

Copying token-major scores into an expert-major tile one number at a time costs more than finding the top-K.
LLVM does not find the shuffles by itself, so they are written out: three rounds, each pairing rows at
distance 4, 2, 1. On other processors than x86 the same shuffles lower to what is there.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, overload

from balancesim.kernels.jit import inner

_SIDE = 8


def _transpose_vectors(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose eight vectors of eight: element j of vector i becomes element i of vector j."""
    index = ir.VectorType(ir.IntType(32), _SIDE)
    for distance in (4, 2, 1):
        block = 2 * distance
        low = [j if j % block < distance else _SIDE + j - distance for j in range(_SIDE)]
        high = [j + distance if j % block < distance else _SIDE + j for j in range(_SIDE)]
        mixed = list(rows)
        for i in range(_SIDE):
            if i % block < distance:
                first, second = rows[i], rows[i + distance]
                mixed[i] = builder.shuffle_vector(first, second, ir.Constant(index, low))
                mixed[i + distance] = builder.shuffle_vector(first, second, ir.Constant(index, high))
        rows = mixed
    return rows


def _block_intrinsic(add: bool) -> Any:
    """Make the intrinsic that copies a transposed block into the tile, or adds it to the tile."""

    @intrinsic
    def block(typing_context, scores, rows, expert, tile, lane):
        signature = types.void(scores, rows, types.intp, tile, types.intp)

        def generate(context, builder, signature, args):
            scores_type, rows_type, _, tile_type, _ = signature.args
            scores_value, rows_value, expert_value, tile_value, lane_value = args
            vector = ir.VectorType(context.get_data_type(scores_type.dtype), _SIDE)
            itemsize = scores_type.dtype.bitwidth // 8

            def item(array_type, value, *place):
                array = context.make_array(array_type)(context, builder, value)
                return cgutils.get_item_pointer(context, builder, array_type, array, place, wraparound=False)

            def shifted(value, offset):
                return builder.add(value, context.get_constant(types.intp, offset))

            def pointer(array_type, value, row, column):
                return builder.bitcast(item(array_type, value, row, column), vector.as_pointer())

            loaded = []
            for i in range(_SIDE):
                row = builder.load(item(rows_type, rows_value, shifted(lane_value, i)))
                loaded.append(
                    builder.load(pointer(scores_type, scores_value, row, expert_value), align=itemsize)
                )
            for j, column in enumerate(_transpose_vectors(builder, loaded)):
                target = pointer(tile_type, tile_value, shifted(expert_value, j), lane_value)
                if add:
                    column = builder.fadd(builder.load(target, align=itemsize), column)
                builder.store(column, target, align=itemsize)
            return context.get_dummy_value()

        return signature, generate

    return block


_copy_block = _block_intrinsic(add=False)
_add_block = _block_intrinsic(add=True)


def copy_block(scores, rows, expert, tile, lane):
    """Copy experts ``expert .. expert + 7`` of the rows of lanes ``lane .. lane + 7`` into the tile."""
    block = scores[rows[lane : lane + _SIDE], expert : expert + _SIDE]
    tile[expert : expert + _SIDE, lane : lane + _SIDE] = block.T


def add_block(scores, rows, expert, tile, lane):
    """Add what `copy_block` copies."""
    block = scores[rows[lane : lane + _SIDE], expert : expert + _SIDE]
    tile[expert : expert + _SIDE, lane : lane + _SIDE] += block.T


@overload(copy_block)
def _copy(scores, rows, expert, tile, lane):
    return lambda scores, rows, expert, tile, lane: _copy_block(scores, rows, expert, tile, lane)


@overload(add_block)
def _add(scores, rows, expert, tile, lane):
    return lambda scores, rows, expert, tile, lane: _add_block(scores, rows, expert, tile, lane)


@inner
def mask_rows(tile, n_experts, n_lanes):
    """Make the rows past the last expert minus infinity, so that nothing chooses them."""
    nothing = tile.dtype.type(-np.inf)
    for e in range(n_experts, tile.shape[0]):
        for t in range(n_lanes):
            tile[e, t] = nothing


@inner
def load_tile(scores, rows, n_lanes, tile):
    """Copy rows of C-contiguous, token-major scores into an expert-major tile: lane t takes ``rows[t]``.

    Rows of the tile past the last expert become minus infinity.
    """
    n_experts = scores.shape[1]
    whole_lanes = n_lanes // _SIDE * _SIDE
    whole_experts = n_experts // _SIDE * _SIDE
    for lane in range(0, whole_lanes, _SIDE):
        for expert in range(0, whole_experts, _SIDE):
            copy_block(scores, rows, expert, tile, lane)
    for t in range(n_lanes):
        for e in range(whole_experts if t < whole_lanes else 0, n_experts):
            tile[e, t] = scores[rows[t], e]
    mask_rows(tile, n_experts, n_lanes)


@inner
def add_rows(table, rows, n_lanes, tile):
    """Add rows of a C-contiguous table to an expert-major tile: lane t takes ``rows[t]``."""
    n_experts = table.shape[1]
    whole_lanes = n_lanes // _SIDE * _SIDE
    whole_experts = n_experts // _SIDE * _SIDE
    for lane in range(0, whole_lanes, _SIDE):
        for expert in range(0, whole_experts, _SIDE):
            add_block(table, rows, expert, tile, lane)
    for t in range(n_lanes):
        for e in range(whole_experts if t < whole_lanes else 0, n_experts):
            tile[e, t] += table[rows[t], e]
