"""What a balancing rule does at the end of a step: sum loads, update the newest price, put one in force."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from balancesim.kernels.calls import as_update
from balancesim.kernels.jit import inner, strict

# Kinds of rule. IN_PYTHON: the caller changes the price. ASSIGNED: the caller has chosen the experts, counted
# loads and added to the score lost.
IN_KERNEL = 0
IN_PYTHON = 1
ASSIGNED = 2

_EXPONENT: Final = 0x7FF << 52
"""The exponent bits of a float64, all set: infinite or NaN."""

# States of a rule within a run.
RUNNING = 0
NOT_FINITE = 1
NOT_ASSIGNED = 2


class Rules(NamedTuple):
    """S rules side by side: what they are, and where they stand.

    ``kind`` (S,); ``update``, ``observe`` (S,) addresses of compiled functions, 0 for none; ``threshold``
    (S,) whether experts are chosen by a positive biased score; ``every``, ``lag``, ``n_ranks`` (S,) as in
    ``balancers.Delayed``; ``parameters`` of all rules, rule s's from ``parameters_at[s]``; ``against`` (S,)
    the comparator's index, -1 for none; ``is_own`` (S,) whether regret is on the rule's own objective, whose
    term the rule sums in its first cell of memory, and ``own_term`` (S,) that term at the comparator.

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
    """Whether every price is a number of magnitude at most ``limit``.

    By its bits: inside a loop that is compiled for numbers alone, a comparison may take NaN for one.
    """
    bits = price.view(np.int64)
    for e in range(price.size):
        if bits[e] & _EXPONENT == _EXPONENT or abs(price[e]) > limit:
            return False
    return True


@inner
def first_token(rank, n_tokens, n_ranks):
    """The first of a rank's tokens."""
    return -(-rank * n_tokens // n_ranks)


@inner
def forget(pending):
    for e in range(pending.size):
        pending[e] = 0


@inner
def update_ranks(address, parameters, every, step, n_tokens, k, pending, latest, memory, scratch):
    """Average the prices that ranks arrive at from the newest one, each by its row of ``pending``."""
    n_experts, n_ranks = latest.size, pending.shape[0]
    update = as_update(address)
    total, local = scratch[0], scratch[1]
    size = memory.size // n_ranks
    for e in range(n_experts):
        total[e] = 0.0
    for rank in range(n_ranks):
        for e in range(n_experts):
            local[e] = latest[e]
        mine = first_token(rank + 1, n_tokens, n_ranks) - first_token(rank, n_tokens, n_ranks)
        own = memory[rank * size : (rank + 1) * size]
        update(parameters, step, mine * every, k, pending[rank], local, own)
        forget(pending[rank])
        for e in range(n_experts):
            total[e] += local[e]
    for e in range(n_experts):
        latest[e] = total[e] / n_ranks


@inner
def update_rule(
    address, parameters, every, step, n_tokens, k, pending, latest, queue, lag, price, memory, scratch
):
    """End step ``step`` (from 1) of a rule whose loads, a row a rank, are in ``pending``.

    ``queue`` (lag, E) holds prices that wait; ``scratch`` is (2, E) float64.
    """
    if address != 0 and (every == 1 or step % every == 0):
        if pending.shape[0] == 1:
            update = as_update(address)
            update(parameters, step // every, n_tokens * every, k, pending[0], latest, memory)
            forget(pending[0])
        else:
            update_ranks(
                address, parameters, every, step // every, n_tokens, k, pending, latest, memory, scratch
            )
    for e in range(price.size):
        newest = latest[e]
        if lag > 0:
            oldest = queue[step % lag, e]
            queue[step % lag, e] = newest
            newest = oldest
        price[e] = newest
