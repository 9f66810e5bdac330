"""What a simulation returns: runs, how they ended, what their regret is measured against."""

import enum
import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from balancesim.balancers import Rule
from balancesim.sources.base import Source
from balancesim.types import Float64Array, IntArray


class Outcome(enum.Enum):
    """How a run ended; the value is the sentence that the user reads."""

    HORIZON_REACHED = "reached the horizon"
    BIAS_NOT_FINITE = (
        "the bias became non-finite or too large for the scores' dtype; "
        "lower the step size, strength or rate of the rule"
    )
    PENALTY_NOT_FINITE = "the penalty became non-finite or too large; lower the weight"
    WEIGHTS_NOT_FINITE = "the router's weights became non-finite or too large; lower the learning rate"
    NOT_ASSIGNED = "the rule found no assignment"
    DATA_EXHAUSTED = "the recorded data ended before the horizon; shorten the horizon or resample"


class Status(NamedTuple):
    """How a run ended.

    Attributes
    ----------
    outcome : Outcome
        What ended it.
    step : int
        The last step that was run, counted from 1.
    reason : str
        One sentence, with the numbers.
    """

    outcome: Outcome
    step: int
    reason: str


class Comparator(NamedTuple):
    """What regret is measured against.

    Attributes
    ----------
    kind : {"population", "hindsight", "given", "rule", "none"}
        The population minimiser p*, the best fixed bias in hindsight, a bias that was passed in, the
        minimiser of the rule's own objective, on which regret is then measured, or nothing: regret is NaN.
    bias : (E,) ndarray of float64
        One vector for the whole run; zero where regret is measured against nothing.
    gain : float
        What the best fixed bias in hindsight is expected to gain on the population minimiser by fitting the
        run's noise; it grows linearly along the run. Zero for the other kinds and for scores that are not
        known to be stationary.
    own_term : float
        The dual term of the rule's own objective at the bias, per token and step; zero for the other kinds.
    excess : float
        `OwnObjective.excess`: regret on the rule's own objective is lower than against its true minimiser by
        up to so much a step, in expectation; zero for the other kinds.
    """

    kind: Literal["population", "hindsight", "given", "rule", "none"]
    bias: Float64Array
    gain: float
    own_term: float = 0.0
    excess: float = 0.0


@dataclass(frozen=True, eq=False)
class Run:
    """What one rule did on one source, at R log-spaced steps.

    Attributes
    ----------
    rule : Rule
        The rule, with its step size as a number.
    source : Source
        The source, with the run's seed.
    n_tokens, k, horizon : int
        Tokens per batch, experts per token, steps asked for.
    steps : (R,) ndarray of int64
        Recorded steps, counted from 1.
    loads : (R, E) ndarray of int64
        Loads of the recorded step's batch.
    window_loads : (R, E) ndarray of int64
        Loads summed over the steps since the previous record.
    bias : (R, E) ndarray of float64
        The bias after the recorded step's update, in score units; of a current-batch rule the one that goes
        with the recorded step's choice, NaN where it has none.
    max_violation : (R,) ndarray of float64
        MaxVio of the recorded step's batch, against T K / E also where loads do not sum to T K.
    mean_max_violation : (R,) ndarray of float64
        Mean of the batches' MaxVio since the previous record.
    regret : (R,) ndarray of float64
        Realised regret per token against the comparator, summed over steps 1..n, in score units (S5). A
        current-batch rule's bias has seen its batch, so its regret falls below zero, linearly.
    score_lost : (R,) ndarray of float64
        Unbiased score given up for balance: that of the top K without bias minus that of the chosen, per
        token, summed over steps 1..n. A place that stays empty scores zero, so that with a drop rate above
        zero, or more than K experts for a token, it depends on where the scores' zero is.
    top_score : (R,) ndarray of float64
        Unbiased top-K score per token, summed over steps 1..n.
    drop_rate : (R,) ndarray of float64
        Share of the T K places that stayed empty since the previous record: for each token K minus its
        experts, or zero where it holds more.
    exact_steps : (M,) ndarray of int64
        Recorded steps after which the rule's choice on the next batch was held against the exact optimum of
        that batch: the last of ``steps`` that a batch follows.
    exact_score : (M,) ndarray of float64
        Score per token of those optima: balanced loads, each the floor or the ceiling of T K / E.
    score_over_exact : (M,) ndarray of float64
        Unbiased score per token of the rule's choice minus that of the optimum, in score units. Positive only
        where imbalance buys score, but for what the optimum's certificate leaves open. NaN where one of
        them has no assignment.
    exact_reason : str
        Why the first optimum that is missing is; empty if none is.
    comparator : Comparator
        What regret is measured against.
    status : Status
        How the run ended.
    """

    rule: Rule
    source: Source
    n_tokens: int
    k: int
    horizon: int
    steps: IntArray
    loads: IntArray
    window_loads: IntArray
    bias: Float64Array
    max_violation: Float64Array
    mean_max_violation: Float64Array
    regret: Float64Array
    score_lost: Float64Array
    top_score: Float64Array
    drop_rate: Float64Array
    exact_steps: IntArray
    exact_score: Float64Array
    score_over_exact: Float64Array
    exact_reason: str
    comparator: Comparator
    status: Status

    @property
    def score_kept(self) -> Float64Array:
        """Share of the unbiased top-K score that the chosen keep, (R,); NaN where that score is <= 0."""
        kept = np.full(self.steps.size, np.nan)
        positive = self.top_score > 0.0
        kept[positive] = 1.0 - self.score_lost[positive] / self.top_score[positive]
        return kept

    @property
    def kept_of_exact(self) -> float:
        """Score of the rule's choices over that of the exact optima of the same batches, both summed.

        NaN without a comparison, and where the optima's score is <= 0. It depends on where the scores' zero
        is; ``score_over_exact`` does not.
        """
        total = float(self.exact_score.sum())
        return 1.0 + float(self.score_over_exact.sum()) / total if total > 0.0 else math.nan
