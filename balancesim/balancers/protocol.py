"""The protocols of balancing rules: a price that answers to loads, or a choice that sees the batch."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

from balancesim.types import Float64Array, FloatArray, IntArray


class Rule(ABC):
    """What every balancing rule has; derive from `PriceRule` or `BatchRule`.

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


class PriceRule(Rule):
    """A balancing rule whose price is added to the scores for the choice of experts.

    A rule that defines `init`, `bias` and `update` can be simulated; one that also has a kernel form runs
    inside the compiled loop.
    """

    @abstractmethod
    def bias(self, state: Any) -> Float64Array:
        """Return what is added to the scores, (E,) float64, in score units."""

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

    def kernel_form(self) -> tuple[int, Float64Array] | None:
        """Return the kind and parameters that the compiled loop knows the rule by, or None."""
        return None


class Assignment(NamedTuple):
    """What a `BatchRule` makes of one batch.

    Attributes
    ----------
    experts : (T, K) ndarray of int, or None
        K different, unmasked experts for each token, in any order; None where the rule finds none, which
        ends its run.
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
