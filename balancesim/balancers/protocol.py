"""The protocols of balancing rules: a price on the choice or in the loss, or a choice that sees the batch."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np

from balancesim.types import Float64Array, FloatArray, IntArray


class Rule(ABC):
    """What every balancing rule has; derive from `PriceRule`, `PenaltyRule` or `BatchRule`.

    Rules are immutable descriptions; all that changes lives in the state that `init` makes and the rule's
    other methods hand on.
    """

    name: ClassVar[str]
    """The name in configurations and tables."""

    causal: ClassVar[bool] = True
    """Whether a batch is routed with what past batches taught alone; rules that see the batch they assign are
    current-batch rules, and never ranked with causal ones."""

    needs_probabilities: ClassVar[bool] = False
    """Whether the rule needs the router's probabilities beside the loads."""

    reference: ClassVar[str] = ""
    """Where the rule comes from: its paper or program, or "ours"."""

    needs_scores: ClassVar[bool] = False
    """Whether the rule, after a batch was routed, learns from that batch's scores (`PriceRule.observe`)."""

    @abstractmethod
    def init(self, n_experts: int, k: int) -> Any:
        """Make the state before the first batch.

        Parameters
        ----------
        n_experts : int
            E.
        k : int
            Experts per token: with it, loads tell the number of tokens.

        Returns
        -------
        state
            Anything; it is handed to the rule's other methods.
        """

    def describe(self) -> str:
        """Return one line for tables and figures."""
        return self.name

    @classmethod
    def in_kernel(cls) -> bool:
        """Return whether the rule runs inside the compiled loop, without a call into Python at each step."""
        return False


class OwnObjective(NamedTuple):
    """The minimiser of an objective that a rule minimises in place of the balanced assignment's dual.

    Attributes
    ----------
    bias : (E,) ndarray of float64
        The minimiser, as a price in score units.
    term : float
        What the objective adds there to the mean top-K sum, per token and step, in score units.
    excess : float
        Bound on what the objective at ``bias`` is expected to exceed its minimum by, per token and step, in
        score units, where the minimiser was found on a sample; zero where it is known. Regret is lower by up
        to so much at each step than against the true minimiser.
    """

    bias: Float64Array
    term: float
    excess: float = 0.0


class KernelForm(NamedTuple):
    """A rule as the compiled loop runs it.

    Attributes
    ----------
    parameters : (P,) ndarray of float64
        Handed to the compiled functions.
    price : (E,) ndarray of float64
        The price before the first batch, in score units.
    update : compiled function, optional
        See `CompiledRule`; None where the price never changes.
    observe : compiled function, optional
        Sees the batch's scores before the update.
    memory : (M,) ndarray of float64
        What the functions remember between batches.
    threshold : bool
        See `PriceRule.threshold`.
    every, lag, n_ranks : int
        See `Delayed`.
    """

    parameters: Float64Array
    price: Float64Array
    update: Any = None
    observe: Any = None
    memory: Float64Array = np.zeros(0)
    threshold: bool = False
    every: int = 1
    lag: int = 0
    n_ranks: int = 1


class PriceRule(Rule):
    """A balancing rule whose price is added to the scores for the choice of experts.

    A rule that defines `init`, `bias` and `update` can be simulated; one that also has a kernel form runs
    inside the compiled loop (`CompiledRule` is the short way to that).
    """

    allows_groups: ClassVar[bool] = True
    """Whether the rule knows what to do where a token chooses among its best groups of experts alone."""

    threshold: ClassVar[bool] = False
    """Whether a token goes to every expert whose biased score is positive, however many these are, instead of
    to its K best."""

    @abstractmethod
    def bias(self, state: Any) -> Float64Array:
        """Return what is added to the scores, (E,) float64, in score units."""

    def observe(self, state: Any, scores: FloatArray) -> Any:
        """Return the state after seeing a batch's scores; called before `update` where ``needs_scores``.

        Parameters
        ----------
        state
            The state before; it is not changed.
        scores : (T, E) ndarray of float32 or float64
            The batch that was routed with `bias`, not to be written to.

        Returns
        -------
        state
            The state that `update` is given.
        """
        del scores
        return state

    @abstractmethod
    def update(self, state: Any, loads: IntArray, probabilities: Float64Array | None) -> Any:
        """Return the state after a batch.

        Parameters
        ----------
        state
            The state before; it is not changed.
        loads : (E,) ndarray of int64
            Tokens that each expert received.
        probabilities : (E,) ndarray of float64 or None
            Mean router probabilities, for rules that need them.

        Returns
        -------
        state
            The state after the batch.
        """

    def kernel_form(self, n_experts: int, n_tokens: int, k: int) -> KernelForm | None:
        """Return the rule as the compiled loop runs it, or None if it runs in Python alone.

        Parameters
        ----------
        n_experts, n_tokens, k : int
            E, tokens per update, and experts per token.
        """
        del n_experts, n_tokens, k
        return None

    @classmethod
    def in_kernel(cls) -> bool:
        """Whether the class has a kernel form of its own."""
        return cls.kernel_form is not PriceRule.kernel_form

    def remark(self, memory: Float64Array) -> str:
        """Return what the user is warned of after a run in the compiled loop; empty for nothing.

        Parameters
        ----------
        memory : (M,) ndarray of float64
            `KernelForm.memory` after the last step.
        """
        del memory
        return ""

    def own_objective(self, source: Any, n_tokens: int, k: int) -> OwnObjective | None:
        """Return the minimiser of the rule's own objective on a source, or None where it has none.

        A rule that returns one has a kernel form, and sums the objective's term at the price in force, before
        each update, in the first cell of its memory; regret is then measured on that objective.
        """
        del source, n_tokens, k
        return None


