"""Our method: Newton on the dual, then shortest augmenting paths among the few tokens near a boundary.

The dual has E variables. A sample of the tokens, ever larger, brings the price close; usually one pass over
all of them then collects the tokens that the noise of the sample may still move. From there on only these
are touched, and ever fewer: Newton's method until a handful of tokens are on the wrong side, augmenting paths
for those, and a price inside the set of optimal ones. Scores that tie by the thousand are first told apart by
noise far below their spacing; the true scores have the last word.
"""

import time
from typing import Any, NamedTuple

import numpy as np

from balancesim.batches import in_parts
from balancesim.exact.descent import FEW_ROWS, look, new_descent
from balancesim.exact.feasibility import infeasible
from balancesim.exact.problem import AssignmentProblem
from balancesim.exact.solution import Answer, Effort, SolveOutcome
from balancesim.kernels.candidates import (
    Candidates,
    collect_part,
    descend_candidates,
    joined,
    list_members,
    narrowed,
    write_choice,
)
from balancesim.kernels.exchange import BALANCED, NO_PATH, TOO_NARROW, UNFINISHED, balance, settle
from balancesim.kernels.members import WORD_BITS
from balancesim.kernels.newton import advance
from balancesim.kernels.sample import descend_sample
from balancesim.problem import balanced_load, cheapest_loads
from balancesim.types import Float64Array, IntArray

_LOAD_IN_SAMPLE = 16
"""Tokens per expert in the first sample."""

_GROWTH = 4
"""Factor from one sample to the next."""

_LAST_GROWTH = 16
"""Samples end where all tokens are fewer than this many times as many."""

_SAMPLE_GOAL = 0.15
"""Tokens on the wrong side at which a sample has told what it can, relative to its noise sqrt(n K E)."""

_SPREAD = 7.0
"""Width, relative to the standard deviation of a sample's price, that hardly any two prices differ by."""

_LARGEST_SHARE = 0.8
"""Share of near-ties up to which their density is believed."""

_QUANTA = 16
"""Tokens per expert within the least width: a price moves in steps of about one token's spacing."""

_STALLED = 4.0
"""Tokens on the wrong side, relative to the goal, that augmenting paths had better not be left with."""

_CLOSE = 8.0
"""Tokens on the wrong side, relative to the goal, from which on few candidates are kept."""

_PER_TOKEN = 0.5
"""Width, relative to the least, that a token on the wrong side of every expert asks for."""

_REMAINDER = 0.5
"""What a step leaves of the error, with a margin: the width to collect within, relative to the step."""

_FEW = 0.7
"""Share of the tokens near which another pass over all of them costs more than it saves."""

_MOST_PASSES = 10
"""Passes over all tokens after which the width grows until it is wide enough."""

_NOISE_REACH = 1.25
"""Width, relative to the noise that broke ties, within which the true scores may choose otherwise."""

_WIDENING = 4.0
_CYCLES = 64
_MOST_CYCLES = 32
"""Cycles between two looks at the clock, and those per expert after which the noise has misled too many."""

_MOVES = 1000
"""Augmentations between two looks at the clock."""

_ROUNDING = 4.0 * float(np.finfo(np.float64).eps)
_MAX_PASSES = 30
_ALL = 1e300
"""A width that makes every token a candidate."""


class _OutOfTimeError(Exception):
    """The deadline has passed."""


class _StuckError(Exception):
    """No path is left although an assignment exists: costs overflow."""


class _Clock:
    def __init__(self, time_limit: float | None) -> None:
        self.start = time.perf_counter()
        self.limit = np.inf if time_limit is None else time_limit

    def check(self) -> None:
        if time.perf_counter() - self.start > self.limit:
            raise _OutOfTimeError


class _Collected(NamedTuple):
    """Tokens within ``width`` of their boundary at ``price``, and how all tokens choose there."""

    price: Float64Array
    width: float
    loads: IntArray
    words: Any
    candidates: Candidates


