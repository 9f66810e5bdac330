"""The auxiliary loss of Switch Transformer (Fedus, Zoph & Shazeer 2021, arXiv:2101.03961, equations 4-6)."""

from collections.abc import Sequence
from dataclasses import dataclass

from balancesim.balancers.compiled import CompiledPenalty
from balancesim.kernels.jit import rule_kernel
from balancesim.numbers import check_int, check_not_negative
from balancesim.types import Float64Array, IntArray


@rule_kernel
def update(
    parameters: Float64Array,
    step: int,
    n_tokens: int,
    k: int,
    loads: IntArray,
    price: Float64Array,
    memory: Float64Array,
) -> None:
    """Write weight E f_k, f the loads' shares."""
    n_experts = price.size
    for e in range(n_experts):
        price[e] = parameters[0] * n_experts * (loads[e] / (n_tokens * k))


@dataclass(frozen=True, kw_only=True)
class SwitchLoss(CompiledPenalty):
    """Switch's auxiliary loss, weight E sum_k f_k P_k, on the batch's own loads.

    f_k = A_k/(T K) is expert k's share of the batch's assignments and P_k its mean softmax probability; the
    gradient flows through P alone, so the penalty is v_k = weight E f_k. The paper has K = 1 and weight 0.01.
    Code that counts f_k per token, A_k/T, has a weight that is K times smaller for the same loss.

    Parameters
    ----------
    weight : float, optional
        Factor on the loss, in units of the reward; 0 switches it off.
    n_micro_batches : int, optional
        1: f and P are those of the whole (global) batch (Qiu et al. 2025, arXiv:2501.11873); above: each of
        so many equal parts of the batch has a loss of its own, and the loss is their mean.
    """

    name = "switch-loss"
    reference = "arXiv:2101.03961, equations 4-6"
    compiled_update = staticmethod(update)
    weight: float = 0.01
    n_micro_batches: int = 1

    def __post_init__(self) -> None:
        check_not_negative("weight", self.weight)
        check_int("n_micro_batches", self.n_micro_batches, 1)

    def parameters(self) -> Sequence[float]:
        """Return the weight."""
        return (self.weight,)

    def describe(self) -> str:
        parts = f", {self.n_micro_batches} micro-batches" if self.n_micro_batches > 1 else ""
        return f"Switch loss, weight {self.weight:.4g}{parts}"
