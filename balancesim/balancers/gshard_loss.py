"""The auxiliary loss of GShard (Lepikhin et al. 2020, arXiv:2006.16668, algorithm 1)."""

from dataclasses import dataclass

from balancesim.balancers.switch_loss import SwitchLoss


@dataclass(frozen=True, kw_only=True)
class GShardLoss(SwitchLoss):
    """GShard's auxiliary loss: as Switch's, but f counts each token's first choice alone.

    The loss is weight E sum_k (c_k/T) P_k, c_k the tokens whose first choice is expert k. The paper writes
    1/E in place of the factor E; its coefficient is E^2 times the weight here. It takes the loss per group of
    tokens and averages over groups: ``n_micro_batches`` groups here. At K = 1 it is `SwitchLoss`.

    Parameters
    ----------
    weight : float, optional
        Factor on the loss, in units of the reward; 0 switches it off.
    n_micro_batches : int, optional
        Groups of equal size that a batch is split in; 1 counts over the whole (global) batch.
    """

    name = "gshard-loss"
    reference = "arXiv:2006.16668, algorithm 1"
    counts_first_choice = True

    def describe(self) -> str:
        groups = f", {self.n_micro_batches} groups" if self.n_micro_batches > 1 else ""
        return f"GShard loss, weight {self.weight:.4g}{groups}"