def solve_dual(problem: AssignmentProblem, start: Float64Array | None, time_limit: float | None) -> Answer:
    """Solve by Newton on the dual and augmenting paths.

    Parameters
    ----------
    problem : AssignmentProblem
        Scores and limits.
    start : (E,) ndarray of float64 or None
        A bias to start from.
    time_limit : float or None
        Seconds; looked at between stages.

    Returns
    -------
    Answer
        An optimum, or an outcome of INTERRUPTED.

    Raises
    ------
    InputError
        If no assignment meets the limits.
    """
    clock = _Clock(time_limit)
    search = _Search(problem, clock)
    try:
        experts, bias = search.finish(search.approach(start))
    except _OutOfTimeError:
        effort = Effort(0.0, time.perf_counter() - clock.start, search.n_passes, search.n_moves)
        return Answer(None, None, SolveOutcome.INTERRUPTED, f"{time_limit:g} s have passed", effort)
    except _StuckError:
        effort = Effort(0.0, time.perf_counter() - clock.start, search.n_passes, search.n_moves)
        reason = "scores differ by more than float64 can hold; mask experts with minus infinity"
        return Answer(None, None, SolveOutcome.FAILED, reason, effort)
    effort = Effort(0.0, time.perf_counter() - clock.start, search.n_passes, search.n_moves)
    detail = f"{search.n_passes} passes, {search.n_moves} augmentations"
    return Answer(experts, bias, SolveOutcome.OPTIMAL, detail, effort)


