"""What tests of runs share: a source, rules, a short run, and whether two runs have the same bits."""

import numpy as np

from balancesim.balancers import AlfLB, NoBalance
from balancesim.sources import Normal

SOURCE = Normal(n_experts=8, offsets="iqr", seed=3)
RULES = [NoBalance(), AlfLB(schedule="sign", step_size=0.01), AlfLB(step_size=3.0)]
SHORT = {"n_tokens": 60, "k": 2, "horizon": 40}
COLUMNS = ("steps", "loads", "window_loads", "bias", "max_violation", "mean_max_violation", "regret",
           "score_lost", "top_score", "drop_rate", "exact_steps", "exact_score",
           "score_over_exact")  # fmt: skip


def same(first, second):
    return all(
        np.array_equal(getattr(first, name), getattr(second, name), equal_nan=True) for name in COLUMNS
    )
