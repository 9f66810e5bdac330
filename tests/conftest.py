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
settings.register_profile("deep", settings.get_profile("balancesim"), max_examples=10_000)
settings.load_profile("balancesim")


def is_deep(config: pytest.Config) -> bool:
    """Whether this is the run of the deep tests alone."""
    return bool(config.getoption("markexpr") == "deep")


def pytest_configure(config: pytest.Config) -> None:
    """Let the deep run draw more examples."""
    if is_deep(config):
        settings.load_profile("deep")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let the deep run select the properties too, which the default run has with fewer examples."""
    for item in items:
        if is_deep(config) and item.get_closest_marker("properties") is not None:
            item.add_marker(pytest.mark.deep)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests counted: `record_property("counted", ...)`."""
    reports = terminalreporter.getreports("passed")
    lines = [text for report in reports for name, text in report.user_properties if name == "counted"]
    if lines:
        terminalreporter.section("counted")
        for line in lines:
            terminalreporter.line(line)
