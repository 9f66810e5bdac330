"""Why no assignment exists: the experts that masks leave too few choices, by a maximum flow."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from balancesim.errors import InputError
from balancesim.exact.problem import AssignmentProblem
from balancesim.types import IntArray

_NAMED = 8
"""Experts that a message lists before it only counts them."""


def infeasible(problem: AssignmentProblem) -> InputError | None:
    """Return the error that says which experts cannot get their load, or None where an assignment exists."""
    short = shortage(problem)
    if short is None:
        return None
    experts, most, least = short
    named = ", ".join(str(expert) for expert in experts[:_NAMED])
    listed = named if experts.size <= _NAMED else f"{named}, ... ({experts.size} in all)"
    return InputError(
        f"`scores` mask so much that no assignment meets `capacity`: experts {listed} can take {most} of the "
        f"T K = {problem.n_tokens * problem.k} choices, but need {least}; unmask some or change `capacity`"
    )


def shortage(problem: AssignmentProblem) -> tuple[IntArray, int, int] | None:
    """Find experts that can take fewer tokens than the capacity asks of them, or None.

    Returns the experts, the most they can take together and the least that they must (Hoffman's condition:
    such a set exists exactly when no assignment does).
    """
    available = np.isfinite(problem.scores)
    total = problem.n_tokens * problem.k
    short = _beyond_cut(problem, available)
    most = int(np.minimum(available[:, short].sum(axis=1), problem.k).sum())
    least = max(int(problem.low[short].sum()), total - int(problem.high[~short].sum()))
    return (np.flatnonzero(short), most, least) if most < least else None


def _beyond_cut(problem: AssignmentProblem, available: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the experts on the sink's side of a minimum cut, the smallest such set.

    Tokens hand K units to their experts. An expert passes its least load straight to the sink, and up to the
    rest of its largest load through one more node, whose outlet leaves room for all least loads.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    n_tokens, n_experts = available.shape
    token, expert = np.nonzero(available)
    first_expert = 1 + n_tokens
    spare, sink = first_expert + n_experts, first_expert + n_experts + 1
    every = first_expert + np.arange(n_experts)
    edges = [
        (np.zeros(n_tokens), 1 + np.arange(n_tokens), np.full(n_tokens, problem.k)),
        (1 + token, first_expert + expert, np.ones(token.size)),
        (every, np.full(n_experts, sink), problem.low),
        (every, np.full(n_experts, spare), problem.high - problem.low),
        ([spare], [sink], [n_tokens * problem.k - problem.low.sum()]),
    ]
    tail, head, room = (np.concatenate(parts).astype(np.int32) for parts in zip(*edges, strict=True))
    graph = csr_array((room, (tail, head)), shape=(sink + 1, sink + 1))
    residual: Any = graph - maximum_flow(graph, 0, sink).flow
    residual.eliminate_zeros()
    beyond = np.zeros(sink + 1, np.bool_)
    beyond[breadth_first_order(residual.T.tocsr(), sink, return_predecessors=False)] = True
    experts: NDArray[np.bool_] = beyond[every]
    return experts
