"""Settings that every test shares."""

import os

import pytest
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests counted: `record_property("counted", ...)`."""
    reports = terminalreporter.getreports("passed")
    lines = [text for report in reports for name, text in report.user_properties if name == "counted"]
    if lines:
        terminalreporter.section("counted")
        for line in lines:
            terminalreporter.line(line)
