"""A tile of tokens through a linear router: logits, softmax, choice, gates, reward and its gradient.

Tiles are (experts, tokens), in float64, so that SIMD runs across tokens and no sum is reordered.
"""

import numpy as np

from balancesim.kernels.elementary import exp64, log64
from balancesim.kernels.jit import inner
from balancesim.kernels.model import LANES
from balancesim.kernels.topk import room_for_ties

# What the bias is added to.
ON_LOGITS = 0
ON_SOFTMAX = 1
ON_SIGMOID = 2

# Gate weights of the chosen experts.
RENORMALISED = 0
RAW = 1
SIGMOID_GATE = 2


@inner
def find_logits(weights, inputs, n_lanes, logits):
    """Write W x of a tile of tokens."""
    for e in range(weights.shape[0]):
        for t in range(n_lanes):
            logits[e, t] = 0.0
        for j in range(weights.shape[1]):
            w = weights[e, j]
            for t in range(n_lanes):
                logits[e, t] += w * inputs[j, t]


@inner
def find_softmax(logits, n_experts, n_lanes, probabilities, partition):
    """Write the softmax over the experts, and each token's logarithm of the sum of exponentials."""
    largest, total = np.empty(LANES), np.empty(LANES)
    for t in range(n_lanes):
        largest[t], total[t] = logits[0, t], 0.0
    for e in range(1, n_experts):
        for t in range(n_lanes):
            largest[t] = max(largest[t], logits[e, t])
    for e in range(n_experts):
        for t in range(n_lanes):
            share = exp64(logits[e, t] - largest[t])
            probabilities[e, t] = share
            total[t] += share
    for e in range(n_experts):
        for t in range(n_lanes):
            probabilities[e, t] /= total[t]
    for t in range(n_lanes):
        partition[t] = largest[t] + log64(total[t])


@inner
def find_scores(logits, probabilities, selection, n_experts, n_lanes, score):
    """Write what the bias is added to."""
    for e in range(n_experts):
        for t in range(n_lanes):
            if selection == ON_LOGITS:
                score[e, t] = logits[e, t]
            elif selection == ON_SOFTMAX:
                score[e, t] = probabilities[e, t]
            else:
                score[e, t] = 1.0 / (1.0 + exp64(-logits[e, t]))


@inner
def mark_chosen(score, bias, k, n_experts, top, n_lanes, chosen):
    """Write 1.0 for each token's K experts and 0.0 for others; ties go to the lower index."""
    n_marked = np.int64(0)
    for e in range(n_experts):
        for t in range(n_lanes):
            reached = score[e, t] + bias[e] >= top[k - 1, t]
            chosen[e, t] = 1.0 if reached else 0.0
            n_marked += np.int64(reached)
    if n_marked == k * n_lanes:
        return
    for t in range(n_lanes):
        border = top[k - 1, t]
        room = room_for_ties(score, bias, k, n_experts, border, t)
        for e in range(n_experts):
            if score[e, t] + bias[e] == border:
                if room == 0:
                    chosen[e, t] = 0.0
                else:
                    room -= 1


@inner
def find_gates(logits, probabilities, chosen, kind, n_experts, n_lanes, gate):
    """Write the gate weights of the chosen, 0.0 for others."""
    largest, total = np.empty(LANES), np.empty(LANES)
    if kind == RAW:
        for e in range(n_experts):
            for t in range(n_lanes):
                gate[e, t] = probabilities[e, t] * chosen[e, t]
        return
    for t in range(n_lanes):
        largest[t], total[t] = -np.inf, 0.0
    for e in range(n_experts):
        for t in range(n_lanes):
            largest[t] = max(largest[t], logits[e, t] if chosen[e, t] > 0.0 else -np.inf)
    for e in range(n_experts):
        for t in range(n_lanes):
            if kind == RENORMALISED:
                share = exp64(min(logits[e, t] - largest[t], 0.0))
            else:
                share = 1.0 / (1.0 + exp64(-logits[e, t]))
            gate[e, t] = share * chosen[e, t]
            total[t] += gate[e, t]
    for e in range(n_experts):
        for t in range(n_lanes):
            gate[e, t] /= total[t]


@inner
def find_slope(logits, probabilities, chosen, gate, rewards, kind, n_experts, n_lanes, slope):
    """Write the gradient of each token's reward in its logits."""
    total = np.zeros(LANES)
    for e in range(n_experts):
        for t in range(n_lanes):
            total[t] += gate[e, t] * rewards[e, t]
    for e in range(n_experts):
        for t in range(n_lanes):
            if kind == RAW:
                slope[e, t] = probabilities[e, t] * (chosen[e, t] * rewards[e, t] - total[t])
            elif kind == RENORMALISED:
                slope[e, t] = gate[e, t] * (rewards[e, t] - total[t])
            else:
                complement = 1.0 / (1.0 + exp64(logits[e, t]))
                slope[e, t] = gate[e, t] * (rewards[e, t] - total[t]) * complement


@inner
def add_measures(logits, probabilities, partition, chosen, gate, expected, k, n_experts, n_lanes, batch):
    """Add the tile's reward, mean reward of the chosen, entropy and squared log-partition to ``batch``."""
    reward, mean, inner_product = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES)
    for e in range(n_experts):
        for t in range(n_lanes):
            reward[t] += gate[e, t] * expected[e, t]
            mean[t] += chosen[e, t] * expected[e, t]
            inner_product[t] += probabilities[e, t] * logits[e, t]
    for t in range(n_lanes):
        batch[0] += reward[t]
        batch[1] += mean[t] / k
        batch[2] += partition[t] - inner_product[t]
        batch[3] += partition[t] * partition[t]
