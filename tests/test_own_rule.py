"""A third party's package: installed, its rules are raced beside ours, and docs/own_rule.md is about them."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from balancesim import balancers
from balancesim.errors import ConfigurationError
from tests.sweep.tiny import TINY, write

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tests" / "packages" / "own_rule"
FILES = ("own_rule/in_python.py", "pyproject.toml", "own_rule/compiled.py")


def install(target: Path) -> Path:
    """Lay out what pip unpacks from the package's wheel; no build backend and no network are needed."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shutil.copytree(PACKAGE / "own_rule", target / "own_rule")
    info = target / f"own_rule-{project['version']}.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("site"))


def balancesim(*arguments: object, site: Path | None) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ)
    environment.pop("PYTHONPATH", None)
    if site is not None:
        environment["PYTHONPATH"] = str(site)
    command = [sys.executable, "-m", "balancesim.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)


def test_its_rules_are_raced_beside_ours(site: Path, tmp_path: Path) -> None:
    out = tmp_path / "race"
    settings = ["rule=alf-lb,leaky,leaky-python", "source=normal", "n_exact=0"]
    words = [word for text in settings for word in ("--set", text)]
    arguments = ("run", "--config", write(tmp_path, TINY), "--out", out, *words, "--executor", "serial")
    done = balancesim(*arguments, site=site)
    assert done.returncode == 0, done.stderr
    assert "8 of 8 cells are done" in done.stdout
    note = "note: called in Python at every step, slower than the compiled loop: leaky-python\n"
    assert note in done.stderr
    rows = pq.read_table(out / "summary.parquet").to_pylist()
    found = {(row["rule_kind"], row["seed"]): row for row in rows}
    assert {kind for kind, _ in found} == {"alf-lb", "leaky", "leaky-python"}
    for seed in range(2):
        compiled, interpreted = found["leaky", seed], found["leaky-python", seed]
        for name in ("regret", "score_lost", "max_violation"):
            assert compiled[name] == interpreted[name]
        assert compiled["outcome"] == "horizon_reached"
        assert compiled["score_lost"] > 0.0
    assert "nothing to do" in balancesim(*arguments, "--quiet", site=site).stdout


def test_its_rules_are_listed_and_described(site: Path) -> None:
    listed = balancesim("list", "rules", site=site).stdout
    assert "causal, selection, in the compiled loop; from: docs/own_rule.md" in listed
    assert "causal, selection, in Python at every step (slower); from: docs/own_rule.md" in listed
    assert "leak=0.001, step_unit='score', every=1, lag=0, n_ranks=1" in listed
    described = balancesim("describe", "leaky", site=site).stdout
    assert described.startswith(
        "leaky (rule, causal, selection, in the compiled loop, own_rule.compiled.Leaky)"
    )


def test_without_the_package_there_is_no_such_rule(tmp_path: Path) -> None:
    settings = ["--config", write(tmp_path, TINY), "--set", "rule=leaky", "--dry-run"]
    done = balancesim("run", *settings, site=None)
    assert done.returncode == 2
    assert "unknown rule 'leaky'" in done.stderr


def test_the_page_shows_the_package() -> None:
    page = (ROOT / "docs" / "own_rule.md").read_text(encoding="utf-8")
    for name in FILES:
        assert (PACKAGE / name).read_text(encoding="utf-8").rstrip() in page, name


@pytest.mark.parametrize("name", ["own_rule/in_python.py", "own_rule/compiled.py"])
def test_a_rule_takes_twenty_lines(name: str) -> None:
    lines = (PACKAGE / name).read_text(encoding="utf-8").splitlines()
    code = [line for line in lines if line.strip() and "import " not in line and '"""' not in line]
    assert len(code) <= 20


@pytest.mark.parametrize("registered", [object, 3, type("Plain", (balancers.BatchRule,), {})])
def test_an_entry_point_that_is_no_rule_is_named(registered: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancesim.plugins.load_group", lambda _: {"broken": registered})
    with pytest.raises(
        ConfigurationError, match=r"entry point 'broken' .* must be a dataclass .* or PenaltyRule"
    ):
        balancers.registry()
