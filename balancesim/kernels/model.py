"""What a source of scores looks like to a kernel: one flat record of arrays and numbers.

Every source that can be drawn inside a kernel is an instance of the same model, so that one compiled loop
serves them all::

    scores[t, e] = transform(offsets[phase, e] + walk[step, e] + table[row(t), e]
                             + sum_r loadings[e, r] factor_r(t) + scale * z[t, e])

with z i.i.d. noise of one family. Empty tables and loadings drop out.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

LANES: Final = 128
"""Tokens per tile, a power of two: a tile of 64 float32 experts fills a 32 KiB first-level cache."""

GROUP: Final = 8
"""Tiles hold a multiple of this many rows (experts); rows past the last expert are minus infinity."""

# Families of noise.
NO_NOISE: Final = 0
UNIFORM: Final = 1
NORMAL: Final = 2
LOGISTIC: Final = 3
GUMBEL: Final = 4
EXPONENTIAL: Final = 5
STUDENT_T: Final = 6
CAUCHY: Final = 7
LOG_NORMAL: Final = 8
PARETO: Final = 9

# Transforms of the sum.
RAW: Final = 0
SIGMOID: Final = 1
SOFTMAX: Final = 2

# How a token finds its row of the table.
NO_ROWS: Final = 0
DRAWN_ROWS: Final = 1
NEXT_ROWS: Final = 2

# Streams of random words: the last word of Philox's counter.
STREAM_NOISE: Final = 0
STREAM_ROW: Final = 1
STREAM_FACTOR: Final = 2
STREAM_WALK: Final = 3
STREAM_FEATURE: Final = 4
STREAM_REWARD: Final = 5
STREAM_WEIGHT: Final = 6
STREAM_CENTRE: Final = 7
STREAM_VALUE: Final = 8

WALK_LEVELS: Final = 32
"""A random walk is defined for steps below 2**WALK_LEVELS."""


class ScoreModel(NamedTuple):
    """A source of scores, flattened. The tile's dtype decides whether noise is made in float32 or float64.

    Attributes
    ----------
    n_experts : int
        E.
    key0, key1 : uint64
        The key of every draw, below 2**32 each.
    family, shape, scale : int, float, float
        Noise family, its parameter (tail index, degrees of freedom, sigma) and its scale.
    transform : int
        RAW, SIGMOID or SOFTMAX.
    phase_start : (P,) int64
        The step at which each phase of a switching source begins; the first is 0.
    offsets : (P, E) float64
        Added to every token's scores in that phase.
    walk_rate : float
        Standard deviation of one step of the offsets' random walk.
    row_mode : int
        NO_ROWS, DRAWN_ROWS (by the alias method) or NEXT_ROWS (token t of step s takes row
        ``row_origin + s * n_tokens + t``).
    row_origin : int
        See ``row_mode``; negative where the table holds a later part of a longer recording.
    phase_row : (P + 1,) int64
        Rows ``phase_row[i]:phase_row[i + 1]`` of the table belong to phase i.
    alias_threshold, alias_row : (R,) float64, (R,) int64
        Walker's alias table; rows relative to the phase's first.
    table : (R, E) float
        Expected scores per row.
    loadings : (E, F) float64
        Weights of the F normal factors that a token's scores share.
    """

    n_experts: int
    key0: np.uint64
    key1: np.uint64
    family: int
    shape: float
    scale: float
    transform: int
    phase_start: NDArray[np.int64]
    offsets: NDArray[np.float64]
    walk_rate: float
    row_mode: int
    row_origin: int
    phase_row: NDArray[np.int64]
    alias_threshold: NDArray[np.float64]
    alias_row: NDArray[np.int64]
    table: NDArray[Any]
    loadings: NDArray[np.float64]


def n_rows(n_experts: int) -> int:
    """Rows of a tile for this many experts: the next multiple of GROUP."""
    return -(-n_experts // GROUP) * GROUP
