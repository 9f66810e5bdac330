"""A rule as trainers run it: every so many batches, late, or averaged over ranks."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from balancesim.balancers.compiled import CompiledRule
from balancesim.balancers.protocol import KernelForm, PriceRule
from balancesim.errors import InputError
from balancesim.numbers import check_int
from balancesim.types import Float64Array, FloatArray, IntArray


class DelayedState(NamedTuple):
    """The rule's state, loads not yet handed to it (E,), batches so far, the prices in force and to come."""

    inner: Any
    pending: IntArray
    step: int
    prices: tuple[Float64Array, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Delayed(PriceRule):
    """Another rule as trainers run it: every m batches, late, or on ranks that see a part of the batch.

    After batch n, where n is a multiple of ``every``, the rule makes its update number n/every of the loads
    summed since the last, as if they were of one batch with all these tokens; its price is added to the
    scores from batch n + 1 + ``lag`` on. Ranks that sum their loads before the update are one rank. Ranks
    that update on their own and average are ``n_ranks``: for a rule that is linear in the loads, such as
    constant ALF-LB steps, that is the same but for rounding; an average of signs is not the sign of the sum.

    Parameters
    ----------
    rule : PriceRule
        The rule.
    every : int, optional
        Loads of so many batches are summed for one update.
    lag : int, optional
        Batches by which a new price comes late into force.
    n_ranks : int, optional
        Each rank updates by the loads of its own T/n_ranks tokens, from the common price, and the prices are
        averaged; what the rule remembers stays with its rank. Needs a compiled rule that learns from loads.

    Raises
    ------
    InputError
        If a number breaks its rule, or the rule cannot be run so.

    Notes
    -----
    Regret is on the dual, also where the rule has an objective of its own: that is of undelayed updates.
    """

    name = "delayed"
    rule: PriceRule
    every: int = 1
    lag: int = 0
    n_ranks: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.rule, PriceRule):
            raise InputError(f"`rule` must be a PriceRule, which has a price to delay, got {self.rule!r}")
        if isinstance(self.rule, Delayed):
            raise InputError(f"`rule` must not be Delayed itself, got {self.rule!r}; say all delays in one")
        if self.rule.needs_probabilities:
            raise InputError(
                f"`rule` must add its price to the scores; {self.rule.describe()} acts in the router's loss, "
                "which has no delays here: use it without Delayed"
            )
        check_int("every", self.every, 1)
        check_int("lag", self.lag, 0)
        check_int("n_ranks", self.n_ranks, 1)
        described = self.rule.describe()
        if self.every > 1 and self.rule.needs_scores and not self.rule.in_kernel():
            raise InputError(
                f"`every` above 1 needs a rule that learns from loads, or a compiled one; {described} learns "
                "from scores, in Python"
            )
        if self.n_ranks > 1 and self.rule.needs_scores:
            raise InputError(
                f"`n_ranks` above 1 averages updates from loads; {described} learns from scores: use 1"
            )
        if self.n_ranks > 1 and not self.rule.in_kernel():
            raise InputError(f"`n_ranks` above 1 needs a compiled rule; {described} runs in Python: use 1")

    @property
    def threshold(self) -> bool:  # type: ignore[override]  # a constant of the class for all other rules
        """The rule's own."""
        return self.rule.threshold

    @property
    def needs_scores(self) -> bool:  # type: ignore[override]
        """The rule's own."""
        return self.rule.needs_scores

    @property
    def allows_groups(self) -> bool:  # type: ignore[override]
        """The rule's own."""
        return self.rule.allows_groups

    def init(self, n_experts: int, k: int) -> DelayedState:
        """Start with the rule's own price in force."""
        if self.n_ranks > 1:
            raise InputError(
                "`n_ranks` above 1 is for simulations: one rank's loads are all that Python sees"
            )
        inner = self.rule.init(n_experts, k)
        start = self.rule.bias(inner)
        return DelayedState(inner, np.zeros(n_experts, np.int64), 0, (start,) * (self.lag + 1))

    def bias(self, state: DelayedState) -> Float64Array:
        """Return the price in force."""
        return state.prices[0]

    def observe(self, state: DelayedState, scores: FloatArray) -> DelayedState:
        """Show the rule a batch's scores, which the price in force has routed."""
        if self.every > 1:
            raise InputError(
                f"`every` above 1 is for simulations where a rule learns from scores: {self.rule.describe()}"
            )
        inner = state.inner
        if isinstance(self.rule, CompiledRule):
            seen = self.rule.observe(inner._replace(price=state.prices[0]), scores)
            return state._replace(inner=seen._replace(price=inner.price))
        return state._replace(inner=self.rule.observe(inner, scores))

    def update(
        self, state: DelayedState, loads: IntArray, probabilities: Float64Array | None
    ) -> DelayedState:
        """Count a batch, and let the rule see the sum when it is due."""
        inner, pending, step = state.inner, state.pending + loads, state.step + 1
        if step % self.every == 0:
            inner, pending = self.rule.update(inner, pending, probabilities), np.zeros_like(pending)
        return DelayedState(inner, pending, step, (*state.prices[1:], self.rule.bias(inner)))

    def kernel_form(self, n_experts: int, n_tokens: int, k: int) -> KernelForm | None:
        """Return the rule's own form with these delays."""
        if self.n_ranks > n_tokens:
            raise InputError(f"`n_ranks` must be at most n_tokens = {n_tokens}, got {self.n_ranks}")
        form = self.rule.kernel_form(n_experts, n_tokens * self.every // self.n_ranks, k)
        if form is None:
            return None
        return form._replace(every=self.every, lag=self.lag, n_ranks=self.n_ranks)

    def remark(self, memory: Float64Array) -> str:
        """Return the rule's own remark."""
        return self.rule.remark(memory)

    def describe(self) -> str:
        parts = [f"every {self.every} batches"] if self.every > 1 else []
        parts += [f"{self.lag} late"] if self.lag else []
        parts += [f"averaged over {self.n_ranks} ranks"] if self.n_ranks > 1 else []
        return ", ".join([self.rule.describe(), *parts])
