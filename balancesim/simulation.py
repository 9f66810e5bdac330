"""The simulation of balancing rules on a source of scores: draw, route, measure, update."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from balancesim.balancers import AlfLB, PriceRule
from balancesim.errors import InputError
from balancesim.feed import available_steps, chunks, score_dtype, wide_limit
from balancesim.hindsight import best_fixed_bias
from balancesim.kernels import rules as rule_codes
from balancesim.kernels.loop import NOT_FINITE, RUNNING, Record, Rules, Tally, Workspace, run_steps
from balancesim.kernels.model import LANES, n_rows
from balancesim.kernels.scores import draw_pointer
from balancesim.numbers import check_int
from balancesim.problem import check_sizes
from balancesim.routing import as_bias, padded
from balancesim.runs import Comparator, Outcome, Run, Status
from balancesim.sources.base import Source
from balancesim.types import Float64Array, IntArray

_SCORES_PER_CALL = 1 << 26
"""Scores, times rules, that one kernel call routes: tens of milliseconds, for Ctrl-C and progress to work."""


@overload
def simulate(
    rule: PriceRule,
    source: Source,
    *,
    n_tokens: int = ...,
    k: int = ...,
    horizon: int = ...,
    seed: int | None = ...,
    comparator: Literal["auto", "population", "hindsight"] | ArrayLike = ...,
    n_records: int = ...,
    progress: Callable[[int], None] | None = ...,
) -> Run: ...


@overload
def simulate(
    rule: Sequence[PriceRule],
    source: Source,
    *,
    n_tokens: int = ...,
    k: int = ...,
    horizon: int = ...,
    seed: int | None = ...,
    comparator: Literal["auto", "population", "hindsight"] | ArrayLike = ...,
    n_records: int = ...,
    progress: Callable[[int], None] | None = ...,
) -> list[Run]: ...


def simulate(
    rule: PriceRule | Sequence[PriceRule],
    source: Source,
    *,
    n_tokens: int = 256,
    k: int = 2,
    horizon: int = 10_000,
    seed: int | None = None,
    comparator: Literal["auto", "population", "hindsight"] | ArrayLike = "auto",
    n_records: int = 64,
    progress: Callable[[int], None] | None = None,
) -> Run | list[Run]:
    """Run one rule, or several on shared draws, for ``horizon`` batches.

    Step n = 1, 2, ... routes ``source.batch(n - 1, n_tokens)`` with the bias before the update.

    Parameters
    ----------
    rule : PriceRule or sequence of PriceRule
        Each rule of a sequence gets the bits it would have alone.
    source : Source
        Scores; its seed keys all draws.
    n_tokens : int, optional
        Tokens per batch, T.
    k : int, optional
        Experts per token, 1 <= k < E.
    horizon : int, optional
        Batches, N.
    seed : int, optional
        Replaces the source's own seed.
    comparator : {"auto", "population", "hindsight"} or (E,) array_like, optional
        What regret is measured against: the population minimiser, the best fixed bias in hindsight, or a
        given bias; "auto" is the population minimiser where it is known, else hindsight.
    n_records : int, optional
        Recorded steps, log-spaced, the first and the last included; fewer where they coincide.
    progress : callable, optional
        Called now and then with the number of steps done.

    Returns
    -------
    Run or list of Run
        One per rule, in order.

    Raises
    ------
    InputError
        If an argument breaks its rule, or a step size is "auto" where no modulus is known.

    Notes
    -----
    The loop runs in one compiled kernel that releases the GIL; memory does not grow with the horizon. A rule
    without a kernel form runs too, with a call into Python at every step. Results depend on no number of
    threads. Scores are drawn and routed in the source's dtype; biases, losses and regret are kept in float64.
    """
    rules = [rule] if isinstance(rule, PriceRule) else _listed(rule)
    _check_arguments(rules, source, n_tokens, k, horizon, n_records)
    if seed is not None:
        source = source.with_seed(seed)
    rules = [_with_step_size(one, source, k) for one in rules]
    n_steps = available_steps(source, n_tokens, horizon)
    if n_steps == 0:
        raise InputError(f"`n_tokens` = {n_tokens} is more than the recording holds; use smaller batches")
    reference = _find_comparator(comparator, source, n_tokens, k, n_steps)
    runs = _Loop(rules, source, reference, n_tokens, k, horizon, n_steps, n_records).run(progress)
    return runs[0] if isinstance(rule, PriceRule) else runs


def record_steps(horizon: int, n_records: int) -> IntArray:
    """Log-spaced steps from 1 to the horizon, both included, without repeats.

    Parameters
    ----------
    horizon, n_records : int
        The last step, and how many steps to aim at.

    Returns
    -------
    (R,) ndarray of int64
        Ascending; R <= n_records, and every step where ``n_records`` allows it.
    """
    if n_records >= horizon:
        return np.arange(1, horizon + 1)
    return np.unique(np.round(np.geomspace(1.0, horizon, n_records)).astype(np.int64))


def _listed(rules: Any) -> list[PriceRule]:
    if isinstance(rules, str | type) or not isinstance(rules, Iterable):
        raise InputError(
            f"`rule` must be a rule or a sequence of rules, got {rules!r}; e.g. AlfLB(step_size=1.0)"
        )
    return list(rules)


def _check_arguments(
    rules: list[PriceRule], source: Source, n_tokens: int, k: int, horizon: int, n_records: int
) -> None:
    if not rules:
        raise InputError("`rule` must be a rule or a non-empty sequence of rules, got an empty sequence")
    for one in rules:
        if not isinstance(one, PriceRule):
            raise InputError(
                f"`rule` must be a PriceRule, got {one!r}; derive from balancesim.balancers.PriceRule"
            )
        if one.needs_probabilities:
            raise InputError(
                f"`rule` {one.describe()} needs router probabilities, which scores alone do not give"
            )
    if not isinstance(source, Source):
        raise InputError(f"`source` must be a Source, got {source!r}; see balancesim.sources")
    check_sizes(source.n_experts, k, n_tokens)
    check_int("horizon", horizon, 1)
    check_int("n_records", n_records, 2)


def _with_step_size(rule: PriceRule, source: Source, k: int) -> PriceRule:
    """Replace a step size of "auto" by 1/mu(p*)."""
    if not isinstance(rule, AlfLB) or rule.step_size != "auto":
        return rule
    from balancesim.theory import modulus

    try:
        mu = modulus(source, k)
    except InputError as error:
        raise InputError(
            f'`step_size` "auto" needs a source whose modulus is known: {error}. Give a number, or estimate '
            '1/mu by balancesim.theory.modulus(source, k, method="gap", bias=...)'
        ) from error
    return dataclasses.replace(rule, step_size=1.0 / mu.value)


def _find_comparator(comparator: Any, source: Source, n_tokens: int, k: int, n_steps: int) -> Comparator:
    if not isinstance(comparator, str):
        return Comparator("given", as_bias(comparator, source.n_experts, "comparator"), 0.0)
    if comparator not in ("auto", "population", "hindsight"):
        raise InputError(
            f'`comparator` must be "auto", "population", "hindsight" or an (E,) bias, got {comparator!r}'
        )
    population = source.population_bias() if comparator != "hindsight" else None
    if population is not None:
        return Comparator("population", population, 0.0)
    if comparator == "population":
        raise InputError(
            f'`comparator` "population" is not known for {source.describe()}; use "hindsight" or "auto"'
        )
    found = best_fixed_bias(source, n_tokens=n_tokens, k=k, n_steps=n_steps)
    return Comparator("hindsight", found.bias, found.gain)


class _Loop:
    """Arrays of one call of `simulate`, and the chunks that fill them."""

    def __init__(
        self,
        rules: list[PriceRule],
        source: Source,
        comparator: Comparator,
        n_tokens: int,
        k: int,
        horizon: int,
        n_steps: int,
        n_records: int,
    ) -> None:
        self.rules, self.source, self.comparator = rules, source, comparator
        self.n_tokens, self.k, self.horizon, self.n_steps = n_tokens, k, horizon, n_steps
        n_rules, n_experts = len(rules), source.n_experts
        steps = record_steps(n_steps, n_records)
        self.python_states: dict[int, Any] = {}
        kinds, parameters = np.zeros(n_rules, np.int64), np.zeros((n_rules, rule_codes.N_PARAMETERS))
        prices = np.zeros((n_rules, n_experts))
        for s, rule in enumerate(rules):
            form = rule.kernel_form()
            if form is None:
                kinds[s] = rule_codes.IN_PYTHON
                self.python_states[s] = rule.init(n_experts, k)
                prices[s] = as_price(rule.bias(self.python_states[s]), n_experts)
            else:
                kinds[s], parameters[s] = form
        shape = (n_rules, steps.size)
        self.kernel_rules = Rules(
            kinds, parameters, prices, np.full(n_rules, RUNNING), np.full(n_rules, n_steps)
        )
        self.tally = Tally(
            regret=np.zeros((n_rules, LANES)),
            lost=np.zeros((n_rules, LANES)),
            top=np.zeros(LANES),
            price_sum=np.zeros(n_rules),
            moved=np.zeros(n_rules),
            window_loads=np.zeros((n_rules, n_experts), np.int64),
            window_violation=np.zeros(n_rules),
            loads=np.zeros((n_rules, n_experts), np.int64),
        )
        self.record = Record(
            steps=steps,
            n_filled=np.zeros(n_rules, np.int64),
            loads=np.zeros((*shape, n_experts), np.int64),
            window_loads=np.zeros((*shape, n_experts), np.int64),
            bias=np.zeros((*shape, n_experts)),
            max_violation=np.zeros(shape),
            mean_max_violation=np.zeros(shape),
            regret=np.zeros(shape),
            score_lost=np.zeros(shape),
            top_score=np.zeros(shape),
        )
        dtype = score_dtype(source)
        self.workspace = Workspace(
            tile=np.zeros((n_rows(n_experts), LANES), dtype),
            bias=np.zeros((n_rules, n_rows(n_experts)), dtype),
            unbiased=np.zeros(n_rows(n_experts), dtype),
            comparator=padded(comparator.bias.astype(dtype)),
        )
        # A price may use a thousandth of the dtype's range, so that adding it to a score cannot overflow.
        self.largest_price = float(np.finfo(dtype).max) * 1e-3

    def run(self, progress: Callable[[int], None] | None) -> list[Run]:
        """Run all steps, chunk by chunk, and read off the runs."""
        limit = wide_limit(self.source)
        per_step = self.n_tokens * self.source.n_experts * (len(self.rules) + 4)
        per_chunk = 1 if self.python_states else max(1, _SCORES_PER_CALL // per_step)
        reported = time.monotonic()
        for chunk in chunks(self.source, self.n_tokens, self.k, self.n_steps, steps_per_chunk=per_chunk):
            draw = draw_pointer(chunk.model, self.workspace.tile.dtype)
            run_steps(
                draw, chunk.model, self.kernel_rules, self.tally, self.record, self.workspace,
                chunk.first + 1, chunk.last + 1, self.n_tokens, self.k, limit, self.largest_price,
            )  # fmt: skip
            if self.python_states:
                self._update_in_python(chunk.last + 1)
            if progress is not None and (time.monotonic() - reported > 0.1 or chunk.last + 1 == self.n_steps):
                progress(chunk.last + 1)
                reported = time.monotonic()
            if (self.kernel_rules.state != RUNNING).all():
                break
        return [self._read_off(s) for s in range(len(self.rules))]

    def _update_in_python(self, step: int) -> None:
        rules, record = self.kernel_rules, self.record
        place = int(np.searchsorted(record.steps, step))
        for s, state in self.python_states.items():
            if rules.state[s] != RUNNING:
                continue
            self.python_states[s] = self.rules[s].update(state, self.tally.loads[s].copy(), None)
            rules.price[s] = as_price(self.rules[s].bias(self.python_states[s]), self.source.n_experts)
            if not (np.abs(rules.price[s]) <= self.largest_price).all():
                rules.state[s], rules.stopped[s] = NOT_FINITE, step
            if place < record.steps.size and record.steps[place] == step:
                record.bias[s, place] = rules.price[s]

    def _read_off(self, s: int) -> Run:
        n = int(self.record.n_filled[s])
        record = self.record
        return Run(
            rule=self.rules[s],
            source=self.source,
            n_tokens=self.n_tokens,
            k=self.k,
            horizon=self.horizon,
            steps=record.steps[:n].copy(),
            loads=record.loads[s, :n].copy(),
            window_loads=record.window_loads[s, :n].copy(),
            bias=record.bias[s, :n].copy(),
            max_violation=record.max_violation[s, :n].copy(),
            mean_max_violation=record.mean_max_violation[s, :n].copy(),
            regret=record.regret[s, :n].copy(),
            score_lost=record.score_lost[s, :n].copy(),
            top_score=record.top_score[s, :n].copy(),
            comparator=self.comparator,
            status=self._status(s),
        )

    def _status(self, s: int) -> Status:
        step = int(self.kernel_rules.stopped[s])
        if self.kernel_rules.state[s] == NOT_FINITE:
            outcome = Outcome.BIAS_NOT_FINITE
            detail = f"at step {step} of {self.horizon}"
        elif self.n_steps < self.horizon:
            outcome = Outcome.DATA_EXHAUSTED
            detail = f"after step {step} of {self.horizon}"
        else:
            outcome = Outcome.HORIZON_REACHED
            detail = f"{self.horizon} steps"
        return Status(outcome, step, f"{outcome.value} ({detail})")


def as_price(bias: Any, n_experts: int) -> Float64Array:
    """Return what a rule written in Python says its bias is, checked for shape."""
    array = np.asarray(bias, dtype=np.float64)
    if array.shape != (n_experts,):
        raise InputError(f"`rule`.bias must return one number per expert, ({n_experts},), got {array.shape}")
    return array
