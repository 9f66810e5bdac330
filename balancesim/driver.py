"""What drives a simulation: steps through the compiled kernel, Python's part of each, and what comes out."""

import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import from_dtype

from balancesim.assignments import (
    as_price,
    assign,
    at_step,
    chosen_scores,
    empty_places,
    excess,
    loads_of,
    routed_scores,
    top_scores,
)
from balancesim.balancers import BatchRule, KernelForm, PriceRule, Rule
from balancesim.batches import padded
from balancesim.errors import RangeWarning
from balancesim.feed import Chunk, chunks, score_dtype, wide_limit
from balancesim.groups import GroupLimit
from balancesim.kernels import rules as rule_codes
from balancesim.kernels.calls import UPDATE, address_of, observe_arguments
from balancesim.kernels.choices import NO_GROUPS
from balancesim.kernels.loop import Record, Tally, Workspace, run_steps
from balancesim.kernels.model import LANES, n_rows
from balancesim.kernels.rules import NOT_ASSIGNED, NOT_FINITE, RUNNING, Rules
from balancesim.kernels.scores import draw_batch, draw_pointer
from balancesim.oracle import Candidate, Comparison, compare_with_exact
from balancesim.runs import Comparator, Outcome, Run, Status
from balancesim.sources.base import Source
from balancesim.types import Float64Array, FloatArray, IntArray

_SCORES_PER_CALL = 1 << 26
"""Scores, times rules, that one kernel call routes: tens of milliseconds, for Ctrl-C and progress to work."""


def record_steps(horizon: int, n_records: int, starts: Sequence[int] = ()) -> IntArray:
    """Log-spaced steps from 1 to the horizon, both included, without repeats.

    Parameters
    ----------
    horizon, n_records : int
        The last step, and how many steps to aim at.
    starts : sequence of int, optional
        Steps, counted from 0, at which the source changes: from each of them spacing begins anew.

    Returns
    -------
    (R,) ndarray of int64
        Ascending; at most ``n_records`` for the start and for each change, and every step where ``n_records``
        allows it.
    """
    if n_records >= horizon:
        return np.arange(1, horizon + 1)
    inside = [start for start in starts if 0 < start < horizon]
    parts = [
        start + np.geomspace(1.0, end - start, n_records)
        for start, end in zip([0, *inside], [*inside, horizon], strict=True)
    ]
    return np.unique(np.round(np.concatenate(parts)).astype(np.int64))


def phase_starts(source: Source) -> Sequence[int]:
    """Steps, counted from 0, at which the source suddenly changes."""
    model = source.kernel_model()
    return () if model is None else model.phase_start[1:].tolist()


