"""``balancesim bench``: what it prints, and how it ends. No test asserts a time."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from balancesim import bench
from balancesim.bench.rows import Row, at_least, compared, missing
from balancesim.bench.timing import Plan, plain_pairs
from balancesim.cli import main


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """Two areas that measure nothing; the second can be interrupted by its name."""
    seen: list[Plan] = []

    def quick(plan: Plan) -> Iterator[Row]:
        seen.append(plan)
        plan.say("8x8 K=1")
        yield compared("quick", "8x8 K=1", "numpy", plain_pairs([1.0], [16.0]), at_least(8.0))
        yield missing("quick", "8x8 K=1", "torch", at_least(8.0), "not installed: pip install torch")

    def stopped(plan: Plan) -> Iterator[Row]:
        yield from quick(plan)
        raise KeyboardInterrupt

    module = ModuleType("fake_areas")
    vars(module).update(quick=quick, stopped=stopped)
    monkeypatch.setitem(sys.modules, "fake_areas", module)
    for name in ("quick", "stopped"):
        monkeypatch.setitem(bench.AREAS, name, bench.Area("fake_areas", 60.0, "nothing"))
    for parameter in _command().params:
        if parameter.name == "areas":
            monkeypatch.setattr(parameter.type, "choices", ("quick", "stopped"))
    return seen


def _command() -> object:
    from balancesim.cli.bench import bench_command

    return bench_command


def call(*arguments: object) -> Result:
    result = CliRunner().invoke(main, ["bench", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_a_table_on_stdout_and_progress_on_stderr(plans: list[Plan]) -> None:
    result = call("quick")
    assert result.exit_code == 0
    assert "16 [16, 16]" in result.stdout
    assert "reached" in result.stdout
    assert "not installed: pip install torch" in result.stdout
    assert result.stdout.splitlines()[-1] == "goals: 1 reached, 0 missed, 1 not measured"
    assert result.stderr.splitlines() == ["quick: loading", "quick: 8x8 K=1"]
    assert (plans[0].rounds, plans[0].seconds) == (21, 60.0)
    assert call("quick", "--quiet").stderr == ""


def test_one_document(plans: list[Plan]) -> None:
    result = call("quick", "quick", "--rounds", 2, "--budget", 5, "--json", "-q")
    found = json.loads(result.stdout)
    assert (found["rounds"], found["budget_seconds"], found["complete"]) == (2, 5.0, True)
    assert [row["ratio"] and row["ratio"]["median"] for row in found["rows"]] == [16.0, None]
    assert [(plan.rounds, plan.seconds) for plan in plans] == [(2, 5.0)]


def test_an_interrupt_keeps_what_was_measured(plans: list[Plan]) -> None:
    result = call("stopped", "quick", "--json", "-q")
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    found = json.loads(result.stdout)
    assert (len(found["rows"]), found["complete"]) == (2, False)
    assert len(plans) == 1


def test_a_figure(plans: list[Plan], tmp_path: Path) -> None:
    result = call("quick", "--figure", tmp_path / "ratios.svg")
    assert result.exit_code == 0
    assert (tmp_path / "ratios.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert f"figure: {tmp_path / 'ratios.svg'}" in result.stderr
    for path, said in (
        (tmp_path / "ratios.txt", ".svg, .png, .pdf"),
        (tmp_path / "no" / "a.svg", "existing"),
    ):
        result = call("quick", "--figure", path)
        assert result.exit_code == 2
        assert said in result.stderr
    assert len(plans) == 1


def test_an_unknown_area_is_named() -> None:
    result = call("speed")
    assert result.exit_code == 2
    assert "'exact', 'routing'" in result.stderr


def test_its_help_is_light() -> None:
    code = (
        "import sys, contextlib\n"
        "from balancesim.cli import main\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main(['bench', '--help'])\n"
        "print([name for name in ('numpy', 'numba', 'rich', 'matplotlib') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "exact, routing, online, sweep, scaling, gpu, memory, startup" in " ".join(done.stdout.split())
    assert done.stdout.splitlines()[-1] == "[]"


def test_there_is_one_way_to_run_it() -> None:
    code = [sys.executable, "-m", "balancesim.bench"]
    assert subprocess.run(code, capture_output=True, check=False).returncode == 1
