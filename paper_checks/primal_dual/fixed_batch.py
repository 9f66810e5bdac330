"""ALF-LB on one batch, again and again; and batches made for the deterministic statements."""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np

import balancesim as bs
from balancesim import sources
from balancesim.theory import StepChange, breakpoint_gap, step_change
from balancesim.types import Float64Array, FloatArray, IntArray

SCHEDULES = ("sign", "constant", "harmonic", "sqrt")


class Batch(NamedTuple):
    """Scores with a name; ``heavy`` says that their sums lose the digits of a step.

    ``source`` draws more such batches, at steps other than 0.
    """

    name: str
    scores: FloatArray
    k: int
    heavy: bool
    source: sources.Source | None = None


class Move(NamedTuple):
    """One step: its number, A E - T K before it, the price before and after."""

    n: int
    excess: IntArray
    bias: Float64Array
    new_bias: Float64Array


class Change(NamedTuple):
    """What one step does to the dual: D1's two terms, the whole, and what two dual values differ by."""

    bias: Float64Array
    new_bias: Float64Array
    benefit: float
    squares: float
    split: StepChange
    plain: float


def moves(batch: Batch, schedule: str, step_size: float, n_moves: int, start: Float64Array) -> Iterator[Move]:
    """Yield the steps of ALF-LB on one batch."""
    n_tokens, n_experts = batch.scores.shape
    bias = start
    for n in range(1, n_moves + 1):
        loads = bs.route(batch.scores, bias, k=batch.k).loads
        excess = loads * n_experts - n_tokens * batch.k
        violation = np.sign(excess) if schedule == "sign" else excess / (n_experts * n_tokens)
        new_bias = bias - step_size / divisor(schedule, n) * violation
        yield Move(n, excess, bias, new_bias)
        bias = new_bias


def divisor(schedule: str, n: int) -> float:
    """By what the n-th step is smaller than the first."""
    return {"harmonic": float(n), "sqrt": math.sqrt(n)}.get(schedule, 1.0)


def heavy_and_light() -> list[Batch]:
    """Batches of float64 scores from light tails to some that have no mean by far, and of float32 ones."""
    families: list[tuple[str, sources.Source, int, int]] = [
        ("normal", sources.Normal(n_experts=16, seed=11), 1024, 2),
        ("Cauchy", sources.Cauchy(n_experts=16, seed=12), 1024, 2),
        ("Pareto 0.5", sources.Pareto(n_experts=16, tail_index=0.5, seed=13), 1024, 2),
        ("Pareto 0.1", sources.Pareto(n_experts=8, tail_index=0.1, seed=14), 512, 3),
        ("Student t, 1", sources.StudentT(n_experts=64, degrees=1.0, seed=15), 256, 8),
    ]
    batches = []
    for name, source, n_tokens, k in families:
        scores = source.batch(0, n_tokens)
        heavy = name == "Pareto 0.1"
        title = f"{name}, T={n_tokens}, E={source.n_experts}, K={k}"
        batches.append(Batch(title, scores, k, heavy, source))
    return batches


def changes(batch: Batch, n_moves: int) -> list[Change]:
    """Split every change of short runs: each schedule at three step sizes in the batch's own scale."""
    scores = batch.scores.astype(np.float64)
    ranked = np.sort(scores, axis=1)
    scale = float(np.median(ranked[:, -batch.k] - ranked[:, -2 * batch.k]))
    start = scale * np.linspace(-1.0, 1.0, scores.shape[1])
    found = []
    for schedule in SCHEDULES:
        for part in (0.05, 1.0, 4.0):
            step_size = part * scale * (1.0 if schedule == "sign" else 10.0)
            for move in moves(batch, schedule, step_size, n_moves, start):
                split = step_change(scores, move.bias, move.new_bias, k=batch.k)
                ends = [bs.dual_value(scores, bias, k=batch.k) for bias in (move.bias, move.new_bias)]
                if split.descent > 0.0:
                    found.append(
                        Change(
                            move.bias, move.new_bias, float(split.benefits.sum()), split.descent, split,
                            ends[1] - ends[0],
                        )
                    )  # fmt: skip
    return found