def _starts(sizes: Sequence[int]) -> IntArray:
    """Where each of several arrays begins when they are joined, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


class Driver:
    """Arrays of one call of `simulate`, and the chunks that fill them."""

    def __init__(
        self,
        rules: list[Rule],
        source: Source,
        comparators: list[Comparator],
        n_tokens: int,
        k: int,
        horizon: int,
        n_steps: int,
        n_records: int,
        n_exact: int,
        groups: GroupLimit | None,
        start: Float64Array,
    ) -> None:
        self.rules, self.source, self.comparators, self.start = rules, source, comparators, start
        self.n_tokens, self.k, self.horizon, self.n_steps = n_tokens, k, horizon, n_steps
        self.n_exact, self.groups = n_exact, groups
        n_rules, n_experts = len(rules), source.n_experts
        steps = record_steps(n_steps, n_records, phase_starts(source))
        shape = (n_rules, steps.size)
        forms = [self._form_of(rule) for rule in rules]
        still = KernelForm(parameters=np.zeros(0), price=np.zeros(n_experts))
        self.kernel_rules = self._flattened([still if form is None else form for form in forms])
        self.tally = Tally(
            regret=np.zeros((n_rules, LANES)),
            lost=np.zeros((n_rules, LANES)),
            top=np.zeros(LANES),
            price_sum=np.zeros(n_rules),
            moved=np.zeros(n_rules),
            window_loads=np.zeros((n_rules, n_experts), np.int64),
            window_violation=np.zeros(n_rules),
            window_empty=np.zeros(n_rules, np.int64),
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
            drop_rate=np.zeros(shape),
        )
        dtype = score_dtype(source)
        self.workspace = Workspace(
            tile=np.zeros((n_rows(n_experts), LANES), dtype),
            limited=np.zeros((n_rows(n_experts) if groups is not None else 0, LANES), dtype),
            bias=np.zeros((n_rules, n_rows(n_experts)), dtype),
            unbiased=np.zeros(n_rows(n_experts), dtype),
            comparator=np.array([padded(one.bias.astype(dtype)) for one in self._distinct], dtype).reshape(
                -1, n_rows(n_experts)
            ),
        )
        # A price may use a thousandth of the dtype's range, so that adding it to a score cannot overflow.
        self.largest_price = float(np.finfo(dtype).max) * 1e-3
        self.wide_limit = wide_limit(source)
        self.kernel_groups = NO_GROUPS if groups is None else groups.in_kernel()
        self.price_rules: dict[int, PriceRule] = {}
        self.batch_rules: dict[int, BatchRule] = {}
        self.states: dict[int, Any] = {}
        self.recorded_states: dict[int, deque[Any]] = {}
        self.refusals: dict[int, str] = {}
        self.drawn: tuple[int, FloatArray] = (-1, np.empty((0, n_experts), dtype))
        self.draw: tuple[Any, Any] = (None, None)
        self.without_price: set[int] = set()
        for s, rule in enumerate(rules):
            if forms[s] is None:
                with at_step(rule, 0):
                    self._set_up(s, rule)
            if not self._is_usable(self.kernel_rules.price[s]):
                self.kernel_rules.state[s], self.kernel_rules.stopped[s] = NOT_FINITE, 0

    def _form_of(self, rule: Rule) -> KernelForm | None:
        """The rule's own kernel form, or None for a rule that lives in Python."""
        if not isinstance(rule, PriceRule):
            return None
        n_experts = self.source.n_experts
        with at_step(rule, 0):
            form = rule.kernel_form(n_experts, self.n_tokens, self.k)
            if form is None:
                return None
            return form._replace(price=as_price(form.price, n_experts, "kernel_form must start from"))

    def _flattened(self, forms: list[KernelForm]) -> Rules:
        """All rules' forms as the kernel's arrays."""
        n_rules, n_experts = len(forms), self.source.n_experts
        real = from_dtype(score_dtype(self.source))
        ranks, lags = (max(getattr(form, name) for form in forms) for name in ("n_ranks", "lag"))
        price = np.stack([form.price for form in forms])
        memories = [np.tile(form.memory, form.n_ranks) for form in forms]
        self._distinct = list({id(one): one for one in self.comparators if one.kind != "none"}.values())
        order = {id(one): index for index, one in enumerate(self._distinct)}
        return Rules(
            kind=np.full(n_rules, rule_codes.IN_KERNEL),
            update=np.array(
                [0 if form.update is None else address_of(form.update, UPDATE) for form in forms]
            ),
            observe=np.array(
                [
                    0 if form.observe is None else address_of(form.observe, observe_arguments(real))
                    for form in forms
                ]
            ),
            threshold=np.array([form.threshold for form in forms], np.bool_),
            every=np.array([form.every for form in forms]),
            lag=np.array([form.lag for form in forms]),
            n_ranks=np.array([form.n_ranks for form in forms]),
            parameters=np.concatenate([form.parameters for form in forms]),
            parameters_at=_starts([form.parameters.size for form in forms]),
            against=np.array([order.get(id(one), -1) for one in self.comparators]),
            is_own=np.array([one.kind == "rule" for one in self.comparators], np.bool_),
            own_term=np.array([one.own_term for one in self.comparators]),
            price=price,
            latest=price.copy(),
            queue=np.repeat(price[:, None], lags, axis=1),
            pending=np.zeros((n_rules, ranks, n_experts), np.int64),
            memory=np.concatenate(memories),
            memory_at=_starts([memory.size for memory in memories]),
            state=np.full(n_rules, RUNNING),
            stopped=np.full(n_rules, self.n_steps),
        )

    def _set_up(self, s: int, rule: Rule) -> None:
        """Set up a rule that lives in Python."""
        kernel_rules, n_experts = self.kernel_rules, self.source.n_experts
        if isinstance(rule, BatchRule):
            kernel_rules.kind[s] = rule_codes.ASSIGNED
            self.batch_rules[s], self.states[s] = rule, rule.init(n_experts, self.k)
            self.recorded_states[s] = deque(maxlen=self.n_exact)
        elif isinstance(rule, PriceRule):
            kernel_rules.kind[s] = rule_codes.IN_PYTHON
            kernel_rules.threshold[s] = rule.threshold
            self.price_rules[s], self.states[s] = rule, rule.init(n_experts, self.k)
            kernel_rules.price[s] = as_price(rule.bias(self.states[s]), n_experts, "bias must return")

    def run(self, progress: Callable[[int], None] | None) -> list[Run]:
        """Run all steps, chunk by chunk, and read off the runs."""
        per_chunk = self._steps_per_chunk(self.n_tokens * self.source.n_experts * (len(self.rules) + 4))
        reported = time.monotonic()
        for chunk in chunks(self.source, self.n_tokens, self.k, self.n_steps, steps_per_chunk=per_chunk):
            self._run_chunk(chunk)
            if progress is not None and (time.monotonic() - reported > 0.1 or chunk.last + 1 == self.n_steps):
                progress(chunk.last + 1)
                reported = time.monotonic()
            if (self.kernel_rules.state != RUNNING).all():
                break
        self._warn()
        return [self._read_off(s, found) for s, found in enumerate(self._compare())]

    def _steps_per_chunk(self, scores_per_step: int) -> int:
        """Steps a call: one where a rule in Python must see each."""
        return 1 if self.states else max(1, _SCORES_PER_CALL // scores_per_step)

    def _run_chunk(self, chunk: Chunk) -> None:
        """Run a chunk's steps of every rule that is still running."""
        if self.batch_rules:
            self._assign(chunk)
        run_steps(
            self._draw_of(chunk), chunk.model, self.kernel_rules, self.tally, self.record, self.workspace,
            self.kernel_groups, chunk.first + 1, chunk.last + 1, self.n_tokens, self.k, self.wide_limit,
            self.largest_price,
        )  # fmt: skip
        if self.states:
            self._update(chunk)

    def _draw_of(self, chunk: Chunk) -> Any:
        """What kernels draw a chunk's scores with; looked up once a model, which costs as much as a step."""
        if self.draw[0] is not chunk.model:
            self.draw = (chunk.model, draw_pointer(chunk.model, self.workspace.tile.dtype))
        return self.draw[1]

    def _scores_of(self, chunk: Chunk) -> FloatArray:
        """The scores of a chunk's first step, (T, E), not to be written to; drawn once for all rules."""
        if self.drawn[0] != chunk.first:
            scores = np.empty((self.n_tokens, self.source.n_experts), self.workspace.tile.dtype)
            draw_batch(self._draw_of(chunk), chunk.model, chunk.first, scores)
            scores.flags.writeable = False
            self.drawn = (chunk.first, scores)
        return self.drawn[1]

    def _warn(self) -> None:
        """Pass on what rules inside the kernel have to remark."""
        for s, rule in enumerate(self.rules):
            text = self._remark(s) if isinstance(rule, PriceRule) else ""
            if text:
                warnings.warn(text, RangeWarning, stacklevel=4)

    def _remark(self, s: int) -> str:
        rule, start = self.rules[s], self.kernel_rules.memory_at
        if isinstance(rule, BatchRule):
            return rule.remark(self.states[s])
        if isinstance(rule, PriceRule) and s not in self.price_rules:
            return rule.remark(self.kernel_rules.memory[start[s] : start[s + 1]])
        return ""

    def _assign(self, chunk: Chunk) -> None:
        """Let current-batch rules assign the next step's batch, and do for them what the kernel does not."""
        rules, tally = self.kernel_rules, self.tally
        scores = self._scores_of(chunk)
        top = top_scores(scores, self.k)
        for s, rule in self.batch_rules.items():
            if rules.state[s] != RUNNING:
                continue
            with at_step(rule, chunk.first + 1):
                (experts, bias, reason), self.states[s] = assign(rule, self.states[s], scores, self.k)
            if experts is not None and bias is not None and not self._is_usable(bias):
                experts, reason = None, "its bias is not finite, or too large for the scores' dtype"
            if experts is None:
                rules.state[s], rules.stopped[s] = NOT_ASSIGNED, chunk.first
                self.refusals[s] = reason
                continue
            if bias is None:
                self.without_price.add(s)
            rules.price[s] = 0.0 if bias is None else bias
            tally.loads[s] = loads_of(experts, scores.shape[1])
            tally.lost[s, 0] -= excess(chosen_scores(scores, experts), top)
            tally.window_empty[s] += empty_places(experts, self.k)

    def _update(self, chunk: Chunk) -> None:
        """Update the prices made in Python, and keep what a record needs of Python's states."""
        rules, record, step = self.kernel_rules, self.record, chunk.last + 1
        place = int(np.searchsorted(record.steps, step))
        is_record = place < record.steps.size and record.steps[place] == step
        for s, rule in self.price_rules.items():
            if rules.state[s] != RUNNING:
                continue
            with at_step(rule, step):
                if rule.needs_scores:
                    self.states[s] = rule.observe(self.states[s], self._scores_of(chunk))
                self.states[s] = rule.update(self.states[s], self.tally.loads[s].copy(), None)
                rules.price[s] = as_price(
                    rule.bias(self.states[s]), self.source.n_experts, "bias must return"
                )
            if not self._is_usable(rules.price[s]):
                rules.state[s], rules.stopped[s] = NOT_FINITE, step
            if is_record:
                record.bias[s, place] = rules.price[s]
        for s, states in self.recorded_states.items():
            if is_record and rules.state[s] == RUNNING:
                states.append(self.states[s])

    def _is_usable(self, price: Float64Array) -> bool:
        return bool((np.abs(price) <= self.largest_price).all())

    def _compare(self) -> list[Comparison]:
        """Hold every rule's choices after its last records against the exact optimum."""
        return compare_with_exact(
            [self._candidate(s, rule) for s, rule in enumerate(self.rules)],
            self.source,
            n_tokens=self.n_tokens,
            k=self.k,
            bias=self.start,
        )

    def _candidate(self, s: int, rule: Rule) -> Candidate:
        n = int(self.record.n_filled[s])
        last = slice(max(0, n - self.n_exact), n)
        steps, prices = self.record.steps[last], self.record.bias[s, last]
        if isinstance(rule, BatchRule):
            states = self.recorded_states[s]

            def assigned(i: int, scores: FloatArray) -> Float64Array | None:
                experts = assign(rule, states[i], scores, self.k)[0].experts
                if experts is None or np.count_nonzero(experts >= 0) != self.n_tokens * self.k:
                    return None
                return chosen_scores(scores, experts)

            return Candidate(steps, assigned)
        if isinstance(rule, PriceRule) and rule.threshold:  # its choices have no K to compare at
            return Candidate(steps[:0], lambda *_: None)
        usable = np.array([self._is_usable(price) for price in prices], np.bool_)
        steps, prices = steps[usable], prices[usable].astype(self.workspace.tile.dtype)

        def routed(i: int, scores: FloatArray) -> Float64Array:
            limited = scores if self.groups is None else self.groups.apply(scores, prices[i])
            return routed_scores(limited, prices[i], self.k)

        return Candidate(steps, routed)

    def _read_off(self, s: int, found: Comparison) -> Run:
        n = int(self.record.n_filled[s])
        record = self.record
        bias, regret = record.bias[s, :n].copy(), record.regret[s, :n].copy()
        if s in self.without_price:
            bias[:] = np.nan
        if self._without_regret(s):
            regret[:] = np.nan
        return Run(
            rule=self.rules[s],
            source=self.source,
            n_tokens=self.n_tokens,
            k=self.k,
            horizon=self.horizon,
            steps=record.steps[:n].copy(),
            loads=record.loads[s, :n].copy(),
            window_loads=record.window_loads[s, :n].copy(),
            bias=bias,
            max_violation=record.max_violation[s, :n].copy(),
            mean_max_violation=record.mean_max_violation[s, :n].copy(),
            regret=regret,
            score_lost=record.score_lost[s, :n].copy(),
            top_score=record.top_score[s, :n].copy(),
            drop_rate=record.drop_rate[s, :n].copy(),
            exact_steps=found.steps.copy(),
            exact_score=found.score,
            score_over_exact=found.over,
            exact_reason=found.reason,
            comparator=self.comparators[s],
            status=self._status(s),
        )

    def _without_regret(self, s: int) -> bool:
        """Whether what rule s did is no top K under a price, or is measured against nothing."""
        chooses_otherwise = self.kernel_rules.threshold[s] or self.groups is not None
        against_nothing = self.comparators[s].kind == "none"
        return bool(s in self.without_price or chooses_otherwise or against_nothing)

    def _status(self, s: int) -> Status:
        step = int(self.kernel_rules.stopped[s])
        if self.kernel_rules.state[s] == NOT_FINITE:
            outcome = Outcome.BIAS_NOT_FINITE
            when = f"at step {step} of {self.horizon}" if step else "before the first step"
            detail = f"{self.rules[s].describe()}, {when}"
        elif self.kernel_rules.state[s] == NOT_ASSIGNED:
            outcome = Outcome.NOT_ASSIGNED
            few = f"a token's groups hold fewer than k = {self.k} unmasked experts"
            refusal = self.refusals.get(s, f"{few}; raise n_chosen or mask fewer")
            detail = f"at step {step + 1} of {self.horizon}: {refusal}"
        elif self.n_steps < self.horizon:
            outcome = Outcome.DATA_EXHAUSTED
            detail = f"after step {step} of {self.horizon}"
        else:
            outcome = Outcome.HORIZON_REACHED
            detail = f"{self.horizon} steps"
        remark = self._remark(s)
        return Status(outcome, step, f"{outcome.value} ({detail})" + (f"; {remark}" if remark else ""))
