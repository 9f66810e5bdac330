"""Tiles of scores, (experts, tokens): noise, plus what a source's model adds to it, transformed."""

from typing import Any

import numpy as np
from numba.extending import overload

from balancesim.kernels.elementary import exp32, exp64
from balancesim.kernels.jit import INLINE_OPTIONS, inline, inner, kernel, pointer_to
from balancesim.kernels.model import (
    DRAWN_ROWS,
    LANES,
    NO_NOISE,
    NO_ROWS,
    RAW,
    SIGMOID,
    STREAM_FACTOR,
    STREAM_NOISE,
    STREAM_ROW,
    STREAM_WALK,
    WALK_LEVELS,
    ScoreModel,
    n_rows,
)
from balancesim.kernels.noise import draw_words, fill_noise, join, normals, uniform64
from balancesim.kernels.transpose import add_rows, mask_rows

_rows_of = inline(n_rows)


def _exp(x):
    return exp32(x) if isinstance(x, np.float32) else exp64(x)


@overload(_exp, jit_options=INLINE_OPTIONS)
def _exp_of_type(x):
    if x.bitwidth == 32:
        return lambda x: exp32(x)
    return lambda x: exp64(x)


@inner
def phase_of(model, step):
    """The phase of a switching source that a step belongs to."""
    phase = 0
    while phase + 1 < model.phase_start.size and step >= model.phase_start[phase + 1]:
        phase += 1
    return phase


