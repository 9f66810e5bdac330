"""Tiles of clustered tokens, (features, tokens), and what each expert is worth to them."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from balancesim.kernels.jit import inner, kernel, pointer_to
from balancesim.kernels.model import LANES, STREAM_FEATURE, STREAM_REWARD, ScoreModel
from balancesim.kernels.noise import normals
from balancesim.kernels.scores import find_rows


class TokenModel(NamedTuple):
    """A clustered task, flattened.

    ``rows`` says how a token's cluster is drawn; its table (C, E) holds the expected rewards. ``centres``
    (C, d) and ``noise`` are in the features' units, ``reward_noise`` in the reward's.
    """

    rows: ScoreModel
    centres: NDArray[np.float64]
    noise: float
    reward_noise: float


@inner
def add_normals(model, step, stream, scale, token, n_lanes, words, pair, tile, n_rows):
    """Add ``scale`` times independent normals of one stream to the first ``n_rows`` rows of a tile."""
    for row in range(0, n_rows, 2):
        normals(model.key0, model.key1, step, stream, token, row // 2, n_lanes, words, pair[0], pair[1])
        for i in range(min(2, n_rows - row)):
            for t in range(n_lanes):
                tile[row + i, t] += scale * pair[i, t]


@kernel
def draw_tokens(model, step, token, n_lanes, n_tokens, words, pair, clusters, features, expected, rewards):
    """Draw tokens ``token, token + 1, ...`` of one step.

    ``clusters`` (LANES,), ``features`` (>= d, LANES), ``expected`` and ``rewards`` (>= E, LANES) are written,
    rewards as the expected ones with the token's own noise; ``words`` and ``pair`` (2, LANES) are scratch.
    Kernels call it by address (`token_pointer`).
    """
    table, centres = model.rows.table, model.centres
    n_features = centres.shape[1]
    n_experts = table.shape[1]
    find_rows(model.rows, step, token, n_lanes, n_tokens, words, clusters)
    for j in range(n_features):
        for t in range(n_lanes):
            features[j, t] = centres[clusters[t], j]
    add_normals(
        model.rows, step, STREAM_FEATURE, model.noise, token, n_lanes, words, pair, features, n_features
    )
    for e in range(n_experts):
        for t in range(n_lanes):
            expected[e, t] = table[clusters[t], e]
            rewards[e, t] = expected[e, t]
    if model.reward_noise > 0.0:
        add_normals(
            model.rows,
            step,
            STREAM_REWARD,
            model.reward_noise,
            token,
            n_lanes,
            words,
            pair,
            rewards,
            n_experts,
        )


def token_pointer(model: TokenModel) -> Any:
    """Return what kernels take as ``draw``: `draw_tokens` for this model's types."""
    words, tile, clusters = np.empty((0, 0), np.uint32), np.empty((0, 0)), np.empty(0, np.int64)
    return pointer_to(draw_tokens, model, 0, 0, 0, 0, words, tile, clusters, tile, tile, tile)


@kernel
def draw_token_batch(draw, model, step, clusters, features, expected, rewards):
    """Write one step's clusters (T,), features (T, d) and rewards (T, E), expected and with noise."""
    n_tokens, n_features = features.shape
    n_experts = rewards.shape[1]
    words = np.empty((4, LANES), np.uint32)
    pair = np.empty((2, LANES))
    rows = np.empty(LANES, np.int64)
    x = np.empty((n_features, LANES))
    mean, own = np.empty((n_experts, LANES)), np.empty((n_experts, LANES))
    for token in range(0, n_tokens, LANES):
        n_lanes = min(LANES, n_tokens - token)
        draw(model, step, token, n_lanes, n_tokens, words, pair, rows, x, mean, own)
        for t in range(n_lanes):
            clusters[token + t] = rows[t]
            for j in range(n_features):
                features[token + t, j] = x[j, t]
            for e in range(n_experts):
                expected[token + t, e] = mean[e, t]
                rewards[token + t, e] = own[e, t]


@kernel
def draw_normals(key0, key1, stream, values):
    """Fill ``values`` (N, M) float64 with independent normals of one stream; rows do not depend on N."""
    n, m = values.shape
    words = np.empty((4, n), np.uint32)
    pair = np.empty((2, n))
    for column in range(0, m, 2):
        normals(key0, key1, 0, stream, 0, column // 2, n, words, pair[0], pair[1])
        for i in range(min(2, m - column)):
            for row in range(n):
                values[row, column + i] = pair[i, row]