def fresh_changes(batch: Batch, found: list[Change]) -> tuple[Float64Array, Float64Array]:
    """Return D of a fresh batch at p+ less the batch's own at p, and D2's bound by the fresh batch's loads.

    Each change has its own fresh batch: D1 and D2 without the same scores at every step.
    """
    if batch.source is None:
        raise AssertionError(batch.name)
    own = batch.scores.astype(np.float64)
    n_tokens, n_experts = own.shape
    differences, ceilings = np.empty(len(found)), np.empty(len(found))
    for i, change in enumerate(found):
        fresh = batch.source.batch(1 + i, n_tokens).astype(np.float64)
        end, start = (
            bs.dual_value(scores, bias, k=batch.k)
            for scores, bias in ((fresh, change.new_bias), (own, change.bias))
        )
        loads = bs.route(fresh, change.new_bias, k=batch.k).loads
        differences[i] = end - start
        ceilings[i] = (change.new_bias - change.bias) @ (loads - n_tokens * batch.k / n_experts)
    return differences, ceilings


def exact_change(batch: Batch, change: Change) -> float:
    """D(p+) - D(p) in rational arithmetic, rounded once."""
    ends = []
    for bias in (change.bias, change.new_bias):
        prices = [Fraction(float(price)) for price in bias]
        total = -Fraction(len(batch.scores) * batch.k, len(prices)) * sum(prices)
        for row in batch.scores:
            biased = [Fraction(float(score)) + price for score, price in zip(row, prices, strict=True)]
            total += sum(sorted(biased)[-batch.k :])
        ends.append(total)
    return float(ends[1] - ends[0])


def residues(n_tokens: int, n_experts: int, rng: np.random.Generator) -> Float64Array:
    """Scores (a_k i + b_k) mod P, P prime: breakpoints of a pair are different residues, hence apart."""
    prime = next(p for p in range(max(n_tokens, n_experts, 2), 10**6) if all(p % d for d in range(2, p)))
    slopes, tokens = rng.permutation(prime)[:n_experts], rng.permutation(prime)[:n_tokens]
    shifts = rng.integers(prime, size=n_experts)
    return np.asarray((np.outer(tokens, slopes) + shifts) % prime, np.float64)


def widest_cycle(n_experts: int, *, integral: bool) -> Float64Array:
    """Scores for K = 1 on which the sign rule with u = 1 swings as far as D5's sharper band, from price 0 on.

    With L = E - 2 (``integral``) expert 1 has L + 1 tokens, expert 2 L - 1, the others L: one token hangs
    between each of the others and 1, and 2, and one between 1 and 2; all move in one step, and back in the
    next. With L = E - 2 + 1/E expert 1 has E - 1 tokens, the others E - 2: one hangs between 1 and each.
    """
    first, second, *others = range(n_experts)
    if integral:
        hanging = [(first, second, 1.0)]
        hanging += [(first, other, 0.5) for other in others] + [(other, second, 0.5) for other in others]
        settled = (n_experts - 3) * [second, *others]
    else:
        hanging = [(first, other, 1.0) for other in range(1, n_experts)]
        settled = (n_experts - 2) * list(range(1, n_experts))
    n_tokens = len(hanging) + len(settled)
    prime = next(p for p in range(n_tokens + 1, 10**6) if all(p % d for d in range(2, p)))
    # Far below what is chosen, and all breakpoints with such a score 10 or more apart.
    token, slope = np.arange(1, n_tokens + 1), np.arange(1, n_experts + 1)
    scores = np.asarray(-20.0 * prime - 10.0 * (np.outer(token, slope) % prime))
    for row, (preferred, next_best, lead) in zip(scores, hanging, strict=False):
        row[preferred], row[next_best] = 0.0, -lead
    for row, preferred in zip(scores[len(hanging) :], settled, strict=True):
        row[preferred] = 0.0
    return scores


def dyadic_normal(n_tokens: int, n_experts: int, rng: np.random.Generator) -> Float64Array:
    """Normal scores in units of 2**-40, breakpoints 1/(2 T^2) apart or more, as most are: a step is as long.

    Differences of such scores, and sums with such steps, are exact.
    """
    while True:
        scores = np.asarray(np.round(rng.normal(size=(n_tokens, n_experts)) * 2.0**40) / 2.0**40)
        if 2 * n_tokens**2 * breakpoint_gap(scores) >= 1:
            return scores


def pairs_against(before: IntArray, after: IntArray, delta: Float64Array) -> tuple[int, Float64Array]:
    """Count (left, entered) pairs whose price did not follow, and return all pairs' delta_j - delta_k.

    ``before`` and ``after`` (T, K) are the choices, made in whatever way.
    """
    leaving = ~(before[:, :, None] == after[:, None, :]).any(axis=2)
    entering = ~(after[:, :, None] == before[:, None, :]).any(axis=2)
    token, left, entered = np.nonzero(leaving[:, :, None] & entering[:, None, :])
    rises = delta[after[token, entered]] - delta[before[token, left]]
    return int((rises <= 0.0).sum()), rises
