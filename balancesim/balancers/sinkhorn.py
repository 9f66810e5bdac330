"""Sinkhorn: entropic optimal transport from tokens to experts, and each token's K best at its prices."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from balancesim.balancers.protocol import Assignment, BatchRule
from balancesim.batches import checked_scores
from balancesim.errors import InputError
from balancesim.numbers import check_int, check_positive
from balancesim.routing import route_numba
from balancesim.types import Float64Array, FloatArray


class SinkhornState(NamedTuple):
    """K, batches so far, those that did not converge, and the largest error of a batch."""

    k: int
    n_batches: int
    n_unfinished: int
    largest_error: float


class Scaling(NamedTuple):
    """What Sinkhorn's iterations arrived at.

    Attributes
    ----------
    bias : (E,) ndarray of float64
        The experts' prices, of zero mean, in score units.
    error : float
        The largest |load / (T K / E) - 1| of the plan at these prices.
    n_iterations : int
        Scalings of all columns that were done.
    """

    bias: Float64Array
    error: float
    n_iterations: int


@dataclass(frozen=True, kw_only=True)
class Sinkhorn(BatchRule):
    """Sinkhorn's matrix scaling of each batch, then each token's K best experts at the prices found.

    The plan P_ik = exp((gamma_ik + p_k - alpha_i)/temperature) maximises
    <gamma, P> - temperature sum P (ln P - 1) among all P >= 0 whose rows hold K each and whose columns hold
    T K / E each, which may be fractional. alpha and p come from scaling rows and columns in turn (Sinkhorn
    and Knopp 1967; Cuturi 2013, arXiv:1306.0895; as a router Clark et al. 2022, arXiv:2202.01169), in
    logarithms and float64, from p = 0 anew for each batch. The K largest entries of a row of P are the K
    largest biased scores gamma_i + p, ties to the lower expert, so that p is the rule's bias. It is the plan
    that is balanced, not that choice: loads depart from T K / E the more the higher the temperature is.

    As the temperature falls the plan tends to the optimal transport. For K = 1 that is the exact optimum of
    the batch. For K > 1 it is not: no entry of P is kept below one, so that a token may send all its K units
    to one expert.

    Parameters
    ----------
    temperature : float, optional
        In score units.
    n_iterations : int, optional
        Scalings of all columns, at most.
    tolerance : float, optional
        The iterations end once every column holds T K / E up to this relative error. Batches that do not
        get there are assigned all the same, and counted in the run's status.

    Notes
    -----
    Low temperatures need more iterations. One that changes nothing when it is added to the largest score of a
    typical token ends the run: the plan would be made of rounding errors.
    """

    name = "sinkhorn"
    reference = "arXiv:1306.0895; as a router arXiv:2202.01169"
    temperature: float = 0.1
    n_iterations: int = 100
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        check_positive("temperature", self.temperature)
        if self.temperature < np.finfo(np.float64).tiny:
            raise InputError(
                f"`temperature` must be a normal float64, at least {np.finfo(np.float64).tiny:.2g}, "
                f"got {self.temperature!r}"
            )
        check_int("n_iterations", self.n_iterations, 1)
        check_positive("tolerance", self.tolerance)

    def init(self, n_experts: int, k: int) -> SinkhornState:
        """Start without a batch."""
        del n_experts
        return SinkhornState(k, 0, 0, 0.0)

    def scale(self, scores: FloatArray, k: int) -> Scaling | str:
        """Find the prices of a batch.

        Parameters
        ----------
        scores : (T, E) ndarray of float32 or float64
            The batch; minus infinity masks an expert for a token.
        k : int
            Experts per token.

        Returns
        -------
        Scaling or str
            Or why there are none: a temperature that underflows, an expert without a token.
        """
        from balancesim.kernels.sinkhorn import EMPTY_COLUMN, scale_columns

        finite = np.isfinite(scores)
        typical = float(np.median(np.abs(np.where(finite, scores, 0.0)).max(axis=1)))
        if self.temperature < np.spacing(typical):
            return (
                f"`temperature` {self.temperature:.3g} underflows beside scores of {typical:.3g}; "
                f"use at least {np.spacing(typical):.2g}"
            )
        price = np.zeros(scores.shape[1])
        batch = np.ascontiguousarray(scores)
        n_done, error = scale_columns(
            batch, k, float(self.temperature), self.n_iterations, float(self.tolerance), price
        )
        if n_done == EMPTY_COLUMN:
            expert = int(np.flatnonzero(~finite.any(axis=0))[0])
            return f"`scores` mask expert {expert} for every token, so that no plan gives it its share"
        return Scaling(price - price.mean(), float(error), int(n_done))

    def assign(self, state: SinkhornState, scores: FloatArray) -> tuple[Assignment, SinkhornState]:
        """Scale the batch, and route it with the prices found."""
        found = self.scale(scores, state.k)
        if isinstance(found, str):
            return Assignment(None, reason=found), state
        batch, bias = checked_scores(scores, found.bias, state.k)
        _, _, experts = route_numba(batch, bias, state.k, experts=True)
        after = SinkhornState(
            state.k,
            state.n_batches + 1,
            state.n_unfinished + (found.error > self.tolerance),
            max(state.largest_error, found.error),
        )
        return Assignment(experts, found.bias), after

    def remark(self, state: SinkhornState) -> str:
        """Say how many batches did not converge."""
        if state.n_unfinished == 0:
            return ""
        return (
            f"{state.n_unfinished} of {state.n_batches} plans not within `tolerance` after "
            f"{self.n_iterations} iterations, the worst {state.largest_error:.2g} off"
        )

    def describe(self) -> str:
        return f"Sinkhorn, temperature {self.temperature:.4g}"
