"""The kinds of sources and rules that an experiment can name, those of installed packages included."""

import functools
from collections.abc import Mapping
from typing import Any

from balancesim import balancers, sources

# Reading the entry points of all installed packages takes milliseconds, and a sweep asks hundreds of times.


@functools.cache
def source_kinds() -> Mapping[str, type[Any]]:
    """The source classes by name."""
    return sources.registry()


@functools.cache
def rule_kinds() -> Mapping[str, type[Any]]:
    """The rule classes by name."""
    return balancers.registry()
