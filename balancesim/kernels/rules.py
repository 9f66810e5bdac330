"""What a balancing rule does at the end of a step: sum loads, update the newest price, put one in force."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balancesim.kernels.calls import as_update
from balancesim.kernels.jit import inner, strict

# Kinds of rule. IN_PYTHON: the caller changes the price. ASSIGNED: the caller has chosen the experts, counted
# loads and added to the score lost.
IN_KERNEL = 0
IN_PYTHON = 1
ASSIGNED = 2

# States of a rule within a run.
RUNNING = 0
NOT_FINITE = 1
NOT_ASSIGNED = 2


class Rules(NamedTuple):
    """S rules side by side: what they are, and where they stand.

    ``kind`` (S,); ``update``, ``observe`` (S,) addresses of compiled functions, 0 for none; ``threshold``
    (S,) whether experts are chosen by a positive biased score; ``every``, ``lag``, ``n_ranks`` (S,) as in
    ``balancers.Delayed``; ``parameters`` of all rules, rule s's from ``parameters_at[s]``; ``against`` (S,)
    the comparator's index; ``is_own`` (S,) whether regret is on the rule's own objective, whose term the rule
    sums in its first cell of memory, and ``own_term`` (S,) that term at the comparator.

    ``price`` (S, E) float64 is in force, ``latest`` (S, E) the newest, ``queue`` (S, lag, E) those between;
    ``pending`` (S, ranks, E) loads since the last update; ``memory`` of all rules, one after the other and
    once a rank, rule s's from ``memory_at[s]``; ``state``, ``stopped`` (S,) int64 (the step after which the
    rule stopped).
    """

    kind: NDArray[np.int64]
    update: NDArray[np.int64]
    observe: NDArray[np.int64]
    threshold: NDArray[np.bool_]
    every: NDArray[np.int64]
    lag: NDArray[np.int64]
    n_ranks: NDArray[np.int64]
    parameters: NDArray[np.float64]
    parameters_at: NDArray[np.int64]
    against: NDArray[np.int64]
    is_own: NDArray[np.bool_]
    own_term: NDArray[np.float64]
    price: NDArray[np.float64]
    latest: NDArray[np.float64]
    queue: NDArray[np.float64]
    pending: NDArray[np.int64]
    memory: NDArray[np.float64]
    memory_at: NDArray[np.int64]
    state: NDArray[np.int64]
    stopped: NDArray[np.int64]


@strict
def within(price, limit):
    """Whether every price is a number of magnitude at most ``limit``."""
    for e in range(price.size):
        if not abs(price[e]) <= limit:
            return False
    return True


@inner
def first_token(rank, n_tokens, n_ranks):
    """The first of a rank's tokens."""
    return -(-rank * n_tokens // n_ranks)


@inner
def parameters_of(rules, s):
    """The parameters of rule s."""
    return rules.parameters[rules.parameters_at[s] : rules.parameters_at[s + 1]]


@inner
def update_rank(rules, s, rank, step, n_tokens, k, price):
    """Update one rank's copy of the newest price by that rank's loads, and forget these."""
    first, end = rules.memory_at[s], rules.memory_at[s + 1]
    size = (end - first) // rules.n_ranks[s]
    update = as_update(rules.update[s])
    update(
        parameters_of(rules, s), step, n_tokens, k, rules.pending[s, rank], price,
        rules.memory[first + rank * size : first + (rank + 1) * size],
    )  # fmt: skip
    for e in range(price.size):
        rules.pending[s, rank, e] = 0


@inner
def update_rule(rules, s, step, n_tokens, k, scratch):
    """End step ``step`` (from 1) of rule s, whose loads are in ``pending``; ``scratch`` (2, E) float64."""
    latest = rules.latest[s]
    if rules.update[s] != 0 and step % rules.every[s] == 0:
        n_ranks, n_updates = rules.n_ranks[s], step // rules.every[s]
        if n_ranks == 1:
            update_rank(rules, s, 0, n_updates, n_tokens * rules.every[s], k, latest)
        else:
            total, local = scratch[0], scratch[1]
            total[:] = 0.0
            for rank in range(n_ranks):
                local[:] = latest
                mine = first_token(rank + 1, n_tokens, n_ranks) - first_token(rank, n_tokens, n_ranks)
                update_rank(rules, s, rank, n_updates, mine * rules.every[s], k, local)
                total += local
            for e in range(latest.size):
                latest[e] = total[e] / n_ranks
    lag = rules.lag[s]
    price = rules.price[s]
    if lag == 0:
        price[:] = latest
    else:
        slot = rules.queue[s, step % lag]
        price[:] = slot
        slot[:] = latest
