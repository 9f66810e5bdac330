"""Reports by name: every one of them shows a run, an unknown one is one clear error."""

import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from balancesim.errors import ConfigurationError
from balancesim.report import find_report, write_report
from balancesim.report.registry import _MODULES
from balancesim.sweep import RunDirectory, group_records
from tests.sweep.tiny import TINY, configuration, sweep

# One figure has the sources as panels.
FIGURE = {"minibatch-bias": "batch-size"}
SWEPT = TINY.replace("step_size = 1\n", "step_size = [0.5, 1]\n")


@pytest.mark.parametrize("name", sorted(_MODULES))
def test_every_report_shows_a_run(tmp_path: Path, name: str) -> None:
    run = RunDirectory(tmp_path / "run")
    sweep(run.path, configuration(tmp_path, f'report = "{name}"\n{SWEPT}'))
    report = find_report(name)
    rows = report.summarise(run)
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(report.table(rows))
    assert "Pareto (index 0.8)" in capture.get()
    assert "…" not in capture.get()
    assert group_records(rows)
    first = {path: path.read_bytes() for path in write_report(run, rows)}
    assert any(path.name.startswith(FIGURE.get(name, "source-01-pareto-index-0.8")) for path in first)
    assert {path: path.read_bytes() for path in write_report(run)} == first


def test_an_unknown_report_names_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="report: unknown report 'rase'; did you mean 'race'"):
        find_report("rase")


def test_no_report_loads_pandas_or_matplotlib() -> None:
    names = ", ".join(repr(name) for name in _MODULES)
    code = f"from balancesim.report import find_report\nfor name in ({names},): find_report(name)\n"
    code += "import sys\nprint(*{'pandas', 'matplotlib'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
