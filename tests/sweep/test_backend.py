"""The key ``run.backend``: what it changes, what it refuses, and what a missing card says."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from balancesim.cli import main
from balancesim.errors import ConfigurationError
from balancesim.sweep.configuration import resolve
from balancesim.sweep.experiment import load_draft
from balancesim.sweep.overrides import apply_overrides
from balancesim.sweep.run_parameters import RunParameters

TINY = """
name = "tiny"

[run]
n_tokens = 32
k = 2
horizon = 50
seeds = "0:1"

[[source]]
kind = "normal"
n_experts = 8

[[rule]]
kind = "alf-lb"
step_size = 0.5
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    return path


def resolved(path: Path, *overrides: str):
    draft, _ = apply_overrides(load_draft(None, path), overrides)
    return resolve(draft)


def test_the_card_makes_other_cells(tiny: Path) -> None:
    assert "backend" not in RunParameters().deciding()
    assert RunParameters(backend="cupy").deciding()["backend"] == "cupy"
    assert resolved(tiny, "backend=cupy").run["backend"] == ("cupy",)
    with pytest.raises(ConfigurationError, match="backend"):
        resolved(tiny, "backend=cuda")


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (("rule=quantile",), "rule quantile is neither"),
        (("rule.every=2",), "updates a price once a batch"),
        (("n_groups=4", "n_chosen_groups=2"), "no limit on groups"),
    ],
)
def test_what_the_card_does_not_run_is_refused_before_the_first_cell(
    tiny: Path, overrides, what: str
) -> None:
    if overrides[0].startswith("rule="):
        tiny.write_text(TINY.replace('"alf-lb"\nstep_size = 0.5', '"quantile"'), encoding="utf-8")
        overrides = ()
    with pytest.raises(ConfigurationError, match=f"{what}.*numba"):
        resolved(tiny, "backend=cupy", *overrides)


def test_a_missing_card_has_its_own_exit_code(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    out = str(tiny.parent / "out")
    result = CliRunner().invoke(main, ["run", "--config", str(tiny), "--backend", "cupy", "--out", out])
    assert result.exit_code == 3
    assert "pip install 'balancesim[cuda12]' or 'balancesim[cuda13]'" in result.stderr
    assert not Path(out).exists()
