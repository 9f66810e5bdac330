"""Rules whose update is a compiled function: one source for the simulation's loop and for Python."""

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from balancesim.balancers.protocol import KernelForm, PenaltyRule, PriceRule, Rule
from balancesim.errors import InputError
from balancesim.numbers import check_int
from balancesim.types import Float64Array, FloatArray, IntArray


class CompiledState(NamedTuple):
    """Price (E,), memory (None until a batch tells its size), updates so far, K, tokens last observed."""

    price: Float64Array
    memory: Float64Array | None
    step: int
    k: int
    n_tokens: int


class DelayedState(NamedTuple):
    """The rule's state, loads not yet handed to it (E,), batches so far, the prices in force and to come."""

    inner: Any
    pending: IntArray
    step: int
    prices: tuple[Float64Array, ...]


class CompiledBase(Rule):
    """What compiled rules share: an update on flat arrays, its parameters, and what it starts from."""

    compiled_update: ClassVar[Any]
    """The compiled update, in a ``staticmethod``."""

    @abstractmethod
    def parameters(self) -> Sequence[float]:
        """Return the numbers that the compiled functions are handed."""

    def start(self, n_experts: int, k: int) -> Float64Array:
        """Return the price before the first batch, (E,); zero unless a rule says otherwise."""
        del k
        return np.zeros(n_experts)

    def memory(self, n_experts: int, n_tokens: int, k: int) -> Float64Array:
        """Return what the compiled functions remember between batches, as it is before the first, (M,)."""
        del n_experts, n_tokens, k
        return np.zeros(0)

    def init(self, n_experts: int, k: int) -> CompiledState:
        """Start from `start` and an empty memory."""
        return CompiledState(self.start(n_experts, k), None, 0, k, 0)

    def update(
        self, state: CompiledState, loads: IntArray, probabilities: Float64Array | None
    ) -> CompiledState:
        """Take one step; a rule that needs probabilities finds them in the first E cells of its memory."""
        n_tokens = state.n_tokens or int(loads.sum()) // state.k
        price, step = state.price.copy(), state.step + 1
        memory = self._memory_of(state, price.size, n_tokens).copy()
        if self.needs_probabilities:
            if probabilities is None:
                raise InputError(
                    f"`probabilities` must be given to {self.describe()}, which learns from them"
                )
            memory[: price.size] = probabilities
        given: NDArray[np.int64] = np.ascontiguousarray(loads, dtype=np.int64)
        self.compiled_update(self._numbers(), step, n_tokens, state.k, given, price, memory)
        return CompiledState(price, memory, step, state.k, state.n_tokens)

    def _numbers(self) -> Float64Array:
        return np.array(self.parameters(), dtype=np.float64)

    def _memory_of(self, state: CompiledState, n_experts: int, n_tokens: int) -> Float64Array:
        return self.memory(n_experts, n_tokens, state.k) if state.memory is None else state.memory


class CompiledRule(CompiledBase, PriceRule):
    """A price rule that is a compiled function on flat arrays; it runs inside the simulation's loop.

    A rule defines ``compiled_update`` and `parameters`, and where it needs more than its price, `memory`.
    ``compiled_update(parameters, step, n_tokens, k, loads, price, memory)`` changes ``price`` (E,) float64
    and ``memory`` (M,) float64 in place, given (P,) float64 parameters, the number of this update counted
    from 1, the number of tokens and of experts per token, and the loads (E,) int64. Write it in the Python
    that Numba compiles, decorate it with `rule_kernel`, and hold it in a ``staticmethod``.

    A rule that must see scores also defines ``compiled_observe(parameters, n_tokens, k, n_experts, tile,
    bias, top, token, n_lanes, memory)``, which is called for each tile of a batch before the update:
    ``tile`` (rows, lanes) holds the scores of tokens ``token .. token + n_lanes - 1``, experts along rows;
    ``bias`` (rows,) is the price in the scores' dtype; ``top`` (ranks, lanes) the K largest biased scores of
    each token, descending. Tokens come in order; rows past ``n_experts`` are minus infinity.
    """

    compiled_observe: ClassVar[Any] = None
    """The compiled function that sees the batch's scores, in a ``staticmethod``; None for loads alone."""

    def bias(self, state: CompiledState) -> Float64Array:
        """Return the price."""
        return state.price

    def observe(self, state: CompiledState, scores: FloatArray) -> CompiledState:
        """Show the rule a batch's scores."""
        if self.compiled_observe is None:
            return state
        from balancesim.kernels.observe import observe_scores

        n_tokens, n_experts = scores.shape
        memory = self._memory_of(state, n_experts, n_tokens).copy()
        contiguous: Any = np.ascontiguousarray(scores)
        observe_scores(self.compiled_observe, self._numbers(), contiguous, state.price, state.k, memory)
        return state._replace(memory=memory, n_tokens=n_tokens)

    def kernel_form(self, n_experts: int, n_tokens: int, k: int) -> KernelForm:
        """Return the compiled functions and what they start from."""
        return KernelForm(
            update=self.compiled_update,
            parameters=self._numbers(),
            price=self.start(n_experts, k),
            memory=self.memory(n_experts, n_tokens, k),
            observe=self.compiled_observe,
            threshold=self.threshold,
        )


