"""The cache of compiled code: a second process compiles nothing."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest

pytestmark = pytest.mark.skipif(
    numba.config.DISABLE_JIT,  # type: ignore[attr-defined]
    reason="the JIT is off",
)

COUNT = """
from numba.core import event
recorder = event.RecordingListener()
event.register("numba:compile", recorder)
"""
# Routing, and a rule's own function.
SOME = """
import numpy as np
from balancesim import route
from balancesim.balancers import AlfLB
from balancesim.kernels.calls import UPDATE, address_of
route(np.random.default_rng(0).standard_normal((64, 16), dtype=np.float32), k=2)
address_of(AlfLB().kernel_form(8, 16, 2).update, UPDATE)
"""
ALL = """
import numpy as np
from balancesim import route, simulate, solve
from balancesim.balancers import AlfLB
from balancesim.sources import Normal
simulate(AlfLB(), Normal(n_experts=8), n_tokens=16, k=2, horizon=50)
scores = np.random.default_rng(0).standard_normal((64, 16))
route(scores, k=2)
solve(scores, k=2)
"""


def n_compiled(script: str, cache: Path) -> int:
    """Run a script in a fresh interpreter; the number of functions that it compiled."""
    done = subprocess.run(
        [sys.executable, "-c", f"{COUNT}{script}print(len(recorder.buffer) // 2)"],
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.parametrize("script", [SOME, pytest.param(ALL, marks=pytest.mark.deep)], ids=["some", "all"])
def test_a_second_process_compiles_nothing(script: str, tmp_path: Path) -> None:
    assert n_compiled(script, tmp_path) > 10
    left = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb?")}
    assert left
    assert n_compiled(script, tmp_path) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb?")} == left
