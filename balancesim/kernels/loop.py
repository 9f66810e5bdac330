"""The whole simulation loop: draw, route, measure, update, with several rules sharing each draw."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from balancesim.kernels.calls import as_observe
from balancesim.kernels.choices import (
    add_chosen_above,
    add_lost,
    count_above,
    count_lanes,
    lacks_choice,
    limit_groups,
)
from balancesim.kernels.difference import add_differences, find_wide
from balancesim.kernels.jit import inner, kernel
from balancesim.kernels.model import LANES
from balancesim.kernels.rules import (
    ASSIGNED,
    IN_KERNEL,
    NOT_ASSIGNED,
    NOT_FINITE,
    RUNNING,
    first_token,
    update_rule,
    within,
)
from balancesim.kernels.scores import offsets_at
from balancesim.kernels.topk import add_sums, count_loads, find_top, n_ranks


class Tally(NamedTuple):
    """Sums since step 1, per lane so that adding to them vectorises, and since the last record.

    ``regret``, ``lost`` (S, LANES), ``top`` (LANES,), ``price_sum``, ``moved`` (S,), ``window_loads`` (S, E),
    ``window_violation``, ``window_empty`` (S,), the latter places that stayed empty, ``loads`` (S, E) of the
    latest batch.
    """

    regret: NDArray[np.float64]
    lost: NDArray[np.float64]
    top: NDArray[np.float64]
    price_sum: NDArray[np.float64]
    moved: NDArray[np.float64]
    window_loads: NDArray[np.int64]
    window_violation: NDArray[np.float64]
    window_empty: NDArray[np.int64]
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
    drop_rate: NDArray[np.float64]


class Workspace(NamedTuple):
    """Scratch space; ``tile``'s dtype is the one that scores are drawn and routed in.

    ``comparator`` (C, rows) holds what regret is measured against; C may be 0.
    """

    tile: NDArray[Any]
    limited: NDArray[Any]
    bias: NDArray[Any]
    unbiased: NDArray[Any]
    comparator: NDArray[Any]


@inner
def write_row(rules, tally, record, s, place, n_tokens, k, violation):
    """Write row ``place`` of rule s and begin a new window."""
    n_experts = rules.price.shape[1]
    step = record.steps[place]
    since = step - (record.steps[place - 1] if place > 0 else 0)
    for e in range(n_experts):
        record.loads[s, place, e] = tally.loads[s, e]
        record.window_loads[s, place, e] = tally.window_loads[s, e]
        record.bias[s, place, e] = rules.price[s, e]
        tally.window_loads[s, e] = 0
    record.max_violation[s, place] = violation
    record.mean_max_violation[s, place] = tally.window_violation[s] / since
    linear = -k / n_experts * tally.price_sum[s]
    if rules.is_own[s]:
        linear = rules.memory[rules.memory_at[s]] - step * rules.own_term[s]
    record.regret[s, place] = tally.regret[s].sum() / n_tokens + linear
    record.score_lost[s, place] = (tally.lost[s].sum() + tally.moved[s]) / n_tokens
    record.top_score[s, place] = tally.top.sum() / n_tokens
    record.drop_rate[s, place] = tally.window_empty[s] / (since * n_tokens * k)
    record.n_filled[s] = place + 1
    tally.window_empty[s] = 0
    tally.window_violation[s] = 0.0


@inner
def show_tile(rules, s, tile, bias, top, token, n_lanes, step, n_tokens, k):
    """Let rule s see a tile of the batch, as a part of all batches that its next update is about."""
    n_experts, every = rules.price.shape[1], rules.every[s]
    parameters = rules.parameters[rules.parameters_at[s] : rules.parameters_at[s + 1]]
    memory = rules.memory[rules.memory_at[s] : rules.memory_at[s + 1]]
    observe = as_observe(rules.observe[s], tile)
    first = token + (step - 1) % every * n_tokens
    observe(parameters, n_tokens * every, k, n_experts, tile, bias, top, first, n_lanes, memory)


@inner
def count_ranks(rules, s, tile, bias, k, top, token, n_lanes, n_tokens):
    """Add the tile's loads to those that each simulated rank of rule s has seen."""
    n_experts, n_ranks = rules.price.shape[1], rules.n_ranks[s]
    for rank in range(n_ranks):
        first = max(first_token(rank, n_tokens, n_ranks) - token, 0)
        last = min(first_token(rank + 1, n_tokens, n_ranks) - token, n_lanes)
        if first < last:
            count_lanes(
                tile, bias, k, n_experts, top, first, last, rules.threshold[s], rules.pending[s, rank]
            )


