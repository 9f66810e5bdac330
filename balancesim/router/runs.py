"""What training a router returns."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from balancesim.balancers import Rule
from balancesim.problem import dead_experts, max_violation
from balancesim.router.model import Router
from balancesim.router.task import ClusteredTask
from balancesim.runs import Status
from balancesim.types import Float64Array, IntArray


class RewardReference(NamedTuple):
    """What the best assignments of some recorded batches earn, by expected rewards and per token.

    Attributes
    ----------
    steps : (M,) ndarray of int64
        The last recorded steps, counted from 1.
    best : (M,) ndarray of float64
        Every token's best expert, with all of the gate weight: no router earns more.
    balanced : (M,) ndarray of float64
        The same with at most ceil(T K / E) tokens per expert, solved exactly: no router with balanced loads
        earns more, whatever its gates. NaN where there is no certified optimum.
    best_choice : (M,) ndarray of float64
        The mean reward of every token's K best experts.
    balanced_choice : (M,) ndarray of float64
        The mean reward of the chosen in the best balanced assignment of K experts to each token (`solve`).
    """

    steps: IntArray
    best: Float64Array
    balanced: Float64Array
    best_choice: Float64Array
    balanced_choice: Float64Array


@dataclass(frozen=True, eq=False)
class RouterRun:
    """What one rule did on one router, at R log-spaced steps.

    Rewards are expected ones per token, in [0, 1]; a window is the steps since the previous record.

    Attributes
    ----------
    rule : Rule
        The rule.
    task : ClusteredTask
        The task, with the run's seed.
    router : Router
        The router.
    n_tokens, k, horizon : int
        Tokens per batch, experts per token, steps asked for.
    learning_rate : float
        Size of the gradient steps.
    steps : (R,) ndarray of int64
        Recorded steps, counted from 1.
    loads : (R, E) ndarray of int64
        Loads of the recorded step's batch.
    window_loads : (R, E) ndarray of int64
        Loads summed over the window.
    price : (R, E) ndarray of float64
        After the step's update: the bias, in units of what it is added to, or the penalty, in units of the
        reward (of the last micro-batch).
    max_violation, mean_max_violation : (R,) ndarray of float64
        MaxVio of the recorded step's batch, and the mean of the batches' over the window.
    reward, mean_reward : (R,) ndarray of float64
        The sum over the chosen of gate weight times reward: of the batch, and over the window.
    choice_reward, mean_choice_reward : (R,) ndarray of float64
        The mean reward of the chosen, whatever their gate weights: of the batch, and over the window.
    entropy : (R,) ndarray of float64
        Mean entropy of the tokens' softmax probabilities over the window, in nats.
    squared_log_partition : (R,) ndarray of float64
        What the z-loss weighs: mean squared logarithm of the logits' sum of exponentials over the window.
    weights : (E, d) or (E, d + 1) ndarray of float64
        W at the end, with b as the last column where the router has one.
    reference : RewardReference
        What the best assignments earn.
    status : Status
        How the run ended.
    """

    rule: Rule
    task: ClusteredTask
    router: Router
    n_tokens: int
    k: int
    horizon: int
    learning_rate: float
    steps: IntArray
    loads: IntArray
    window_loads: IntArray
    price: Float64Array
    max_violation: Float64Array
    mean_max_violation: Float64Array
    reward: Float64Array
    mean_reward: Float64Array
    choice_reward: Float64Array
    mean_choice_reward: Float64Array
    entropy: Float64Array
    squared_log_partition: Float64Array
    weights: Float64Array
    reference: RewardReference
    status: Status

    @property
    def window_max_violation(self) -> Float64Array:
        """MaxVio of the loads summed over each window, (R,)."""
        found: Float64Array = np.atleast_1d(max_violation(self.window_loads))
        return found

    @property
    def dead_experts(self) -> IntArray:
        """Experts that received no token in each window, (R,)."""
        found: IntArray = np.atleast_1d(dead_experts(self.window_loads))
        return found

    @property
    def reward_lost(self) -> float:
        """What the best balanced assignment earns more than the router, per token, on the same batches.

        Negative only where imbalance buys reward; NaN without a reference.
        """
        return self._lost(self.reference.balanced, self.reward)

    @property
    def choice_reward_lost(self) -> float:
        """`reward_lost` of the choice alone, every chosen expert with the same weight."""
        return self._lost(self.reference.balanced_choice, self.choice_reward)

    def _lost(self, best: Float64Array, earned: Float64Array) -> float:
        n = self.reference.steps.size
        return float((best - earned[earned.size - n :]).mean()) if n else float("nan")
