"""Quantile balancing: the price that would have balanced the last batch (Su 2026; Kimi K3 report, 2.3.3)."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from balancesim.balancers.compiled import CompiledRule, CompiledState
from balancesim.errors import InputError, RangeWarning, unknown_name
from balancesim.kernels.jit import rule_kernel, strict
from balancesim.kernels.quantile import find_cutoffs, find_quantiles, next_scores
from balancesim.kernels.rules import first_token
from balancesim.numbers import check_int, check_positive, check_rate
from balancesim.types import Float64Array, FloatArray, IntArray

_ESTIMATES = ("end", "midpoint", "histogram")
_END, _MIDPOINT, _HISTOGRAM = range(3)
_HEADER = 4
_MISSED, _SEEN, _LOWEST, _WIDTH = range(_HEADER)
"""The first cells of a histogram's memory: biases outside of it and in all, its lower end, a bin's width."""


@strict
def count_needed(
    parameters: Float64Array,
    n_experts: int,
    tile: FloatArray,
    bias: FloatArray,
    cutoffs: FloatArray,
    token: int,
    n_lanes: int,
    memory: Float64Array,
) -> None:
    """Count the bias with which each expert would just have got each token, cutoff - score."""
    n_bins, margin = int(parameters[4]), parameters[5]
    if token == 0:
        low, high = np.float64(bias[:n_experts].min()), np.float64(bias[:n_experts].max())
        memory[_LOWEST] = low - margin
        memory[_WIDTH] = (high - low + 2.0 * margin) / n_bins
        memory[_HEADER:] = 0.0
    lowest, width = memory[_LOWEST], memory[_WIDTH]
    missed = 0
    for e in range(n_experts):
        counts = memory[_HEADER + e * n_bins : _HEADER + (e + 1) * n_bins]
        for t in range(n_lanes):
            place = float(n_bins)  # where no bias would do, as the expert is masked
            if tile[e, t] > -np.inf:
                place = (np.float64(cutoffs[t]) - np.float64(tile[e, t]) - lowest) / width
            missed += not 0.0 <= place <= n_bins
            counts[int(min(max(place, 0.0), n_bins - 1.0))] += 1.0
    memory[_MISSED] += missed
    memory[_SEEN] += n_experts * n_lanes


@rule_kernel
def observe(
    parameters: Float64Array,
    n_tokens: int,
    k: int,
    n_experts: int,
    tile: FloatArray,
    bias: FloatArray,
    top: FloatArray,
    token: int,
    n_lanes: int,
    memory: Float64Array,
) -> None:
    """Keep each token's scores and its (K+1)-th largest biased score, or count what bias it would need."""
    cutoffs = next_scores(tile, bias, k, n_experts, top, n_lanes)
    if parameters[0] == _HISTOGRAM:
        count_needed(parameters, n_experts, tile, bias, cutoffs, token, n_lanes, memory)
        return
    for e in range(n_experts):
        for t in range(n_lanes):
            memory[e * n_tokens + token + t] = tile[e, t]
    for t in range(n_lanes):
        memory[n_experts * n_tokens + token + t] = cutoffs[t]


@rule_kernel
def update(
    parameters: Float64Array,
    step: int,
    n_tokens: int,
    k: int,
    loads: IntArray,
    price: Float64Array,
    memory: Float64Array,
) -> None:
    """Move to the batch's quantiles (theory.md, "Rivals")."""
    estimate, n_sweeps, n_ranks = parameters[0], int(parameters[1]), int(parameters[2])
    ema_rate, n_bins = parameters[3], int(parameters[4])
    n_experts = price.size
    proposal = np.zeros(n_experts)
    if estimate == _HISTOGRAM:
        wanted = n_tokens * k / n_experts
        for e in range(n_experts):
            counts = memory[_HEADER + e * n_bins : _HEADER + (e + 1) * n_bins]
            place, below = 0, 0.0
            while below + counts[place] < np.ceil(wanted):
                below += counts[place]
                place += 1
            proposal[e] = memory[_WIDTH] * (place + (wanted - below) / counts[place])
    else:
        size = n_experts * n_tokens
        scores, cutoffs = memory[:size].reshape(n_experts, n_tokens), memory[size:]
        values, quantiles = np.empty(n_tokens), np.empty(n_experts)
        for rank in range(n_ranks):
            first, last = first_token(rank, n_tokens, n_ranks), first_token(rank + 1, n_tokens, n_ranks)
            for sweep in range(n_sweeps):
                if sweep > 0:
                    find_cutoffs(scores, -quantiles, k, first, last, cutoffs)
                find_quantiles(scores, cutoffs, k, first, last, estimate == _MIDPOINT, values, quantiles)
            for e in range(n_experts):
                proposal[e] -= quantiles[e] / n_ranks
    proposal -= proposal.mean()
    for e in range(n_experts):
        price[e] = (1.0 - ema_rate) * price[e] + ema_rate * proposal[e]
    price -= price.mean()


