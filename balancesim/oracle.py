"""Score kept relative to the exact optimum: the distance of every rule from the best balanced assignment."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from balancesim.assignments import chosen_scores, excess
from balancesim.errors import InputError
from balancesim.exact import SolveOutcome, solve
from balancesim.feed import checked_batch
from balancesim.sources.base import Source
from balancesim.types import Float64Array, FloatArray, IntArray


class Candidate(NamedTuple):
    """What is held against the optimum: the steps after which, and the choice on the batch that follows.

    ``steps`` (M,) count from 1; ``choose(i, scores)`` gives the scores that the rule chooses from the batch
    after ``steps[i]``, each token's ascending, or None where these cannot be held against the optimum's: it
    finds no assignment, or fills other than T K places.
    """

    steps: IntArray
    choose: Callable[[int, FloatArray], Float64Array | None]


class Comparison(NamedTuple):
    """How a candidate did beside the optimum of the same batches.

    ``steps`` (M,); ``score`` (M,) of the optimum and ``over`` (M,), the candidate's minus that, per token;
    NaN where one of them has no assignment, or they fill different numbers of places. ``reason`` says why the
    first optimum that is missing is.
    """

    steps: IntArray
    score: Float64Array
    over: Float64Array
    reason: str


def compare_with_exact(
    candidates: Sequence[Candidate], source: Source, *, n_tokens: int, k: int, bias: Float64Array
) -> list[Comparison]:
    """Hold the choices of several rules against the exact optimum of the same batches.

    Each batch is drawn and solved once, from a start that depends on no rule, so that a rule has the same
    numbers alone and among others.

    Parameters
    ----------
    candidates : sequence of Candidate
        The rules; steps without a batch after them are left out.
    source : Source
        Batch ``n`` (from 0) follows step ``n``.
    n_tokens, k : int
        Tokens per batch and experts per token.
    bias : (E,) ndarray of float64
        Where the solves start.

    Returns
    -------
    list of Comparison
        One per candidate.
    """
    available = source.n_steps(n_tokens)
    kept = [one.steps if available is None else one.steps[one.steps < available] for one in candidates]
    found = [
        Comparison(steps, np.full(steps.size, np.nan), np.full(steps.size, np.nan), "") for steps in kept
    ]
    for step in sorted({int(step) for steps in kept for step in steps}):
        scores = checked_batch(source, step, n_tokens)
        optimum, reason = _optimum(scores, k, bias)
        for s, candidate in enumerate(candidates):
            for i in np.flatnonzero(kept[s] == step):
                if optimum is None:
                    found[s] = found[s]._replace(reason=found[s].reason or f"after step {step}: {reason}")
                    continue
                found[s].score[i] = optimum.sum() / n_tokens
                chosen = candidate.choose(int(i), scores)
                if chosen is not None:
                    found[s].over[i] = excess(chosen, optimum) / n_tokens
    return found


def _optimum(scores: FloatArray, k: int, bias: Float64Array) -> tuple[Float64Array | None, str]:
    """The chosen scores of the optimum, or None and why."""
    try:
        solution = solve(scores, k=k, bias=bias)
    except InputError as error:  # masks that leave no balanced assignment
        return None, str(error)
    if solution.experts is None or solution.status.outcome is not SolveOutcome.OPTIMAL:
        return None, solution.status.reason
    return chosen_scores(scores, solution.experts), ""