@kernel
def run_steps(
    draw, model, rules, tally, record, workspace, groups, first, last, n_tokens, k, limit, largest_price
):
    """Run steps ``first .. last`` (counted from 1) of every rule that is still running.

    All state lives in the arguments, so that a run may be cut into calls anywhere without changing a bit.
    ``draw`` comes from `draw_pointer`; ``limit`` is the score magnitude above which differences are summed by
    membership; ``largest_price`` ends a rule that diverges. A rule of kind ASSIGNED takes one step a call:
    ``tally`` holds its step's loads, empty places and score lost already, its price is the one that goes with
    the choice. Regret means nothing for a rule without a comparator (``against`` below 0), under a limit on
    groups, and for rules that choose by threshold. A rule stops, as NOT_ASSIGNED, before a step at which a
    token's groups hold fewer than K unmasked experts.
    """
    n_rules, n_experts = rules.price.shape
    n_comparators = workspace.comparator.shape[0]
    tile, limited, bias, unbiased, comparator = workspace
    # Fields taken out here once: each use of a tuple's field counts references.
    update, every, lag, n_rule_ranks = rules.update, rules.every, rules.lag, rules.n_ranks
    parameters, parameters_at = rules.parameters, rules.parameters_at
    price, latest, queue, pending = rules.price, rules.latest, rules.queue, rules.pending
    memory, memory_at = rules.memory, rules.memory_at
    real = tile.dtype.type
    top = np.empty((n_ranks(k), LANES), tile.dtype)
    base_top = np.empty_like(top)
    best_top = np.empty((n_comparators, n_ranks(k), LANES), tile.dtype)
    group = np.empty((8, LANES), tile.dtype)
    group_score = np.empty((groups.n_groups, LANES), tile.dtype)
    scratch = np.empty(LANES, tile.dtype)
    prices = np.empty((2, n_experts))
    wide = np.empty(LANES, np.int64)
    words = np.empty((4, LANES), np.uint32)
    offsets = np.empty(n_experts)
    unmoved = np.empty(n_rules, np.bool_)
    balanced = n_tokens * k / n_experts
    comparator_sum = np.zeros(n_comparators)
    for c in range(n_comparators):
        for e in range(n_experts):
            comparator_sum[c] += np.float64(comparator[c, e])
    place = np.searchsorted(record.steps, first)
    for step in range(first, last + 1):
        offsets_at(model, step - 1, offsets)
        for s in range(n_rules):
            if rules.state[s] == RUNNING:
                price_sum = 0.0
                unmoved[s] = not rules.threshold[s] and groups.n_groups == 0
                for e in range(n_experts):
                    if rules.kind[s] != ASSIGNED:
                        tally.loads[s, e] = 0
                    bias[s, e] = real(price[s, e])
                    price_sum += np.float64(bias[s, e])
                    unmoved[s] = unmoved[s] and bias[s, e] == real(0.0)
                if rules.against[s] >= 0:
                    tally.price_sum[s] += price_sum - comparator_sum[rules.against[s]]
        for token in range(0, n_tokens, LANES):
            n_lanes = min(LANES, n_tokens - token)
            draw(model, offsets, tile, step - 1, token, n_lanes, n_tokens, words)
            find_top(tile, unbiased, k, base_top, group, n_lanes)
            for c in range(n_comparators):
                find_top(tile, comparator[c], k, best_top[c], group, n_lanes)
            n_wide = find_wide(base_top, k, n_lanes, limit, wide)
            add_sums(base_top, k, n_lanes, tally.top)
            for s in range(n_rules):
                if rules.state[s] != RUNNING:
                    continue
                p = bias[s]
                if rules.threshold[s]:
                    if rules.observe[s] != 0:
                        find_top(tile, p, k, top, group, n_lanes)
                    count_above(tile, p, n_experts, n_lanes, tally.loads[s])
                    tally.window_empty[s] += add_chosen_above(
                        tile, unbiased, k, n_experts, base_top, p, n_lanes, tally.lost[s]
                    )
                elif groups.n_groups > 0:
                    limit_groups(tile, p, n_experts, groups, n_lanes, group_score, limited)
                    find_top(limited, p, k, top, group, n_lanes)
                    if lacks_choice(top, k, n_lanes):
                        rules.state[s], rules.stopped[s] = NOT_ASSIGNED, step - 1
                        continue
                    count_loads(limited, p, k, n_experts, top, n_lanes, tally.loads[s])
                    add_lost(tile, unbiased, k, n_experts, base_top, limited, p, top, n_lanes, tally.lost[s])
                else:
                    # A price of zero chooses as no price does.
                    chosen = base_top if unmoved[s] else top
                    if not unmoved[s]:
                        find_top(tile, p, k, top, group, n_lanes)
                    against = rules.against[s]
                    if against >= 0:
                        add_differences(
                            tile, k, n_experts, p, chosen, comparator[against], best_top[against], n_lanes,
                            wide, n_wide, scratch, tally.regret[s],
                        )  # fmt: skip
                    if rules.kind[s] != ASSIGNED:
                        count_loads(tile, p, k, n_experts, chosen, n_lanes, tally.loads[s])
                        add_differences(
                            tile, k, n_experts, unbiased, base_top, p, chosen, n_lanes, wide, n_wide, scratch,
                            tally.lost[s],
                        )  # fmt: skip
                if rules.observe[s] != 0:
                    show_tile(
                        rules, s, tile, p, base_top if unmoved[s] else top, token, n_lanes, step, n_tokens, k
                    )
                if rules.n_ranks[s] > 1:
                    count_ranks(
                        rules, s, limited if groups.n_groups > 0 else tile, p, k,
                        base_top if unmoved[s] else top, token, n_lanes, n_tokens,
                    )  # fmt: skip
        for s in range(n_rules):
            if rules.state[s] == RUNNING:
                loads = tally.loads[s]
                moved = 0.0
                for e in range(n_experts):
                    tally.window_loads[s, e] += loads[e]
                    moved += loads[e] * np.float64(bias[s, e])
                if n_rule_ranks[s] == 1:
                    for e in range(n_experts):
                        pending[s, 0, e] += loads[e]
                if rules.kind[s] != ASSIGNED and not rules.threshold[s] and groups.n_groups == 0:
                    tally.moved[s] += moved
                violation = loads.max() / balanced - 1.0
                tally.window_violation[s] += violation
                if rules.kind[s] == IN_KERNEL:
                    update_rule(
                        update[s], parameters[parameters_at[s] : parameters_at[s + 1]], every[s], step,
                        n_tokens, k, pending[s, : n_rule_ranks[s]], latest[s], queue[s], lag[s], price[s],
                        memory[memory_at[s] : memory_at[s + 1]], prices,
                    )  # fmt: skip
                    if not within(latest[s], largest_price):
                        rules.state[s] = NOT_FINITE
                        rules.stopped[s] = step
                if place < record.steps.size and record.steps[place] == step:
                    write_row(rules, tally, record, s, place, n_tokens, k, violation)
        if place < record.steps.size and record.steps[place] == step:
            place += 1