class _Search:
    """One solve: its price, and what it cost so far."""

    def __init__(self, problem: AssignmentProblem, clock: _Clock) -> None:
        self.problem, self.clock = problem, clock
        self.n_passes = self.n_moves = 0
        self.goal = problem.n_experts / 2.0
        self.total = problem.n_tokens * problem.k
        n_experts = problem.n_experts
        low, high = problem.low.astype(np.float64), problem.high.astype(np.float64)
        if (problem.high - problem.low <= 1).all() and int(problem.high[0]) == -(-self.total // n_experts):
            low = high = np.full(n_experts, balanced_load(problem.n_tokens, n_experts, problem.k))
        self.state = new_descent(low, high)

    def approach(self, start: Float64Array | None) -> float:
        """Bring the price close, by samples of the tokens; return the width that what is left may need."""
        problem, state = self.problem, self.state
        n_tokens, n_experts = problem.scores.shape
        size = min(n_tokens, max(256, _LOAD_IN_SAMPLE * n_experts // problem.k))
        few = min(n_tokens, FEW_ROWS)
        look(state, problem.scores[np.arange(few) * n_tokens // few], problem.k, few / n_tokens, start)
        while True:
            self.clock.check()
            rows = np.arange(size) * n_tokens // size
            share = size / n_tokens
            sample = state._replace(low=state.low * share, high=state.high * share)
            goal = _SAMPLE_GOAL * np.sqrt(size * problem.k * n_experts)
            most = _MAX_PASSES if start is None else 1
            descend_sample(problem.scores, rows, problem.k, sample, goal, most)
            if start is not None or size * _LAST_GROWTH > n_tokens:
                break
            size *= _GROWTH
        if start is not None:
            # The start is the price of as many other tokens: its noise, that of these, and as much of drift.
            return self._width_for(size, 4.0 * size / n_tokens)
        width = self._width_for(size, 1.0 - size / n_tokens)
        advance(sample, size)
        return width

    def _width_for(self, size: int, share: float) -> float:
        """The width within which a price is right, from a share of the noise of a sample's loads."""
        problem, state = self.problem, self.state
        n_tokens, n_experts = problem.scores.shape
        counted, near = float(state.width[0]), max(1, int(state.n_near[0]))
        crowd = min(near / size, _LARGEST_SHARE)
        ties = 0.5 * (state.ties.sum(axis=0) + state.ties.sum(axis=1)) + near / n_experts
        slopes = -np.log1p(-crowd) / crowd * ties / (2.0 * counted)
        noise = np.sqrt(share * size * problem.k / n_experts * np.square(1.0 / slopes).mean())
        return float(_SPREAD * noise + _QUANTA * counted * n_experts * size / (near * n_tokens))

    def finish(self, width: float) -> tuple[IntArray, Float64Array]:
        """Go from a price nearby to the optimum."""
        problem, state = self.problem, self.state
        while True:
            found = self._descend(width)
            if self._settle(*self._balance(found)) or state.amplitude[0] == 0.0:
                break
            # The noise misled more tokens than cycles can put right.
            state.amplitude[0] = 0.0
        experts = np.empty((problem.n_tokens, problem.k), np.int64)
        in_parts(lambda first, last: list_members(found.words, first, last, experts), experts.shape)
        return experts, state.price

    def _descend(self, width: float) -> _Collected:
        """Collect candidates and descend among them, until few tokens are on the wrong side.

        Once the price is close, the passes are over those candidates alone that it may still move.
        """
        again = False
        while True:
            found = self._collect(width)
            self.state.loads[:] = found.loads
            wrong, too_narrow = self._descend_among(found, _CLOSE * self.goal)
            near = self._width_left(wrong)
            if not too_narrow:
                # Once only: where that is too narrow, all of them must do.
                if not again and near <= self._room(found):
                    found = self._narrowed(found, near)
                wrong, too_narrow = self._descend_among(found, self.goal)
            if not too_narrow or wrong <= _STALLED * self.goal:
                return found
            again = True
            width = self._count_all() if self.n_passes < _MOST_PASSES else min(_WIDENING * width, _ALL)

    def _count_all(self) -> float:
        """Take steps on all tokens until few enough are near what is left of the error; return its width.

        Slower than among candidates, but no width bounds the steps.
        """
        problem, state = self.problem, self.state
        rows = np.arange(problem.n_tokens)
        slope = reach = 0.0
        while True:
            self.clock.check()
            descend_sample(problem.scores, rows, problem.k, state, -1.0, 1)
            self.n_passes += 1
            counted = float(state.width[0])
            state.slope[0], state.reach[0] = slope, reach
            advance(state, problem.n_tokens)
            slope, reach = float(state.slope[0]), float(state.reach[0])
            width = _REMAINDER * float(np.ptp(state.step))
            share = width / counted * state.n_near[0] / problem.n_tokens
            if share < _FEW or self.n_passes >= _MOST_PASSES:
                return width + 2.0 * self._enough(counted)

    def _descend_among(self, found: _Collected, goal: float) -> tuple[float, bool]:
        """Descend; return the tokens on the wrong side, and whether the candidates were too few for more."""
        _, wrong, too_narrow = descend_candidates(
            found.candidates, self.state, found.price, found.width, self.problem.n_tokens, goal, _MAX_PASSES
        )
        return float(wrong), bool(too_narrow)

    def _room(self, found: _Collected) -> float:
        """How far prices may still move apart before other tokens than the candidates choose anew."""
        return found.width - float(np.ptp(self.state.price - found.price))

    def _narrowed(self, found: _Collected, width: float) -> _Collected:
        """Keep the candidates within the width of the present price; note what all of them chose."""
        price = self.state.price.copy()
        write_choice(found.candidates, found.words)
        few, _ = narrowed(found.candidates, price, width)
        return found._replace(price=price, width=width, candidates=few)

    def _width_left(self, wrong: float) -> float:
        """The width within which the price is right, from the tokens on the wrong side."""
        per_expert = 2.0 * wrong / self.problem.n_experts
        return self._enough(float(self.state.width[0])) * (1.0 + _PER_TOKEN * per_expert)

    def _enough(self, counted: float) -> float:
        """Width within which each expert has some tens of tokens, from the near-ties of a width."""
        return _QUANTA * counted * self.problem.n_experts / max(1, int(self.state.n_near[0]))

    def _collect(self, width: float, *, choice: Any = None, true_scores: bool = False) -> _Collected:
        """Collect the tokens within the width of their boundary; ``choice`` is kept, if there is one."""
        self.clock.check()
        problem, price = self.problem, self.state.price.copy()
        noise = 0.0 if true_scores else float(self.state.amplitude[0])
        words = choice
        if choice is None:
            words = np.empty((problem.n_tokens, -(-problem.n_experts // WORD_BITS)), np.uint64)

        def part(first: int, last: int) -> tuple[IntArray, Candidates]:
            loads = np.zeros(problem.n_experts, np.int64)
            near = collect_part(
                problem.scores, problem.k, price, width, noise, first, last, loads, words, choice is not None
            )  # fmt: skip
            return loads, near

        parts = in_parts(part, problem.scores.shape)
        self.n_passes += 1
        loads: IntArray = np.sum([loads for loads, _ in parts], axis=0)
        return _Collected(price, width, loads, words, joined([near for _, near in parts]))

    def _balance(self, found: _Collected) -> tuple[_Collected, IntArray, float]:
        """Balance the loads by augmenting paths, among as few candidates as will do.

        Returns the candidates that did, the loads that experts keep, and the reserve's price.
        """
        problem, state = self.problem, self.state
        enough = self._enough(float(state.width[0]))
        kept = cheapest_loads(state.price, problem.low, problem.high, self.total, near=state.loads)
        reserve = _reserve_price(state.price, kept, problem)
        while True:
            room = self._room(found)
            if not room > -_ALL:
                raise _StuckError
            if room <= 0.25 * enough and found.width < _ALL:
                write_choice(found.candidates, found.words)
                found = self._collect(min(_WIDENING * enough, _ALL), choice=found.words)
                continue
            self.clock.check()
            centre, width = state.price.copy(), min(enough, room)
            few, entry = narrowed(found.candidates, centre, width)
            ending, moves, reserve = balance(
                few, state.loads, kept, problem.low, problem.high, state.price, reserve, centre, width, _MOVES
            )
            self.n_moves += moves
            found.candidates.chosen[entry] = few.chosen
            if ending == BALANCED:
                write_choice(found.candidates, found.words)
                return found._replace(price=centre, width=width, candidates=few), kept, reserve
            if ending == UNFINISHED:
                continue
            if ending == NO_PATH and width >= _ALL:
                raise infeasible(problem) or _StuckError
            enough = _ALL if enough > state.limit[0] else enough * _WIDENING

    def _settle(self, found: _Collected, kept: IntArray, reserve: float) -> bool:
        """Put the price in the middle of what is optimal for the true scores, which may move some tokens.

        Returns whether that was possible.
        """
        problem, state = self.problem, self.state
        noise = float(state.amplitude[0])
        wide = _NOISE_REACH * noise
        cycles = 0
        while True:
            self.clock.check()
            if noise > 0.0:
                found = self._collect(wide, choice=found.words, true_scores=True)
            ending, more = settle(
                found.candidates, state.loads, kept, problem.low, problem.high, state.price, reserve,
                found.price, found.width, _ROUNDING, _CYCLES,
            )  # fmt: skip
            cycles += more
            self.n_moves += more
            if more:
                write_choice(found.candidates, found.words)
            if ending == UNFINISHED and cycles < _MOST_CYCLES * problem.n_experts:
                continue
            if ending != TOO_NARROW or noise == 0.0:
                return bool(ending == BALANCED)
            wide *= _WIDENING


def _reserve_price(price: Float64Array, kept: IntArray, problem: AssignmentProblem) -> float:
    """The price between that of experts which keep more than they must and of those which might keep more."""
    dear = price[kept > problem.low]
    cheap = price[kept < problem.high]
    if dear.size and (problem.low < problem.high).any():
        return float(dear.max())
    return float(cheap.min()) if cheap.size else 0.0
