"""An experiment on the card's stand-in: the same loads and biases in its parts."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from balancesim.cli import main
from tests.kernels_cupy import card
from tests.kernels_cupy.compiled import COMPILER

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler: c++, g++ or clang++")

TINY = """
name = "tiny"

[run]
n_tokens = 20
k = 2
horizon = 25
n_exact = 0
seeds = "0:1"

[[source]]
kind = "normal"
n_experts = 8

[[rule]]
kind = "alf-lb"
step_size = [0.1, 1.0]
"""


def test_a_sweep_on_the_card_has_the_same_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card.install(monkeypatch)
    config = tmp_path / "tiny.toml"
    config.write_text(TINY, encoding="utf-8")
    found = {}
    for backend in ("numba", "cupy"):
        out = tmp_path / backend
        words = ["run", "--config", str(config), "--executor", "serial", "--backend", backend, "--quiet"]
        result = CliRunner().invoke(main, [*words, "--out", str(out)])
        assert result.exit_code == 0, result.output
        (part,) = out.glob("cells/*.parquet")
        found[backend] = pq.read_table(part).to_pandas()
    here, there = found["cupy"], found["numba"]
    assert len(here) == len(there) > 0
    exact = [name for name in here.columns if name in {"loads", "window_loads", "bias", "steps"}]
    assert "loads" in exact
    for name in exact:
        for mine, theirs in zip(here[name], there[name], strict=True):
            assert np.array_equal(mine, theirs), name
    words = ["run", "--config", str(config), "--backend", "numba", "--quiet", "--out", str(tmp_path / "cupy")]
    refused = CliRunner().invoke(main, words)
    assert refused.exit_code == 2
    assert "backend" in refused.stderr