@dataclass(frozen=True, kw_only=True)
class QuantileBalance(CompiledRule):
    """Quantile balancing: dual coordinate descent on the last batch, routed with the price before.

    With cutoffs alpha_i the (K+1)-th largest of scores_i + p, the proposal is p_k = -beta_k, centred, with
    beta_k the (floor(T K / E) + 1)-th largest of scores_k - alpha (docs/theory.md, "Quantile balancing").
    Sources: Su, kexue.fm/archives/11619 (2026); the histogram: Kimi K3 technical report, section 2.3.3 and
    appendices C-D.

    Parameters
    ----------
    estimate : {"end", "midpoint", "histogram"}, optional
        What of the interval of optimal prices is taken: its lower end for beta, as published, at which a
        token ties; its midpoint, where T K / E is an integer (else the interval is a point); or the K/E
        quantile of alpha - scores as interpolated in a histogram.
    n_sweeps : int, optional
        Coordinate descent sweeps on the batch for one update.
    ema_rate : float, optional
        c in p <- (1 - c) p + c proposal.
    n_ranks : int, optional
        The proposal is the average of those of so many equal parts of the batch; 1 pools the batch.
    n_bins : int, optional
        Bins of each expert's histogram.
    margin : float, optional
        The histogram covers [min p - margin, max p + margin], in score units: scores that differ by at most
        this much are always inside. What falls outside is counted in the outermost bins, with a warning.

    Notes
    -----
    A late price is `Delayed` with ``lag``; batches that share one update are `Delayed` with ``every``. The
    memory is E (T + 1) numbers, or E n_bins for the histogram.
    """

    name = "quantile"
    reference = "Su 2026, kexue.fm/archives/11619; Kimi K3 technical report, section 2.3.3"
    needs_scores = True
    allows_groups = False
    compiled_update = staticmethod(update)
    compiled_observe = staticmethod(observe)
    estimate: Literal["end", "midpoint", "histogram"] = "end"
    n_sweeps: int = 1
    ema_rate: float = 1.0
    n_ranks: int = 1
    n_bins: int = 1000
    margin: float = 1.0

    def __post_init__(self) -> None:
        if self.estimate not in _ESTIMATES:
            raise InputError(f"`estimate`: {unknown_name('estimate', self.estimate, _ESTIMATES)}")
        check_int("n_sweeps", self.n_sweeps, 1)
        check_rate("ema_rate", self.ema_rate)
        check_int("n_ranks", self.n_ranks, 1)
        check_int("n_bins", self.n_bins, 1)
        check_positive("margin", self.margin)
        if self.estimate == "histogram":
            for name in ("n_sweeps", "n_ranks"):
                if getattr(self, name) != 1:
                    raise InputError(
                        f'`{name}` must be 1 for `estimate` "histogram", which counts whole batches and '
                        f'keeps no scores, got {getattr(self, name)}; use "end" or "midpoint"'
                    )

    def parameters(self) -> Sequence[float]:
        """Return the fields, in order."""
        estimate = _ESTIMATES.index(self.estimate)
        return estimate, self.n_sweeps, self.n_ranks, self.ema_rate, self.n_bins, self.margin

    def memory(self, n_experts: int, n_tokens: int, k: int) -> Float64Array:
        """Return room for scores and cutoffs, or for how much was missed and seen, and the histograms."""
        del k
        if self.estimate == "histogram":
            return np.zeros(_HEADER + n_experts * self.n_bins)
        if self.n_ranks > n_tokens:
            raise InputError(
                f"`n_ranks` must be at most the {n_tokens} tokens of an update, got {self.n_ranks}"
            )
        return np.zeros((n_experts + 1) * n_tokens)

    def observe(self, state: CompiledState, scores: FloatArray) -> CompiledState:
        """Show the rule a batch's scores; warns where a histogram first misses some of them."""
        after = super().observe(state, scores)
        if after.memory is not None and (state.memory is None or not self.remark(state.memory)):
            text = self.remark(after.memory)
            if text:
                warnings.warn(text, RangeWarning, stacklevel=2)
        return after

    def remark(self, memory: Float64Array) -> str:
        """Say which fraction of what it counted the histogram missed; empty if none."""
        if self.estimate != "histogram" or memory[_MISSED] == 0.0:
            return ""
        fraction = memory[_MISSED] / memory[_SEEN]
        return (
            f"the histogram of {self.describe()} missed {fraction:.2%} of the biases that tokens would need, "
            f"which lie more than `margin` = {self.margin:g} outside the range of the price and are counted "
            "in the outermost bins; give a larger `margin`, and more `n_bins` for the same resolution"
        )

    def describe(self) -> str:
        parts = [self.estimate if self.estimate != "histogram" else f"histogram of {self.n_bins} bins"]
        parts += [f"{self.n_sweeps} sweeps"] if self.n_sweeps > 1 else []
        parts += [f"EMA {self.ema_rate:g}"] if self.ema_rate < 1.0 else []
        parts += [f"averaged over {self.n_ranks} ranks"] if self.n_ranks > 1 else []
        return f"quantile balancing, {', '.join(parts)}"
