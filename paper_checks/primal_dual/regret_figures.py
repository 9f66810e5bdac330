"""Figures of S4 to S8."""

from typing import Any


def draw_bound(f: Any) -> Any: ...
def draw_differences(f: Any) -> Any: ...