@inner
def add_walk(model, step, offsets):
    """Add the random walk's position at ``step`` to the offsets.

    Levy's construction of the Brownian bridge: halve [0, 2**WALK_LEVELS] towards the step; each midpoint is
    the mean of its ends plus an independent normal that is keyed by the midpoint itself.
    """
    n_pairs = (model.n_experts + 1) // 2
    words = np.empty((4, n_pairs), np.uint32)
    left, right, middle = np.zeros((2, n_pairs)), np.empty((2, n_pairs)), np.empty((2, n_pairs))
    low, high = np.int64(0), np.int64(1) << WALK_LEVELS
    normals(model.key0, model.key1, high, STREAM_WALK, 0, 0, n_pairs, words, right[0], right[1])
    right *= np.sqrt(float(high))
    while low != step:
        between = (low + high) // 2
        normals(model.key0, model.key1, between, STREAM_WALK, 0, 0, n_pairs, words, middle[0], middle[1])
        spread = 0.5 * np.sqrt(float(high - low))
        for i in range(2):
            for pair in range(n_pairs):
                middle[i, pair] = 0.5 * (left[i, pair] + right[i, pair]) + spread * middle[i, pair]
        if step >= between:
            low = between
            left, middle = middle, left
        else:
            high = between
            right, middle = middle, right
    for e in range(model.n_experts):
        offsets[e] += model.walk_rate * left[e % 2, e // 2]


@inner
def offsets_at(model, step, offsets):
    """Write what is added to every token's scores at ``step`` into ``offsets`` (E,)."""
    phase = phase_of(model, step)
    for e in range(model.n_experts):
        offsets[e] = model.offsets[phase, e]
    if model.walk_rate > 0.0:
        add_walk(model, step, offsets)


@inner
def find_rows(model, step, token, n_lanes, n_tokens, words, rows):
    """Write the table row of each token of a tile into ``rows``."""
    phase = phase_of(model, step)
    first = model.phase_row[phase]
    size = model.phase_row[phase + 1] - first
    if model.row_mode == DRAWN_ROWS:
        draw_words(model.key0, model.key1, step, STREAM_ROW, token, 0, n_lanes, words)
        for t in range(n_lanes):
            row = min(np.int64(uniform64(join(words[0, t], words[1, t]))[0] * size), size - 1)
            split = uniform64(join(words[2, t], words[3, t]))[0]
            if split >= model.alias_threshold[first + row]:
                row = model.alias_row[first + row]
            rows[t] = first + row
    else:
        for t in range(n_lanes):
            rows[t] = model.row_origin + step * n_tokens + token + t


@inner
def add_factors(model, step, token, n_lanes, words, tile):
    """Add the shared factors' part of each expert's score to the tile."""
    n_factors = model.loadings.shape[1]
    factors = np.empty((2, LANES))
    for f in range(0, n_factors, 2):
        normals(
            model.key0, model.key1, step, STREAM_FACTOR, token, f // 2, n_lanes, words, factors[0], factors[1]
        )
        for i in range(min(2, n_factors - f)):
            for e in range(model.n_experts):
                weight = model.loadings[e, f + i]
                for t in range(n_lanes):
                    tile[e, t] += tile.dtype.type(weight * factors[i, t])


@inner
def transform_tile(tile, n_experts, n_lanes, transform):
    """Sigmoid or softmax in place; minus infinity (a masked expert) stays minus infinity."""
    real = tile.dtype.type
    one, masked = real(1.0), real(-np.inf)
    if transform == SIGMOID:
        for e in range(n_experts):
            for t in range(n_lanes):
                x = tile[e, t]
                tile[e, t] = masked if x == masked else one / (one + _exp(-x))
    else:
        total = np.empty(LANES, tile.dtype)
        largest = np.empty(LANES, tile.dtype)
        for t in range(n_lanes):
            total[t] = real(0.0)
            largest[t] = masked
        for e in range(n_experts):
            for t in range(n_lanes):
                largest[t] = max(largest[t], tile[e, t])
        for e in range(n_experts):
            for t in range(n_lanes):
                x = tile[e, t]
                share = _exp(x - largest[t]) if x != masked else real(0.0)
                total[t] += share
                tile[e, t] = masked if x == masked else share
        for e in range(n_experts):
            for t in range(n_lanes):
                tile[e, t] /= total[t]


@kernel
def draw_tile(model, offsets, tile, step, token, n_lanes, n_tokens, words):
    """Fill ``tile[:E, :n_lanes]`` with the scores of tokens ``token, token + 1, ...`` of one step.

    ``offsets`` comes from `offsets_at`; ``words`` (4, LANES) uint32 is scratch space. Rows of the
    tile past the last expert become minus infinity. Kernels call it by address (`draw_pointer`).
    """
    n_experts = model.n_experts
    real = tile.dtype.type
    if model.family != NO_NOISE:
        fill_noise(
            tile,
            model.family,
            n_experts,
            model.shape,
            model.key0,
            model.key1,
            step,
            token,
            n_lanes,
            words,
        )
        scale = real(model.scale)
        for e in range(n_experts):
            offset = real(offsets[e])
            for t in range(n_lanes):
                tile[e, t] = offset + scale * tile[e, t]
    else:
        for e in range(n_experts):
            for t in range(n_lanes):
                tile[e, t] = real(offsets[e])
    if model.row_mode != NO_ROWS:
        rows = np.empty(LANES, np.int64)
        find_rows(model, step, token, n_lanes, n_tokens, words, rows)
        add_rows(model.table, rows, n_lanes, tile)
    if model.loadings.shape[1] > 0:
        add_factors(model, step, token, n_lanes, words, tile)
    if model.transform != RAW:
        transform_tile(tile, n_experts, n_lanes, model.transform)
    mask_rows(tile, n_experts, n_lanes)


def draw_pointer(model: ScoreModel, dtype: Any) -> Any:
    """Return what kernels take as ``draw``: `draw_tile` for this model's types and a tile of this dtype."""
    tile, words, offsets = np.empty((0, 0), dtype), np.empty((0, 0), np.uint32), np.empty(0)
    return pointer_to(draw_tile, model, offsets, tile, 0, 0, 0, 0, words)


@kernel
def draw_batch(draw, model, step, scores):
    """Write the scores of one step's tokens, (T, E), token-major."""
    n_tokens = scores.shape[0]
    tile = np.empty((_rows_of(model.n_experts), LANES), scores.dtype)
    words = np.empty((4, LANES), np.uint32)
    offsets = np.empty(model.n_experts)
    offsets_at(model, step, offsets)
    for token in range(0, n_tokens, LANES):
        n_lanes = min(LANES, n_tokens - token)
        draw(model, offsets, tile, step, token, n_lanes, n_tokens, words)
        for t in range(n_lanes):
            for e in range(model.n_experts):
                scores[token + t, e] = tile[e, t]


@kernel
def draw_uniforms(key0, key1, step, uniform, complement):
    """Write uniforms and their complements, (T, E) float64, for sources that map them in Python."""
    n_tokens, n_experts = uniform.shape
    words = np.empty((4, n_tokens), np.uint32)
    for e in range(n_experts):
        if e % 2 == 0:
            draw_words(key0, key1, step, STREAM_NOISE, 0, e // 2, n_tokens, words)
        for t in range(n_tokens):
            word = join(words[2 * (e % 2), t], words[2 * (e % 2) + 1, t])
            uniform[t, e], complement[t, e] = uniform64(word)
