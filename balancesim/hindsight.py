"""The best fixed bias in hindsight: the minimiser of the dual summed over a run's own batches.

The same descent as that of the exact solver, on batches that are replayed rather than held in memory: Newton
steps on longer and longer stretches of the run, one or two on the whole of it, and the last ones on the
candidates that a final replay collects.
"""

from typing import Any, NamedTuple

import numpy as np

from balancesim.batches import check_masks, padded
from balancesim.exact.descent import look, new_descent
from balancesim.feed import available_steps, chunks, pilot, score_dtype
from balancesim.kernels.candidates import Candidates, descend_candidates, joined
from balancesim.kernels.model import LANES, n_rows
from balancesim.kernels.newton import Descent, advance
from balancesim.problem import check_sizes
from balancesim.sources.base import Source
from balancesim.types import Float64Array, IntArray

_STEPS_PER_CHUNK = 1024
_FIRST_STRETCH = 4096
_GROWTH = 16
"""Tokens of the first stretch, and the factor from one to the next."""

_STRETCH_GOAL = 0.15
"""Tokens on the wrong side at which a stretch has told what it can, relative to its noise sqrt(n K E)."""

_FEW_CANDIDATES = 1 << 19
"""Candidates, about, that may be collected: some tens of megabytes."""

_REMAINDER = 0.5
"""What a step leaves of the error, with a margin, relative to the step."""

_NARROWER = 0.2
"""Part of the descent's width within which near-ties tell the Hessian that the gain is made of."""

_QUANTA = 32
"""Tokens per expert within the least width."""

_MAX_PASSES = 30
_MOST_REPLAYS = 8
"""Replays of the whole run; 2 are the rule."""


class FixedBias(NamedTuple):
    """A bias found by descent on the dual.

    Attributes
    ----------
    bias : (E,) ndarray of float64
        Zero mean.
    n_wrong : int
        Tokens of the whole run that are on the wrong side of perfect balance at the bias: a handful, unless
        scores tie.
    gain : float
        What the bias is expected to gain on the population minimiser over the whole run, per token, by
        fitting the run's own noise: half the trace of the pseudo-inverse Hessian times the covariance of the
        batches' violations. Along the run the gain grows linearly. Zero for scores that drift, switch or
        were made elsewhere, for which there is no such population.
    n_passes : int
        Passes over the batches, partial ones included.
    """

    bias: Float64Array
    n_wrong: int
    gain: float
    n_passes: int


def best_fixed_bias(source: Source, *, n_tokens: int, k: int, n_steps: int) -> FixedBias:
    """Minimise the dual of ``n_steps`` replayed batches.

    Parameters
    ----------
    source : Source
        Its seed keys the batches.
    n_tokens, k : int
        Tokens per batch and experts per token.
    n_steps : int
        Batches to replay; fewer if a recording ends.

    Returns
    -------
    FixedBias
        In float64; the same for any number of threads.
    """
    check_sizes(source.n_experts, k, n_tokens)
    return _Hindsight(source, n_tokens, k, available_steps(source, n_tokens, n_steps)).find()


