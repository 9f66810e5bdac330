"""Scores made on the card: a source's model there, batches, and drawing fused with routing."""

from typing import Any

import numpy as np

from balancesim.errors import InputError
from balancesim.kernels.model import NO_ROWS, SOFTMAX, ScoreModel
from balancesim.kernels_cupy import device
from balancesim.kernels_cupy.program import Layout, fits, layout, program
from balancesim.types import Float64Array, IntArray

_WARPS = 4

# struct Model of scores.cuh: every field is 8 bytes wide.
_FIELDS = (
    ("n_experts", np.int64), ("n_phases", np.int64), ("n_factors", np.int64), ("row_origin", np.int64),
    ("shape", np.float64), ("scale", np.float64), ("walk_rate", np.float64),
    ("phase_start", np.uint64), ("phase_row", np.uint64), ("offsets", np.uint64), ("first_offset", np.int64),
    ("alias_threshold", np.uint64), ("alias_row", np.uint64), ("table", np.uint64), ("loadings", np.uint64),
)  # fmt: skip


class DeviceModel:
    """A `ScoreModel` in the card's memory, for scores of one dtype.

    Parameters
    ----------
    model : ScoreModel
        The model.
    dtype : dtype
        What scores are drawn in.

    Raises
    ------
    InputError
        If the model's table takes more than half of the card's free memory.
    """

    def __init__(self, model: ScoreModel, dtype: Any) -> None:
        cupy = device.cupy()
        if model.table.nbytes > device.free_bytes() // 2:
            raise InputError(
                f"`source` is a table of {model.table.nbytes / 2**30:.1f} GiB, more than half of the card's "
                'free memory; use backend "numba"'
            )
        self.model = model
        self.dtype = np.dtype(dtype)
        self.real = "float" if self.dtype.itemsize == 4 else "double"
        self.keys = (np.uint32(model.key0), np.uint32(model.key1))
        self.walks = model.walk_rate > 0.0
        self._phase_offsets = cupy.asarray(model.offsets)
        self._arrays = {
            "phase_start": cupy.asarray(model.phase_start),
            "phase_row": cupy.asarray(model.phase_row),
            "offsets": cupy.asarray(model.offsets.astype(self.dtype)),
            "alias_threshold": cupy.asarray(model.alias_threshold),
            "alias_row": cupy.asarray(model.alias_row),
            "table": cupy.asarray(model.table.astype(self.dtype, copy=False)),
            "loadings": cupy.asarray(np.ascontiguousarray(model.loadings)),
        }
        self.first_offset = 0

    def macros(self) -> dict[str, int]:
        """What ``scores.cuh`` is told."""
        return {
            "FAMILY": self.model.family,
            "TRANSFORM": self.model.transform,
            "ROWS": self.model.row_mode,
            "FACTORS": int(self.model.loadings.shape[1] > 0),
        }

    def struct(self) -> Any:
        """The model as kernels take it, by value."""
        model = self.model
        values = {
            "n_experts": model.n_experts,
            "n_phases": model.phase_start.size,
            "n_factors": model.loadings.shape[1],
            "row_origin": model.row_origin,
            "shape": model.shape,
            "scale": model.scale,
            "walk_rate": model.walk_rate,
            "first_offset": self.first_offset,
            **{name: array.data.ptr for name, array in self._arrays.items()},
        }
        return np.array(tuple(values[name] for name, _ in _FIELDS), np.dtype(list(_FIELDS)))

    def extra_bytes(self, n_tokens: int) -> int:
        """Shared memory for what is drawn once a token, of a tile of so many tokens."""
        n_bytes = 8 * n_tokens if self.model.row_mode != NO_ROWS else 0
        n_bytes += 8 * n_tokens * self.model.loadings.shape[1]
        if self.model.transform == SOFTMAX:
            n_bytes += -(-n_tokens * self.dtype.itemsize // 16) * 16
        return int(-(-n_bytes // 16) * 16)

    def prepare(self, first: int, last: int) -> None:
        """Make the offsets of steps ``first .. last``, counted from 0, where they walk."""
        if not self.walks:
            return
        cupy = device.cupy()
        n_steps, n_pairs = last - first + 1, (self.model.n_experts + 1) // 2
        offsets = cupy.empty((n_steps, self.model.n_experts), self.dtype)
        function = device.kernel(_draw_program(self, layout(self.model.n_experts, 1)), "walk_offsets")
        arguments = (
            *self.keys, self.struct(), self._phase_offsets, np.int64(first), np.int64(n_steps), offsets
        )  # fmt: skip
        device.launch(function, -(-n_steps * n_pairs // 128), 128, arguments, 0)
        self._arrays["offsets"], self.first_offset = offsets, first


def _draw_program(model: DeviceModel, shape: Layout) -> Any:
    return program("draw", model.real, **shape.macros(), **model.macros(), WARPS=_WARPS)


def _check(n_experts: int, k: int) -> None:
    if not fits(n_experts, k):
        raise InputError(
            f'`backend` "cupy" draws for at most 2048 experts and K = 16, got {n_experts} and {k}; '
            'use backend "numba"'
        )


def draw_batch(model: ScoreModel, step: int, n_tokens: int, dtype: Any) -> Any:
    """Draw one step's scores.

    Parameters
    ----------
    model : ScoreModel
        Where the scores come from.
    step, n_tokens : int
        The step, counted from 0, and tokens.
    dtype : dtype
        What scores are drawn in.

    Returns
    -------
    (T, E) CuPy array
        The bits of the Numba kernels' batch.
    """
    cupy = device.cupy()
    _check(model.n_experts, 1)
    own = DeviceModel(model, dtype)
    own.prepare(step, step)
    shape = layout(model.n_experts, 1)
    function = device.kernel(_draw_program(own, shape), "draw_batch")
    n_bytes = _WARPS * _warp_bytes(own, shape)
    device.allow_shared_memory(function, n_bytes)
    scores = cupy.empty((n_tokens, model.n_experts), own.dtype)
    n_blocks = min(
        device.resident_blocks(function, 32 * _WARPS, n_bytes), -(-n_tokens // (_WARPS * shape.tokens))
    )
    arguments = (
        *own.keys, own.struct(), np.int64(step), np.int64(0), np.int64(n_tokens), np.int64(n_tokens), scores
    )  # fmt: skip
    device.launch(function, n_blocks, 32 * _WARPS, arguments, n_bytes)
    return scores


def draw_and_route(
    model: DeviceModel, step: int, n_tokens: int, k: int, biases: Float64Array
) -> tuple[IntArray, Float64Array]:
    """Route a step's tokens under several biases as they are drawn: no score reaches the card's memory.

    Parameters
    ----------
    model : DeviceModel
        Where the scores come from.
    step, n_tokens, k : int
        The step, counted from 0, tokens, and experts per token.
    biases : (S, E) ndarray
        Rounded to the scores' dtype.

    Returns
    -------
    loads : (S, E) ndarray of int64
        The loads under each bias.
    values : (S,) ndarray of float64
        The sums of the chosen biased scores.
    """
    start = DrawAndRoute(model, n_tokens, k, biases)
    start.launch(step)
    return start.loads.get().astype(np.int64), start.values.get().sum(axis=0)


class DrawAndRoute:
    """What `draw_and_route` launches, for several steps at the same biases: loads add up.

    Parameters
    ----------
    model, n_tokens, k, biases
        As those of `draw_and_route`.
    """

    def __init__(self, model: DeviceModel, n_tokens: int, k: int, biases: Float64Array) -> None:
        cupy = device.cupy()
        n_biases, n_experts = biases.shape
        _check(n_experts, k)
        shape = layout(n_experts, k)
        self.model, self.n_tokens, self.k, self.n_biases = model, n_tokens, k, n_biases
        self._function = device.kernel(_draw_program(model, shape), "draw_and_route")
        size = model.dtype.itemsize
        self._n_bytes = (
            n_biases * shape.lanes * (shape.stride(size) * size + 4 * shape.slots)
            + -(-8 * n_biases * _WARPS // 16) * 16
            + _WARPS * _warp_bytes(model, shape)
        )
        device.allow_shared_memory(self._function, self._n_bytes)
        resident = device.resident_blocks(self._function, 32 * _WARPS, self._n_bytes)
        self._n_blocks = max(1, min(resident, -(-n_tokens // (_WARPS * shape.tokens))))
        self._biases = cupy.asarray(biases.astype(model.dtype))
        self.loads = cupy.zeros((n_biases, n_experts), np.uint64)
        self.values = cupy.zeros((self._n_blocks, n_biases))

    def launch(self, step: int) -> None:
        """Start one step."""
        self.model.prepare(step, step)
        arguments = (
            *self.model.keys, self.model.struct(), np.int64(step), np.int64(self.n_tokens), np.int32(self.k),
            np.int32(self.n_biases), self._biases, self.loads, self.values,
        )  # fmt: skip
        device.launch(self._function, self._n_blocks, 32 * _WARPS, arguments, self._n_bytes)


def _warp_bytes(model: DeviceModel, shape: Layout) -> int:
    size = int(model.dtype.itemsize)
    return 32 * shape.stride(size) * size + model.extra_bytes(shape.tokens)
