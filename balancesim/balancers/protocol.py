"""The protocol of every balancing rule: a price, and how it answers to loads."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from balancesim.types import Float64Array, IntArray


class PriceRule(ABC):
    """A balancing rule whose price is added to the scores for the choice of experts.

    Rules are immutable descriptions; all that changes lives in the state that `init` makes and `update`
    returns. A rule that defines these three methods can be simulated; one that also has a kernel form runs
    inside the compiled loop.
    """

    name: ClassVar[str]
    """The name in configurations and tables."""

    causal: ClassVar[bool] = True
    """Whether a batch is routed with what past batches taught alone."""

    needs_probabilities: ClassVar[bool] = False
    """Whether `update` needs the router's probabilities beside the loads."""

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
            Anything; it is handed to `bias` and `update`.
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

    def describe(self) -> str:
        """Return one line for tables and figures."""
        return self.name