class PenaltyRule(Rule):
    """A balancing rule that acts through the router's gradient: a penalty per expert in the training loss.

    In a batch, as published: the router's forward pass; `update` with this batch's loads and mean softmax
    probabilities; then the gradient of <mean softmax probabilities, penalty>, the penalty held constant, is
    taken with that of the rest of the loss. Nothing is added to the scores for the choice of experts, so that
    a batch is routed with what past batches taught alone: such rules are causal. They need a router that
    learns (`balancesim.train_router`).
    """

    needs_probabilities: ClassVar[bool] = True

    n_micro_batches: int = 1
    """Equal parts of a batch that each make an update and a penalty of their own; the loss is their mean.
    With 1, loads and probabilities are those of the whole (global) batch, however many devices share it."""

    counts_first_choice: ClassVar[bool] = False
    """Whether the loads that `update` is given are those of each token's first choice alone."""

    @abstractmethod
    def penalty(self, state: Any) -> Float64Array:
        """Return the price of each expert's mean probability, (E,) float64, in units of the reward."""

    @abstractmethod
    def update(self, state: Any, loads: IntArray, probabilities: Float64Array | None) -> Any:
        """Return the state after the forward pass of a batch.

        Parameters
        ----------
        state
            The state before; it is not changed.
        loads : (E,) ndarray of int64
            Tokens that each expert receives; by first choices alone where ``counts_first_choice``.
        probabilities : (E,) ndarray of float64
            Mean over the tokens of the softmax over all experts, before the choice.

        Returns
        -------
        state
            The state that `penalty` is asked about for this batch.
        """

    def kernel_form(self, n_experts: int, n_tokens: int, k: int) -> KernelForm | None:
        """Return the rule as the compiled loop runs it, or None if it runs in Python alone.

        Parameters
        ----------
        n_experts, n_tokens, k : int
            E, tokens per update, and experts per token; the first E cells of the form's memory hold the mean
            probabilities when its update is called, and its price receives the penalty.
        """
        del n_experts, n_tokens, k
        return None

    @classmethod
    def in_kernel(cls) -> bool:
        """Whether the class has a kernel form of its own."""
        return cls.kernel_form is not PenaltyRule.kernel_form


class Assignment(NamedTuple):
    """What a `BatchRule` makes of one batch.

    Attributes
    ----------
    experts : (T, M) ndarray of int, or None
        M >= K places for each token: different, unmasked experts in any order, and -1 for a place that stays
        empty. So a token may hold fewer experts than K, none, or more; M is K unless one holds more. None
        where the rule finds no assignment, which ends its run.
    bias : (E,) ndarray of float64, or None
        The price that goes with the choice, in score units: it is recorded, and regret is the dual's at it.
        None where the rule has no price; its bias and regret are then NaN.
    reason : str
        Why there is no assignment.
    """

    experts: IntArray | None
    bias: Float64Array | None = None
    reason: str = ""


class BatchRule(Rule):
    """A balancing rule that sees a batch's own scores and says which experts each token gets.

    A rule that defines `init` and `assign` can be simulated, with a call into Python at every step.
    """

    causal: ClassVar[bool] = False

    @abstractmethod
    def assign(self, state: Any, scores: FloatArray) -> tuple[Assignment, Any]:
        """Assign a batch.

        Parameters
        ----------
        state
            The state before; it is not changed.
        scores : (T, E) ndarray of float32 or float64
            The batch, in a copy of the rule's own; minus infinity masks an expert for a token.

        Returns
        -------
        assignment : Assignment
            The experts and the price.
        state
            The state after the batch.
        """

    def remark(self, state: Any) -> str:
        """Return what a reader of the run should know of how it went, given the last state; empty if nothing.

        It is added to the run's `Status`, for what is no reason to end a run, such as iterations that did not
        converge.
        """
        del state
        return ""