class CompiledPenalty(CompiledBase, PenaltyRule):
    """A gradient rule that is a compiled function on flat arrays; it runs inside the training loop.

    ``compiled_update`` is as in `CompiledRule`. The first E cells of ``memory`` hold the batch's mean
    probabilities when it is called, and ``price`` receives the penalty; ``k`` is 1 where first choices alone
    are counted.
    """

    def memory(self, n_experts: int, n_tokens: int, k: int) -> Float64Array:
        """Return room for the probabilities alone, (E,)."""
        del n_tokens, k
        return np.zeros(n_experts)

    def penalty(self, state: CompiledState) -> Float64Array:
        """Return the penalty."""
        return state.price

    def kernel_form(self, n_experts: int, n_tokens: int, k: int) -> KernelForm:
        """Return the compiled update and what it starts from."""
        return KernelForm(
            update=self.compiled_update,
            parameters=self._numbers(),
            price=self.start(n_experts, k),
            memory=self.memory(n_experts, n_tokens, k),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Delayed(PriceRule):
    """Another rule as trainers run it: every m batches, late, or on ranks that see a part of the batch.

    Parameters
    ----------
    rule : PriceRule
        The rule.
    every : int, optional
        Loads of so many batches are summed for one update.
    lag : int, optional
        Batches by which a new price comes late into force.
    n_ranks : int, optional
        Each rank updates by the loads of its own T/n_ranks tokens, and the prices are averaged. Ranks that
        sum their loads instead are one rank.
    """

    name = "delayed"
    rule: PriceRule
    every: int = 1
    lag: int = 0
    n_ranks: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.rule, PriceRule):
            raise InputError(f"`rule` must be a PriceRule, which has a price to delay, got {self.rule!r}")
        if self.rule.needs_probabilities:
            raise InputError(
                f"`rule` must act on the choice to be delayed; {self.rule.describe()} acts in the loss"
            )
        check_int("every", self.every, 1)
        check_int("lag", self.lag, 0)
        check_int("n_ranks", self.n_ranks, 1)
        if self.n_ranks > 1 and self.rule.needs_scores:
            raise InputError(
                f"`n_ranks` averages updates from loads; {self.rule.describe()} learns from scores"
            )

    @property
    def threshold(self) -> bool:  # type: ignore[override]  # a constant of the class for all other rules
        """The rule's own."""
        return self.rule.threshold

    @property
    def needs_scores(self) -> bool:  # type: ignore[override]
        """The rule's own."""
        return self.rule.needs_scores

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
        """Show the rule a batch's scores; it must be one that can wait for several."""
        if self.every > 1:
            raise InputError(f"`every` above 1 is for simulations: {self.rule.describe()} learns from scores")
        return state._replace(inner=self.rule.observe(state.inner, scores))

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
        form = self.rule.kernel_form(n_experts, n_tokens * self.every // self.n_ranks, k)
        if form is None and self.n_ranks > 1:
            raise InputError(f"`n_ranks` above 1 needs a compiled rule; {self.rule.describe()} is not one")
        if form is None:
            return None
        return form._replace(every=self.every, lag=self.lag, n_ranks=self.n_ranks)

    def describe(self) -> str:
        parts = [f"every {self.every} batches"] if self.every > 1 else []
        parts += [f"{self.lag} late"] if self.lag else []
        parts += [f"averaged over {self.n_ranks} ranks"] if self.n_ranks > 1 else []
        return ", ".join([self.rule.describe(), *parts])
