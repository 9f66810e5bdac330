"""The training loop of a router: forward, balance, gradient, measure, in float64 and without reordering.

A batch passes twice: the penalty of a gradient rule is known only when all of it was routed, so that the
forward pass keeps each token's probabilities and the gradient of its reward.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balancesim.kernels.calls import as_observe, as_update
from balancesim.kernels.gates import (
    add_measures,
    find_gates,
    find_logits,
    find_scores,
    find_slope,
    find_softmax,
    mark_chosen,
)
from balancesim.kernels.jit import inner, kernel, pasted, strict
from balancesim.kernels.model import LANES
from balancesim.kernels.rules import NOT_FINITE, update_rule, within
from balancesim.kernels.topk import find_top, n_ranks

# Parts of a step, for rules whose update lives in Python.
WHOLE = 0
FORWARD = 1
BACKWARD = 2

WEIGHTS_NOT_FINITE = 11
"""State of a rule, beside those of ``kernels.rules``: the router diverged."""

LARGEST = 1e100
"""Weights and prices of a larger magnitude end a run, well before anything overflows."""


class Settings(NamedTuple):
    """The router: where the bias goes, its gates, z-loss' weight, learning rate."""

    selection: int
    gate: int
    z_loss: float
    learning_rate: float


class Balancer(NamedTuple):
    """One rule: see ``kernels.rules.Rules``; ``penalised`` tells a gradient rule.

    ``loads``, ``probabilities`` and ``penalty`` (M, E) are those of the batch's micro-batches, loads by first
    choices where ``first_choice``. ``status`` (2,) is the state and the step after which the rule stopped.
    """

    penalised: bool
    first_choice: bool
    update: int
    observe: int
    parameters: NDArray[np.float64]
    every: int
    lag: int
    price: NDArray[np.float64]
    latest: NDArray[np.float64]
    queue: NDArray[np.float64]
    pending: NDArray[np.int64]
    memory: NDArray[np.float64]
    scratch: NDArray[np.float64]
    loads: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    penalty: NDArray[np.float64]
    status: NDArray[np.int64]


class Sums(NamedTuple):
    """Of the latest batch: ``loads`` (E,), ``batch`` (4,). Since the last record: the others.

    ``batch`` and ``window`` hold the sums over tokens of the reward, the chosen experts' mean reward, the
    entropy of the probabilities and the squared log-partition; ``violation`` (1,) sums the batches' MaxVio.
    """

    loads: NDArray[np.int64]
    batch: NDArray[np.float64]
    window_loads: NDArray[np.int64]
    window: NDArray[np.float64]
    violation: NDArray[np.float64]


class Rows(NamedTuple):
    """What is kept at R steps: ``steps`` (R,), ``n_filled`` (1,), the rest (R,), (R, 4) or (R, E)."""

    steps: NDArray[np.int64]
    n_filled: NDArray[np.int64]
    loads: NDArray[np.int64]
    window_loads: NDArray[np.int64]
    price: NDArray[np.float64]
    violation: NDArray[np.float64]
    mean_violation: NDArray[np.float64]
    batch: NDArray[np.float64]
    window: NDArray[np.float64]


class Pass(NamedTuple):
    """What the forward pass leaves for the backward pass.

    ``inputs`` (T, D) features and, last, the constant of the offsets; ``probabilities`` and ``slope`` (tiles,
    E, LANES), the slope being the gradient in the logits of all but the penalty; ``gradient`` (E, D);
    ``score`` (rows, LANES) is minus infinity and ``bias`` (rows,) zero past the last expert.
    """

    inputs: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    slope: NDArray[np.float64]
    gradient: NDArray[np.float64]
    score: NDArray[np.float64]
    bias: NDArray[np.float64]


