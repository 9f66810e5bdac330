"""Settings that every test shares."""

import os

from hypothesis import HealthCheck, settings

# Interpreted kernels are a few hundred times slower: the pass that measures their coverage draws less.
INTERPRETED = os.environ.get("NUMBA_DISABLE_JIT", "0") == "1"

# Derandomised: a failure on one machine is a failure on all. No deadline: a first call compiles.
settings.register_profile(
    "balancesim",
    derandomize=True,
    deadline=None,
    max_examples=10 if INTERPRETED else 60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("balancesim")
