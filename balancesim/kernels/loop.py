"""The whole simulation loop: draw, route, measure, update, with several rules sharing each draw."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from balancesim.kernels.difference import add_differences, find_wide
from balancesim.kernels.jit import inner, kernel
from balancesim.kernels.model import LANES
from balancesim.kernels.rules import ASSIGNED, update_price, within
from balancesim.kernels.scores import offsets_at
from balancesim.kernels.topk import add_sums, count_loads, find_top, n_ranks

# States of a rule within a run.
RUNNING = 0
NOT_FINITE = 1
NOT_ASSIGNED = 2


class Rules(NamedTuple):
    """S rules side by side: what they are, and where they stand.

    ``kind`` (S,), ``parameters`` (S, P), ``price`` (S, E) float64, ``state`` (S,), ``stopped`` (S,) int64
    (the step after which the rule stopped).
    """

    kind: NDArray[np.int64]
    parameters: NDArray[np.float64]
    price: NDArray[np.float64]
    state: NDArray[np.int64]
    stopped: NDArray[np.int64]


class Tally(NamedTuple):
    """Sums since step 1, per lane so that adding to them vectorises, and since the last record.

    ``regret``, ``lost`` (S, LANES), ``top`` (LANES,), ``price_sum``, ``moved`` (S,), ``window_loads`` (S, E),
    ``window_violation`` (S,), ``loads`` (S, E) of the latest batch.
    """

    regret: NDArray[np.float64]
    lost: NDArray[np.float64]
    top: NDArray[np.float64]
    price_sum: NDArray[np.float64]
    moved: NDArray[np.float64]
    window_loads: NDArray[np.int64]
    window_violation: NDArray[np.float64]
    loads: NDArray[np.int64]


class Record(NamedTuple):
    """What is kept, at R steps only: ``steps`` (R,), ``n_filled`` (S,), the rest (S, R) or (S, R, E)."""

    steps: NDArray[np.int64]
    n_filled: NDArray[np.int64]
    loads: NDArray[np.int64]
    window_loads: NDArray[np.int64]
    bias: NDArray[np.float64]
    max_violation: NDArray[np.float64]
    mean_max_violation: NDArray[np.float64]
    regret: NDArray[np.float64]
    score_lost: NDArray[np.float64]
    top_score: NDArray[np.float64]


class Workspace(NamedTuple):
    """Scratch space; ``tile``'s dtype is the one that scores are drawn and routed in."""

    tile: NDArray[Any]
    bias: NDArray[Any]
    unbiased: NDArray[Any]
    comparator: NDArray[Any]


@inner
def write_row(rules, tally, record, s, place, n_tokens, k, violation):
    """Write row ``place`` of rule s and begin a new window."""
    n_experts = rules.price.shape[1]
    since = record.steps[place] - (record.steps[place - 1] if place > 0 else 0)
    for e in range(n_experts):
        record.loads[s, place, e] = tally.loads[s, e]
        record.window_loads[s, place, e] = tally.window_loads[s, e]
        record.bias[s, place, e] = rules.price[s, e]
        tally.window_loads[s, e] = 0
    record.max_violation[s, place] = violation
    record.mean_max_violation[s, place] = tally.window_violation[s] / since
    record.regret[s, place] = tally.regret[s].sum() / n_tokens - k / n_experts * tally.price_sum[s]
    record.score_lost[s, place] = (tally.lost[s].sum() + tally.moved[s]) / n_tokens
    record.top_score[s, place] = tally.top.sum() / n_tokens
    record.n_filled[s] = place + 1
    tally.window_violation[s] = 0.0


@kernel
def run_steps(draw, model, rules, tally, record, workspace, first, last, n_tokens, k, limit, largest_price):
    """Run steps ``first .. last`` (counted from 1) of every rule that is still running.

    All state lives in the arguments, so that a run may be cut into calls anywhere without changing a bit.
    ``draw`` comes from `draw_pointer`; ``limit`` is the score magnitude above which differences are summed by
    membership; ``largest_price`` ends a rule that diverges. A rule of kind ASSIGNED takes one step a call:
    ``tally.loads`` and ``tally.lost`` hold its step already, its price is the one that goes with the choice.
    """
    n_rules, n_experts = rules.price.shape
    tile, bias, unbiased, comparator = workspace
    real = tile.dtype.type
    top = np.empty((n_ranks(k), LANES), tile.dtype)
    base_top = np.empty_like(top)
    best_top = np.empty_like(top)
    group = np.empty((8, LANES), tile.dtype)
    scratch = np.empty(LANES, tile.dtype)
    wide = np.empty(LANES, np.int64)
    words = np.empty((4, LANES), np.uint32)
    offsets = np.empty(n_experts)
    unmoved = np.empty(n_rules, np.bool_)
    balanced = n_tokens * k / n_experts
    comparator_sum = 0.0
    for e in range(n_experts):
        comparator_sum += np.float64(comparator[e])
    place = np.searchsorted(record.steps, first)
    for step in range(first, last + 1):
        offsets_at(model, step - 1, offsets)
        for s in range(n_rules):
            if rules.state[s] == RUNNING:
                price_sum = 0.0
                unmoved[s] = True
                for e in range(n_experts):
                    if rules.kind[s] != ASSIGNED:
                        tally.loads[s, e] = 0
                    bias[s, e] = real(rules.price[s, e])
                    price_sum += np.float64(bias[s, e])
                    unmoved[s] = unmoved[s] and bias[s, e] == real(0.0)
                tally.price_sum[s] += price_sum - comparator_sum
        for token in range(0, n_tokens, LANES):
            n_lanes = min(LANES, n_tokens - token)
            draw(model, offsets, tile, step - 1, token, n_lanes, n_tokens, words)
            find_top(tile, unbiased, k, base_top, group, n_lanes)
            find_top(tile, comparator, k, best_top, group, n_lanes)
            n_wide = find_wide(base_top, k, n_lanes, limit, wide)
            add_sums(base_top, k, n_lanes, tally.top)
            for s in range(n_rules):
                if rules.state[s] == RUNNING:
                    p = bias[s]
                    # A price of zero chooses as no price does.
                    chosen = base_top if unmoved[s] else top
                    if not unmoved[s]:
                        find_top(tile, p, k, top, group, n_lanes)
                    add_differences(
                        tile, k, n_experts, p, chosen, comparator, best_top, n_lanes, wide, n_wide, scratch,
                        tally.regret[s],
                    )  # fmt: skip
                    if rules.kind[s] != ASSIGNED:
                        count_loads(tile, p, k, n_experts, chosen, n_lanes, tally.loads[s])
                        add_differences(
                            tile, k, n_experts, unbiased, base_top, p, chosen, n_lanes, wide, n_wide, scratch,
                            tally.lost[s],
                        )  # fmt: skip
        for s in range(n_rules):
            if rules.state[s] == RUNNING:
                loads = tally.loads[s]
                moved = 0.0
                for e in range(n_experts):
                    tally.window_loads[s, e] += loads[e]
                    moved += loads[e] * np.float64(bias[s, e])
                if rules.kind[s] != ASSIGNED:
                    tally.moved[s] += moved
                violation = loads.max() / balanced - 1.0
                tally.window_violation[s] += violation
                update_price(rules.kind[s], rules.parameters[s], step, n_tokens, k, loads, rules.price[s])
                if not within(rules.price[s], largest_price):
                    rules.state[s] = NOT_FINITE
                    rules.stopped[s] = step
                if place < record.steps.size and record.steps[place] == step:
                    write_row(rules, tally, record, s, place, n_tokens, k, violation)
        if place < record.steps.size and record.steps[place] == step:
            place += 1