class _Hindsight:
    """One run's batches, and the descent on them."""

    def __init__(self, source: Source, n_tokens: int, k: int, n_steps: int) -> None:
        self.source, self.n_tokens, self.k, self.n_steps = source, n_tokens, k, n_steps
        self.n_passes = 0
        n_experts = source.n_experts
        self.products: Float64Array = np.zeros((n_experts, n_experts))
        rows = pilot(source).astype(np.float64)
        check_masks(rows, k)
        self.scales = new_descent(*self._targets(len(rows)))
        look(self.scales, rows, k, 1.0)

    def find(self) -> FixedBias:
        """Descend on stretches, then on the whole."""
        stretch = min(self.n_steps, max(1, _FIRST_STRETCH // self.n_tokens))
        while stretch < self.n_steps:
            self._descend(stretch)
            stretch = min(self.n_steps, stretch * _GROWTH)
        n_wrong, gain = self._finish()
        bias = self.scales.price - self.scales.price.mean()
        return FixedBias(bias, n_wrong, gain, self.n_passes)

    def _targets(self, n: int) -> tuple[Float64Array, Float64Array]:
        load = np.full(self.source.n_experts, n * self.k / self.source.n_experts)
        return load, load

    def _state(self, n_steps: int) -> Descent:
        low, high = self._targets(n_steps * self.n_tokens)
        state = self.scales._replace(low=low, high=high)
        state.best_wrong[0] = np.inf
        state.slope[0] = state.reach[0] = 0.0
        state.since[0] = 0
        return state

    def _descend(self, n_steps: int) -> None:
        """Take steps on a stretch until it has told what it can."""
        state = self._state(n_steps)
        n = n_steps * self.n_tokens
        goal = _STRETCH_GOAL * np.sqrt(n * self.k * self.source.n_experts)
        for _ in range(_MAX_PASSES):
            self._replay(state, n_steps)
            if advance(state, n) <= goal or state.since[0] > 2:
                break
        state.price[:] = state.best

    def _finish(self) -> tuple[int, float]:
        """Take steps on the whole run, the last ones on the candidates; return tokens wrong, and the gain."""
        state = self._state(self.n_steps)
        n = self.n_steps * self.n_tokens
        n_experts = self.source.n_experts
        replays = 0
        best, best_wrong = state.price.copy(), np.inf
        while True:
            self._replay(state, self.n_steps)
            replays += 1
            counted, near = float(state.width[0]), max(1, int(state.n_near[0]))
            origin = state.price.copy()
            before = advance(state, n)
            if before < best_wrong:
                best, best_wrong = origin, before
            width = _REMAINDER * float(np.ptp(state.step)) + _QUANTA * counted * n_experts / near
            if near * width / counted > _FEW_CANDIDATES and replays < _MOST_REPLAYS:
                continue
            width = min(width, counted * _FEW_CANDIDATES / near)
            # What is routed is the price as rounded to the scores' dtype.
            centre = state.price.astype(score_dtype(self.source)).astype(np.float64)
            state.price[:] = centre
            # The pairs at the K-th and the next place alone are counted: a bias of the order of the width.
            state.width[0] *= _NARROWER
            candidates = self._replay(state, self.n_steps, width)
            gain = self._gain(state)
            replays += 1
            goal = n_experts / 2.0
            _, wrong, too_narrow = descend_candidates(candidates, state, centre, width, n, goal, _MAX_PASSES)
            if wrong < best_wrong:
                best, best_wrong = state.price.copy(), wrong
            if not too_narrow or replays >= _MOST_REPLAYS:
                state.price[:] = best
                return int(best_wrong), gain

    def _gain(self, state: Descent) -> float:
        """What fitting the run's own noise is expected to gain, from the latest replay."""
        model = self.source.kernel_model()
        if model is None or model.phase_start.size > 1 or model.walk_rate > 0.0:
            return 0.0
        adjacency = (state.ties + state.ties.T) / (2.0 * state.width[0] * self.n_steps * self.n_tokens)
        laplacian = np.diag(adjacency.sum(axis=1)) - adjacency
        return 0.5 * float(np.sum(np.linalg.inv(_invertible(laplacian)) * self.products)) / self.n_steps

    def _replay(self, state: Descent, n_steps: int, near_width: float = -1.0) -> Candidates:
        """Count loads and near-ties of the first steps at the state's price; collect candidates if asked."""
        from balancesim.kernels.dual import dual_pass
        from balancesim.kernels.scores import draw_pointer

        source = self.source
        dtype = score_dtype(source)
        tile: Any = np.zeros((n_rows(source.n_experts), LANES), dtype)
        at = padded(state.price.astype(dtype))
        loads: IntArray = np.zeros(source.n_experts, np.int64)
        state.ties[:] = 0
        state.n_near[0] = 0
        self.products[:] = 0.0
        parts = []
        for chunk in chunks(source, self.n_tokens, self.k, n_steps, steps_per_chunk=_STEPS_PER_CHUNK):
            near, candidates = dual_pass(
                draw_pointer(chunk.model, dtype), chunk.model, tile, chunk.first, chunk.last, self.n_tokens,
                self.k, at, state.width[0], near_width, loads, self.products, state.ties,
            )  # fmt: skip
            state.n_near[0] += near
            parts.append(candidates)
        state.loads[:] = loads
        self.n_passes += 1
        return joined(parts)


def _invertible(laplacian: Float64Array) -> Float64Array:
    """Make a Laplacian invertible: the complete graph joins unseen pairs, the mean gets a value."""
    n = len(laplacian)
    mean = max(float(np.trace(laplacian)) / (n - 1), 1e-300)
    invertible: Float64Array = laplacian + 1e-3 * mean * (np.eye(n) - 1.0 / n) + np.full((n, n), mean / n)
    return invertible