@inner
def add_shares(balancer, score, top, chosen, probabilities, token, n_tokens, n_experts, n_lanes, loads):
    """Add the tile to the loads and mean probabilities of the micro-batches that its tokens belong to."""
    size = n_tokens // balancer.loads.shape[0]
    for part in range(token // size, (token + n_lanes - 1) // size + 1):
        first, last = max(part * size - token, 0), min((part + 1) * size - token, n_lanes)
        for e in range(n_experts):
            n_chosen, total = np.int64(0), 0.0
            for t in range(first, last):
                n_chosen += np.int64(chosen[e, t])
                total += probabilities[e, t]
            loads[e] += n_chosen
            balancer.probabilities[part, e] += total / size
            if not balancer.first_choice:
                balancer.loads[part, e] += n_chosen
        if balancer.first_choice:
            for t in range(first, last):
                best = 0
                while score[best, t] != top[0, t]:
                    best += 1
                balancer.loads[part, best] += 1


@pasted
def forward(draw, model, settings, balancer, weights, sums, kept, step, n_tokens, k):
    """Route a batch, and keep what the backward pass needs of it."""
    n_experts, n_inputs = weights.shape
    score, bias, rows = kept.score, kept.bias, np.empty(LANES, np.int64)
    words, pair, partition = np.empty((4, LANES), np.uint32), np.empty((2, LANES)), np.empty(LANES)
    inputs = np.ones((n_inputs, LANES))
    expected, rewards = np.empty((n_experts, LANES)), np.empty((n_experts, LANES))
    logits, chosen, gate = np.empty_like(expected), np.empty_like(expected), np.empty_like(expected)
    top, group = np.empty((n_ranks(k), LANES)), np.empty((8, LANES))
    parameters, memory = balancer.parameters, balancer.memory
    sums.batch[:] = 0.0
    sums.loads[:] = 0
    balancer.loads[:] = 0
    balancer.probabilities[:] = 0.0
    for e in range(n_experts):
        bias[e] = 0.0 if balancer.penalised else balancer.price[e]
    for token in range(0, n_tokens, LANES):
        n_lanes = min(LANES, n_tokens - token)
        probabilities, slope = kept.probabilities[token // LANES], kept.slope[token // LANES]
        draw(model, step - 1, token, n_lanes, n_tokens, words, pair, rows, inputs, expected, rewards)
        for t in range(n_lanes):
            for j in range(n_inputs):
                kept.inputs[token + t, j] = inputs[j, t]
        find_logits(weights, inputs, n_lanes, logits)
        find_softmax(logits, n_experts, n_lanes, probabilities, partition)
        find_scores(logits, probabilities, settings.selection, n_experts, n_lanes, score)
        find_top(score, bias, k, top, group, n_lanes)
        mark_chosen(score, bias, k, n_experts, top, n_lanes, chosen)
        find_gates(logits, probabilities, chosen, settings.gate, n_experts, n_lanes, gate)
        find_slope(logits, probabilities, chosen, gate, rewards, settings.gate, n_experts, n_lanes, slope)
        if settings.z_loss > 0.0:
            for e in range(n_experts):
                for t in range(n_lanes):
                    slope[e, t] -= 2.0 * settings.z_loss * partition[t] * probabilities[e, t]
        add_measures(
            logits, probabilities, partition, chosen, gate, expected, k, n_experts, n_lanes, sums.batch
        )
        add_shares(
            balancer, score, top, chosen, probabilities, token, n_tokens, n_experts, n_lanes, sums.loads
        )
        if balancer.observe != 0:
            observe = as_observe(balancer.observe, score)
            first = token + (step - 1) % balancer.every * n_tokens
            n_seen = n_tokens * balancer.every
            observe(parameters, n_seen, k, n_experts, score, bias, top, first, n_lanes, memory)


@pasted
def balance(balancer, sums, step, n_tokens, k):
    """Update the rule on the batch that was just routed."""
    n_parts, n_experts = balancer.loads.shape
    if balancer.penalised:
        update = as_update(balancer.update)
        for part in range(n_parts):
            for e in range(n_experts):
                balancer.memory[e] = balancer.probabilities[part, e]
            update(
                balancer.parameters, (step - 1) * n_parts + part + 1, n_tokens // n_parts,
                1 if balancer.first_choice else k, balancer.loads[part], balancer.price, balancer.memory,
            )  # fmt: skip
            for e in range(n_experts):
                balancer.penalty[part, e] = balancer.price[e]
    else:
        for e in range(n_experts):
            balancer.pending[0, e] += sums.loads[e]
        update_rule(
            balancer.update, balancer.parameters, balancer.every, step, n_tokens, k, balancer.pending,
            balancer.latest, balancer.queue, balancer.lag, balancer.price, balancer.memory, balancer.scratch,
        )  # fmt: skip


@pasted
def backward(balancer, kept, n_tokens):
    """Write the gradient in the weights, summed over tokens.

    The penalty's part is r_ik (v_k - <r_i, v>) in logit (i, k), v the penalty of the token's micro-batch.
    """
    n_experts, n_inputs = kept.gradient.shape
    size = n_tokens // balancer.loads.shape[0]
    mean = np.empty(LANES)
    kept.gradient[:] = 0.0
    for token in range(0, n_tokens, LANES):
        n_lanes = min(LANES, n_tokens - token)
        probabilities, slope = kept.probabilities[token // LANES], kept.slope[token // LANES]
        if balancer.penalised:
            for part in range(token // size, (token + n_lanes - 1) // size + 1):
                first, last = max(part * size - token, 0), min((part + 1) * size - token, n_lanes)
                for t in range(first, last):
                    mean[t] = 0.0
                for e in range(n_experts):
                    for t in range(first, last):
                        mean[t] += probabilities[e, t] * balancer.penalty[part, e]
                for e in range(n_experts):
                    for t in range(first, last):
                        slope[e, t] -= probabilities[e, t] * (balancer.penalty[part, e] - mean[t])
        for e in range(n_experts):
            for t in range(n_lanes):
                g = slope[e, t]
                if g != 0.0:
                    for j in range(n_inputs):
                        kept.gradient[e, j] += g * kept.inputs[token + t, j]


@strict
def ascend(weights, gradient, rate):
    """Take a gradient step in place."""
    for e in range(weights.shape[0]):
        for j in range(weights.shape[1]):
            weights[e, j] += rate * gradient[e, j]


@strict
def all_within(values, limit):
    """Whether every row is within the limit."""
    for row in range(values.shape[0]):
        if not within(values[row], limit):
            return False
    return True


@pasted
def measure(balancer, sums, rows, step, place, n_tokens, k):
    """Add the batch to the window, and write and empty that at a recorded step."""
    n_experts = sums.loads.size
    largest = np.int64(0)
    for e in range(n_experts):
        largest = max(largest, sums.loads[e])
    violation = largest / (n_tokens * k / n_experts) - 1.0
    sums.violation[0] += violation
    for e in range(n_experts):
        sums.window_loads[e] += sums.loads[e]
    for i in range(sums.batch.size):
        sums.window[i] += sums.batch[i]
    if place == rows.steps.size or rows.steps[place] != step:
        return place
    n_steps = step - (rows.steps[place - 1] if place > 0 else 0)
    rows.violation[place] = violation
    rows.mean_violation[place] = sums.violation[0] / n_steps
    for e in range(n_experts):
        rows.loads[place, e] = sums.loads[e]
        rows.window_loads[place, e] = sums.window_loads[e]
        rows.price[place, e] = balancer.price[e]
    for i in range(sums.batch.size):
        rows.batch[place, i] = sums.batch[i] / n_tokens
        rows.window[place, i] = sums.window[i] / (n_steps * n_tokens)
    sums.violation[0] = 0.0
    sums.window_loads[:] = 0
    sums.window[:] = 0.0
    rows.n_filled[0] = place + 1
    return place + 1


@kernel
def train_steps(draw, model, settings, balancer, weights, sums, rows, kept, first, last, n_tokens, k, part):
    """Train for steps ``first .. last`` (counted from 1), or do one part of one step.

    ``draw`` comes from `token_pointer`. All state lives in the arguments, so that a run may be cut into calls
    anywhere without changing a bit.
    Between FORWARD and BACKWARD the caller writes the price, or the penalties, and pushes no state.
    """
    place = rows.n_filled[0]
    for step in range(first, last + 1):
        if part != BACKWARD:
            forward(draw, model, settings, balancer, weights, sums, kept, step, n_tokens, k)
        if part == WHOLE:
            balance(balancer, sums, step, n_tokens, k)
            if not (within(balancer.latest, LARGEST) and all_within(balancer.penalty, LARGEST)):
                balancer.status[0], balancer.status[1] = NOT_FINITE, step
                return
        if part != FORWARD:
            backward(balancer, kept, n_tokens)
            ascend(weights, kept.gradient, settings.learning_rate / n_tokens)
            place = measure(balancer, sums, rows, step, place, n_tokens, k)
            if not all_within(weights, LARGEST):
                balancer.status[0], balancer.status[1] = WEIGHTS_NOT_FINITE, step
                return
