"""Rules whose update is a compiled function: one source for the simulation's loop and for Python."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from balancesim.balancers.protocol import KernelForm, PenaltyRule, PriceRule, Rule
from balancesim.batches import padded
from balancesim.errors import InputError
from balancesim.types import Float64Array, FloatArray, IntArray


class CompiledState(NamedTuple):
    """Price (E,), memory (None until a batch tells its size), updates so far, K, tokens last observed."""

    price: Float64Array
    memory: Float64Array | None
    step: int
    k: int
    n_tokens: int


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
        return self._memory(n_experts, n_tokens, state.k) if state.memory is None else state.memory

    def _memory(self, n_experts: int, n_tokens: int, k: int) -> Float64Array:
        memory = np.array(self.memory(n_experts, n_tokens, k), dtype=np.float64)
        if memory.ndim != 1:
            raise InputError(
                f"`memory` of rule {self.describe()} must be (M,) numbers, got shape {memory.shape}"
            )
        return memory


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
    each token, descending, of those it may use under a limit on groups. Tokens come in order; rows past
    ``n_experts`` are minus infinity. Such a rule ``needs_scores``, without saying so.
    """

    compiled_observe: ClassVar[Any] = None
    """The compiled function that sees the batch's scores, in a ``staticmethod``; None for loads alone."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.needs_scores = cls.needs_scores or cls.compiled_observe is not None

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
        bias = padded(state.price.astype(scores.dtype))
        observe_scores(self.compiled_observe, self._numbers(), contiguous, bias, state.k, memory)
        return state._replace(memory=memory, n_tokens=n_tokens)

    def update(
        self, state: CompiledState, loads: IntArray, probabilities: Float64Array | None
    ) -> CompiledState:
        """Take one step, as in `CompiledBase`."""
        if self.threshold and not state.n_tokens:
            raise InputError(
                f"rule {self.describe()} chooses by threshold, so loads do not tell the number of tokens: "
                "let it `observe` the scores first"
            )
        return super().update(state, loads, probabilities)

    def kernel_form(self, n_experts: int, n_tokens: int, k: int) -> KernelForm:
        """Return the compiled functions and what they start from."""
        return KernelForm(
            update=self.compiled_update,
            parameters=self._numbers(),
            price=self.start(n_experts, k),
            memory=self._memory(n_experts, n_tokens, k),
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
            memory=self._memory(n_experts, n_tokens, k),
        )
