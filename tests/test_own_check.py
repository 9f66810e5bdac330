"""docs/own_check.md: what it shows is installed as a third party's package, and passes."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def blocks(language: str) -> list[str]:
    page = (ROOT / "docs" / "own_check.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_the_page_s_check_runs(tmp_path: Path) -> None:
    (code,), (table,) = blocks("python"), blocks("toml")
    project = tomllib.loads(table)["project"]
    ((group, points),) = project["entry-points"].items()
    info = tmp_path / "own_check-0.1.dist-info"
    info.mkdir()
    (tmp_path / "own_check.py").write_text(code, encoding="utf-8")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0.1\n")
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "balancesim.cli", "check", "x1", "--json", "--out", str(tmp_path / "out")],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["statements"]
    assert (found["label"], found["verdict"], found["controls_fail"]) == ("X1", "holds", True)
    assert len(found["cases"]) == 6
