"""Tiles of scores, (experts, tokens): noise, plus what a source's model adds to it, transformed."""

import numpy as np
from numba.extending import overload

from balancesim.kernels.elementary import exp32, exp64
from balancesim.kernels.jit import inline, inner, kernel
from balancesim.kernels.model import (
    DRAWN_ROWS,
    LANES,
    NO_NOISE,
    NO_ROWS,
    RAW,
    SIGMOID,
    STREAM_FACTOR,
    STREAM_ROW,
    STREAM_WALK,
    WALK_LEVELS,
    n_rows,
)
from balancesim.kernels.noise import fill_noise, normals, uniforms
from balancesim.kernels.transpose import add_rows

_rows_of = inline(n_rows)


def _exp(x):
    return exp32(x) if isinstance(x, np.float32) else exp64(x)


@overload(_exp, jit_options={"forceinline": True, "fastmath": {"nnan", "nsz"}})
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
    n_experts = model.n_experts
    left = np.zeros(n_experts + 1)
    right = np.zeros(n_experts + 1)
    low, high = np.int64(0), np.int64(1) << WALK_LEVELS
    for e in range(0, n_experts, 2):
        first, second = normals(model.key0, model.key1, high, STREAM_WALK, 0, e // 2)
        right[e] = np.sqrt(float(high)) * first
        right[e + 1] = np.sqrt(float(high)) * second
    while low != step:
        middle = (low + high) // 2
        spread = 0.5 * np.sqrt(float(high - low))
        to_right = step >= middle
        for e in range(0, n_experts, 2):
            first, second = normals(model.key0, model.key1, middle, STREAM_WALK, 0, e // 2)
            first = 0.5 * (left[e] + right[e]) + spread * first
            second = 0.5 * (left[e + 1] + right[e + 1]) + spread * second
            if to_right:
                left[e], left[e + 1] = first, second
            else:
                right[e], right[e + 1] = first, second
        if to_right:
            low = middle
        else:
            high = middle
    for e in range(n_experts):
        offsets[e] += model.walk_rate * left[e]


@inner
def offsets_at(model, step, offsets):
    """Write what is added to every token's scores at ``step`` into ``offsets`` (E,)."""
    offsets[:] = model.offsets[phase_of(model, step)]
    if model.walk_rate > 0.0:
        add_walk(model, step, offsets)


@inner
def find_rows(model, step, token, n_lanes, n_tokens, rows):
    """Write the table row of each token of a tile into ``rows``."""
    phase = phase_of(model, step)
    first = model.phase_row[phase]
    size = model.phase_row[phase + 1] - first
    if model.row_mode == DRAWN_ROWS:
        for t in range(n_lanes):
            choice, split = uniforms(model.key0, model.key1, step, STREAM_ROW, token + t, 0)
            row = min(np.int64(choice[0] * size), size - 1)
            if split[0] >= model.alias_threshold[first + row]:
                row = model.alias_row[first + row]
            rows[t] = first + row
    else:
        for t in range(n_lanes):
            rows[t] = model.row_origin + step * n_tokens + token + t


@inner
def draw_tile(model, offsets, tile, step, token, n_lanes, n_tokens, rows):
    """Fill ``tile[:E, :n_lanes]`` with the scores of tokens ``token, token + 1, ...`` of one step.

    ``offsets`` comes from `offsets_at`; ``rows`` is scratch space. Rows of the tile past the last expert
    become minus infinity.
    """
    n_experts = model.n_experts
    real = tile.dtype.type
    if model.family != NO_NOISE:
        fill_noise(tile, model.family, n_experts, model.shape, model.key0, model.key1, step, token, n_lanes)
        scale = real(model.scale)
        for e in range(n_experts):
            offset = real(offsets[e])
            for t in range(n_lanes):
                tile[e, t] = offset + scale * tile[e, t]
    else:
        for e in range(n_experts):
            tile[e, :n_lanes] = real(offsets[e])
    if model.row_mode != NO_ROWS:
        find_rows(model, step, token, n_lanes, n_tokens, rows)
        add_rows(model.table, rows, n_lanes, tile)
    n_factors = model.loadings.shape[1]
    for f in range(0, n_factors, 2):
        for t in range(n_lanes):
            first, second = normals(model.key0, model.key1, step, STREAM_FACTOR, token + t, f // 2)
            for e in range(n_experts):
                shared = model.loadings[e, f] * first
                if f + 1 < n_factors:
                    shared += model.loadings[e, f + 1] * second
                tile[e, t] += real(shared)
    if model.transform != RAW:
        transform_tile(tile, n_experts, n_lanes, model.transform)
    for e in range(n_experts, tile.shape[0]):
        tile[e, :n_lanes] = real(-np.inf)


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
        total = np.zeros(LANES, tile.dtype)
        largest = np.full(LANES, masked, tile.dtype)
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
def draw_batch(model, step, scores):
    """Write the scores of one step's tokens, (T, E), token-major."""
    n_tokens = scores.shape[0]
    tile = np.empty((_rows_of(model.n_experts), LANES), scores.dtype)
    rows = np.empty(LANES, np.int64)
    offsets = np.empty(model.n_experts)
    offsets_at(model, step, offsets)
    for token in range(0, n_tokens, LANES):
        n_lanes = min(LANES, n_tokens - token)
        draw_tile(model, offsets, tile, step, token, n_lanes, n_tokens, rows)
        for t in range(n_lanes):
            for e in range(model.n_experts):
                scores[token + t, e] = tile[e, t]


@kernel
def draw_uniforms(key0, key1, step, uniform, complement):
    """Write uniforms and their complements, (T, E) float64, for sources that map them in Python."""
    for t in range(uniform.shape[0]):
        for e in range(0, uniform.shape[1], 2):
            first, second = uniforms(key0, key1, step, 0, t, e // 2)
            uniform[t, e], complement[t, e] = first
            if e + 1 < uniform.shape[1]:
                uniform[t, e + 1], complement[t, e + 1] = second
