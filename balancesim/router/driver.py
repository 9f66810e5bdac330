"""What drives the training of one router: its arrays, the chunks that fill them, Python's part of a step."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import float64

from balancesim.assignments import as_price, at_step
from balancesim.balancers import KernelForm, PenaltyRule, PriceRule
from balancesim.driver import record_steps
from balancesim.errors import InputError
from balancesim.kernels import router as codes
from balancesim.kernels.calls import UPDATE, address_of, observe_arguments
from balancesim.kernels.model import LANES, n_rows
from balancesim.kernels.router import Balancer, Pass, Rows, Settings, Sums, train_steps
from balancesim.kernels.rules import NOT_FINITE, RUNNING
from balancesim.kernels.tokens import token_pointer
from balancesim.router.model import GATES, SELECTIONS, Router
from balancesim.router.task import ClusteredTask
from balancesim.runs import Outcome, Status
from balancesim.types import Float64Array

_PRODUCTS_PER_CALL = 1 << 26
"""Weights, times tokens, of one kernel call: about a tenth of a second, for Ctrl-C and progress to work."""


def form_of(rule: PriceRule | PenaltyRule, n_experts: int, n_tokens: int, k: int) -> KernelForm | None:
    """Return a rule's kernel form, checked for what the loop relies on, or None for a rule in Python."""
    penalised = rule.needs_probabilities
    with at_step(rule, 0):
        form = rule.kernel_form(n_experts, n_tokens // _n_parts(rule), 1 if _counts_first(rule) else k)
        if form is None:
            return None
        if penalised and form.update is None:
            raise InputError(
                "`rule`.kernel_form must have an update, which writes the penalty, or be None for Python"
            )
        if penalised and form.memory.size < n_experts:
            raise InputError(
                "`rule`.kernel_form must have a memory whose first E cells take the mean probabilities, "
                f"{n_experts} or more, got {form.memory.size}"
            )
        return form._replace(price=as_price(form.price, n_experts, "kernel_form must start from"))


def _n_parts(rule: PriceRule | PenaltyRule) -> int:
    return rule.n_micro_batches if rule.needs_probabilities and isinstance(rule, PenaltyRule) else 1


def _counts_first(rule: PriceRule | PenaltyRule) -> bool:
    return rule.needs_probabilities and isinstance(rule, PenaltyRule) and rule.counts_first_choice


class Trainer:
    """Arrays of one run, and the loop over its steps."""

    def __init__(
        self,
        rule: PriceRule | PenaltyRule,
        task: ClusteredTask,
        router: Router,
        weights: Float64Array,
        n_tokens: int,
        k: int,
        horizon: int,
        learning_rate: float,
        n_records: int,
    ) -> None:
        self.rule, self.task = rule, task
        self.weights, self.n_tokens, self.k, self.horizon = weights, n_tokens, k, horizon
        self.settings = Settings(
            SELECTIONS.index(router.selection), GATES.index(router.gate), float(router.z_loss), learning_rate
        )
        n_experts, n_inputs = weights.shape
        penalised = rule.needs_probabilities
        form = form_of(rule, n_experts, n_tokens, k)
        self.state: Any = None
        self.in_python = form is None
        self.balancer = self._balancer(form, n_experts)
        if self.in_python:
            with at_step(rule, 0):
                self.state = rule.init(n_experts, 1 if _counts_first(rule) else k)
                if isinstance(rule, PriceRule) and not penalised:
                    self.balancer.price[:] = as_price(rule.bias(self.state), n_experts, "bias must return")
        if not _is_usable(self.balancer.price):
            self.balancer.status[:] = NOT_FINITE, 0
        self.sums = Sums(
            loads=np.zeros(n_experts, np.int64),
            batch=np.zeros(4),
            window_loads=np.zeros(n_experts, np.int64),
            window=np.zeros(4),
            violation=np.zeros(1),
        )
        steps = record_steps(horizon, n_records)
        self.rows = Rows(
            steps=steps,
            n_filled=np.zeros(1, np.int64),
            loads=np.zeros((steps.size, n_experts), np.int64),
            window_loads=np.zeros((steps.size, n_experts), np.int64),
            price=np.zeros((steps.size, n_experts)),
            violation=np.zeros(steps.size),
            mean_violation=np.zeros(steps.size),
            batch=np.zeros((steps.size, 4)),
            window=np.zeros((steps.size, 4)),
        )
        n_tiles, n_padded = -(-n_tokens // LANES), n_rows(n_experts)
        self.kept = Pass(
            inputs=np.zeros((n_tokens, n_inputs)),
            probabilities=np.zeros((n_tiles, n_experts, LANES)),
            slope=np.zeros((n_tiles, n_experts, LANES)),
            gradient=np.zeros((n_experts, n_inputs)),
            score=np.full((n_padded, LANES), -np.inf),
            bias=np.zeros(n_padded),
        )

    def _balancer(self, form: KernelForm | None, n_experts: int) -> Balancer:
        form = KernelForm(parameters=np.zeros(0), price=np.zeros(n_experts)) if form is None else form
        price, parts = form.price.copy(), _n_parts(self.rule)
        return Balancer(
            penalised=self.rule.needs_probabilities,
            first_choice=_counts_first(self.rule),
            update=0 if form.update is None else address_of(form.update, UPDATE),
            observe=0 if form.observe is None else address_of(form.observe, observe_arguments(float64)),
            parameters=form.parameters,
            every=form.every,
            lag=form.lag,
            price=price,
            latest=price.copy(),
            queue=np.repeat(price[None], form.lag, axis=0),
            pending=np.zeros((1, n_experts), np.int64),
            memory=form.memory.copy(),
            scratch=np.zeros((2, n_experts)),
            loads=np.zeros((parts, n_experts), np.int64),
            probabilities=np.zeros((parts, n_experts)),
            penalty=np.zeros((parts, n_experts)),
            status=np.array([RUNNING, self.horizon]),
        )

    def run(self, progress: Callable[[int], None] | None) -> Status:
        """Take all steps, or as many as the router survives."""
        per_step = self.n_tokens * self.weights.size
        per_chunk = 1 if self.in_python else max(1, _PRODUCTS_PER_CALL // per_step)
        reported = time.monotonic()
        for first in range(1, self.horizon + 1, per_chunk):
            if self.balancer.status[0] != RUNNING:
                break
            last = min(first + per_chunk - 1, self.horizon)
            if self.in_python:
                self._train(first, last, codes.FORWARD)
                if self._update(first):
                    self._train(first, last, codes.BACKWARD)
            else:
                self._train(first, last, codes.WHOLE)
            if progress is not None and (time.monotonic() - reported > 0.1 or last == self.horizon):
                progress(last)
                reported = time.monotonic()
        return self._status()

    def _train(self, first: int, last: int, part: int) -> None:
        model = self.task.kernel_model()
        train_steps(
            token_pointer(model), model, self.settings, self.balancer, self.weights, self.sums, self.rows,
            self.kept, first, last, self.n_tokens, self.k, part,
        )  # fmt: skip

    def _update(self, step: int) -> bool:
        """Let a rule in Python see the batch; return whether what it makes of it can be used."""
        balancer, rule, n_experts = self.balancer, self.rule, self.weights.shape[0]
        with at_step(rule, step):
            if balancer.penalised and isinstance(rule, PenaltyRule):
                for part, loads in enumerate(balancer.loads):
                    self.state = rule.update(self.state, loads.copy(), balancer.probabilities[part].copy())
                    penalty = as_price(rule.penalty(self.state), n_experts, "penalty must return")
                    balancer.penalty[part] = balancer.price[:] = penalty
            elif isinstance(rule, PriceRule):
                self.state = rule.update(self.state, self.sums.loads.copy(), None)
                balancer.price[:] = as_price(rule.bias(self.state), n_experts, "bias must return")
        usable = _is_usable(np.array([*balancer.penalty, balancer.price]))
        if not usable:
            balancer.status[:] = NOT_FINITE, step
        return usable

    def _status(self) -> Status:
        state, step = (int(value) for value in self.balancer.status)
        if state == RUNNING:
            return Status(Outcome.HORIZON_REACHED, step, f"{Outcome.HORIZON_REACHED.value} ({step} steps)")
        outcome = Outcome.WEIGHTS_NOT_FINITE
        if state == NOT_FINITE:
            outcome = Outcome.PENALTY_NOT_FINITE if self.balancer.penalised else Outcome.BIAS_NOT_FINITE
        when = f"at step {step} of {self.horizon}" if step else "before the first step"
        return Status(outcome, step, f"{outcome.value} ({self.rule.describe()}, {when})")


def _is_usable(prices: Float64Array) -> bool:
    return bool((np.abs(prices) <= codes.LARGEST).all())
