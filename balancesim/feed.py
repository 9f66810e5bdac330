"""Batches for kernels: models that they draw from, or scores made elsewhere, a chunk at a time."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from balancesim.batches import check_masks
from balancesim.errors import InputError
from balancesim.kernels import model as codes
from balancesim.kernels.model import ScoreModel
from balancesim.sources.base import Source, rows_model

_SCORES_PER_CHUNK = 1 << 22
"""Scores that a Python-side source hands over at once: 16 or 32 MiB."""

_PILOT_TOKENS = 256


class Chunk(NamedTuple):
    """Steps ``first .. last`` (inclusive, counted from 0) and the model that yields their scores."""

    first: int
    last: int
    model: ScoreModel


def available_steps(source: Source, n_tokens: int, horizon: int) -> int:
    """Steps that the source can feed, at most ``horizon``."""
    available = source.n_steps(n_tokens)
    return horizon if available is None else min(available, horizon)


def chunks(source: Source, n_tokens: int, k: int, n_steps: int, *, steps_per_chunk: int) -> Iterator[Chunk]:
    """Yield consecutive chunks of steps, each with a model whose scores a kernel can make or read.

    Where the chunks end does not change a score. Scores that come from outside the kernels are checked here.
    """
    model = source.kernel_model()
    if model is None:
        steps_per_chunk = max(1, min(steps_per_chunk, _SCORES_PER_CHUNK // (n_tokens * source.n_experts)))
    elif model.row_mode == codes.DRAWN_ROWS and model.table.size:
        check_masks(model.table, k)
    for first in range(0, n_steps, steps_per_chunk):
        last = min(first + steps_per_chunk, n_steps) - 1
        if model is not None:
            yield Chunk(first, last, model)
        else:
            batches = [checked_batch(source, step, n_tokens) for step in range(first, last + 1)]
            rows: NDArray[Any] = np.concatenate(batches)
            check_masks(rows, k, first * n_tokens)
            # Rows count from the first step of the run, the table from that of the chunk.
            given = rows_model(rows, row_mode=codes.NEXT_ROWS, row_origin=-first * n_tokens)
            yield Chunk(first, last, given)


def checked_batch(source: Source, step: int, n_tokens: int) -> NDArray[Any]:
    """Return a batch whose shape, dtype and values kernels may trust; raise `InputError` otherwise."""
    scores: NDArray[Any] = np.ascontiguousarray(source.batch(step, n_tokens))
    if scores.shape != (n_tokens, source.n_experts):
        raise InputError(
            f"`source`.batch must return (T, E) = ({n_tokens}, {source.n_experts}) scores, got {scores.shape}"
        )
    if scores.dtype not in (np.float32, np.float64):
        raise InputError(f"`source`.batch must return float32 or float64 scores, got {scores.dtype}")
    if not np.isfinite(scores).all():
        check_masks(scores, 1, step * n_tokens)
    return scores


def pilot(source: Source, n_tokens: int = _PILOT_TOKENS) -> NDArray[Any]:
    """Return the first batch, or as much of it as a short recording holds."""
    available = source.n_steps(1)
    return checked_batch(source, 0, n_tokens if available is None else min(n_tokens, available))


def score_dtype(source: Source) -> np.dtype[np.float32] | np.dtype[np.float64]:
    """Return the dtype that the source's scores are drawn and routed in."""
    model = source.kernel_model()
    return pilot(source, 1).dtype if model is None else model.table.dtype


def wide_limit(source: Source) -> float:
    """Score magnitude above which top-K sums are compared by membership (S5).

    Below it, the rounding of one biased score is at most 1 % (float32) or 1e-4 (float64) of the scale on
    which scores compete, and unbiased, in a regret that sums thousands of tokens. That scale is five times
    the shortest interval that holds a tenth of a pilot's scores: for light tails about the interquartile
    range, for very heavy ones that of the bulk.
    """
    scores = pilot(source).astype(np.float64)
    pooled = np.sort(scores[np.isfinite(scores)])
    tenth = max(1, pooled.size // 10)
    scale = 5.0 * float((pooled[tenth:] - pooled[:-tenth]).min()) or float(np.ptp(pooled)) or 1.0
    return scale * (2.0**17 if score_dtype(source) == np.float32 else 2.0**40)
