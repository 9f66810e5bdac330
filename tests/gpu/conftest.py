"""Tests on a CUDA card; each is skipped, and says why, where there is none."""

import pytest

from balancesim.errors import MissingDependencyError
from balancesim.kernels_cupy import device


def _missing() -> str:
    try:
        device.cupy()
    except MissingDependencyError as error:
        return str(error)
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark this folder's tests, and skip them without a card."""
    own = [item for item in items if "tests/gpu/" in item.path.as_posix()]
    reason = _missing() if own else ""
    for item in own:
        item.add_marker(pytest.mark.gpu)
        if reason:
            item.add_marker(pytest.mark.skip(reason=f"no CUDA card: {reason}"))
