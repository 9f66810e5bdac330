"""``balancesim calibrate`` in process: the table, the experiment it writes, and one clear error each."""

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from balancesim import sources
from balancesim.cli import main
from balancesim.sources.calibration import calibrated
from balancesim.sweep.configuration import build_source, resolve
from balancesim.sweep.experiment import read_draft
from balancesim.sweep.labels import group_labels

QUICK = ("--tokens", 16_384)
MIXTRAL = ("expert-loads", "--k", 2, "--where", "model=mixtral")
TABLE = "layer,expert,count\n" + "".join(
    f"{layer},{expert},{count}\n"
    for layer, counts in (("top", (500, 300, 150, 50)), ("low", (250, 260, 240, 250)))
    for expert, count in enumerate(counts)
)


def invoke(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def calibrate(*arguments: object) -> Result:
    return invoke("calibrate", *arguments)


def document(*arguments: object) -> Any:
    return json.loads(calibrate(*arguments, "--json").stdout)


def test_the_table() -> None:
    result = calibrate(*MIXTRAL, "--where", "domain=c4,layer=first", *QUICK)
    assert result.exit_code == 0
    assert result.stderr == ""
    title, header, row, *_ = result.stdout.splitlines()
    assert title.rstrip() == "Normal, calibrated to 1 recordings"
    assert header.split()[:5] == ["model", "domain", "layer", "experts", "MaxVio"]
    assert row.split()[:5] == ["mixtral", "c4", "first", "8", "0.121"]
    assert "16384 tokens" in row


def test_json_gives_what_the_library_gives() -> None:
    found = document(
        *MIXTRAL, "--where", "domain=c4", *QUICK, "--family", "pareto", "--set", "tail_index=1.2"
    )
    assert [one["labels"]["layer"] for one in found["calibrations"]] == ["first", "middle", "last"]
    assert (found["family"], found["k"]) == ("pareto", 2)
    one = found["calibrations"][0]
    source = calibrated(sources.Pareto(n_experts=8, tail_index=1.2), one["loads"], k=2, n_tokens=16_384)
    assert one["offsets"] == list(source.offsets)
    assert one["source"] == "Pareto (index 1.2)"
    assert one["noise_of_tokens"] == 16_384
    assert one["rms_over_noise"] < 2.0
    assert sum(one["found_share"]) == pytest.approx(2.0)
    assert sum(one["recorded_share"]) == pytest.approx(2.0)


def test_the_experiment_it_writes_runs(tmp_path: Path) -> None:
    (tmp_path / "loads.csv").write_text(TABLE)
    out = tmp_path / "calibrated.toml"
    settings = ("--family", "student-t", "--set", "degrees=3", "--set", "transform=sigmoid")
    result = calibrate(tmp_path / "loads.csv", "--k", 1, *QUICK, *settings, "--out", out)
    assert result.exit_code == 0
    written = tomllib.loads(out.read_text(encoding="utf-8"))
    assert written["description"].splitlines()[1:] == ["source[0]: layer=top", "source[1]: layer=low"]
    first = resolve(read_draft(out)).groups[0]
    assert first.run.k == 1
    expected = sources.StudentT(n_experts=4, degrees=3, transform="sigmoid")
    assert build_source(first.source) == calibrated(expected, [500, 300, 150, 50], k=1, n_tokens=16_384)
    quick = ("--set", "horizon=20", "--set", "n_tokens=64", "--seeds", "0:1", "--executor", "serial")
    ran = invoke("run", "--config", out, *quick, "--out", tmp_path / "run", "--quiet", "--json")
    assert ran.exit_code == 0, ran.stderr
    assert json.loads(ran.stdout)["cells"]["done_now"] == 4
    onto = invoke("run", "regret-sweep", "--config", out, *quick, "--out", tmp_path / "other", "--dry-run")
    assert onto.exit_code == 0


def test_sources_of_one_family_are_told_apart_in_a_line(tmp_path: Path) -> None:
    out = tmp_path / "calibrated.toml"
    assert calibrate(*MIXTRAL, "--where", "domain=c4", *QUICK, "--out", out).exit_code == 0
    labels = group_labels(resolve(read_draft(out)))
    assert len(set(labels)) == 3
    assert max(map(len, labels)) < 90


def test_plain_loads(tmp_path: Path) -> None:
    np.save(tmp_path / "loads.npy", np.array([[0.4, 0.3, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25]]))
    found = document(tmp_path / "loads.npy", "--k", 2, *QUICK)
    assert [one["labels"] for one in found["calibrations"]] == [{"row": "0"}, {"row": "1"}]
    assert found["calibrations"][0]["recorded_share"] == pytest.approx([0.8, 0.6, 0.4, 0.2])
    (tmp_path / "loads.csv").write_text("40\n30\n20\n10\n")
    result = calibrate(tmp_path / "loads.csv", "--k", 2, *QUICK)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].split()[0] == "experts"


def test_counts_that_are_no_multiple_of_k_are_noted(tmp_path: Path) -> None:
    (tmp_path / "loads.csv").write_text("40\n30\n20\n11\n")
    result = calibrate(tmp_path / "loads.csv", "--k", 2, *QUICK)
    assert result.exit_code == 0
    assert result.stderr == "note: loads: counts sum to 101, no multiple of k = 2\n"


def test_a_miss_exits_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without calibration, the loads are equal ones.
    plain = sources.Normal(n_experts=8, offsets=(0.0,) * 8)
    monkeypatch.setattr("balancesim.sources.calibrated", lambda *_, **__: plain)
    result = calibrate(*MIXTRAL, "--where", "domain=arxiv,layer=last", *QUICK, "--json")
    assert result.exit_code == 1
    assert (
        "missed by more than 2 times the sampling noise: model=mixtral,domain=arxiv,layer=last"
        in result.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.csv", "--k", 2], "`loads` must be a file or a bundled name: unknown name 'no.csv'"),
        (["expert-loads"], "Missing option '--k'"),
        (["expert-loads", "--k", 0], "0 is not in the range x>=1"),
        (["expert-loads", "--k", 8], "model=mixtral, domain=arxiv, layer=first: `k` must satisfy 1 <= k < n"),
        (["loads.csv", "--k", 3], "layer=top: `loads` give expert 0 a share of 0.5 .* give k <= 2"),
        (["loads.csv", "--k", 4], "layer=top: `k` must satisfy 1 <= k < n_experts = 4"),
        (["loads.csv", "--k", 1, "--where", "layer"], "--where wants COLUMN=VALUE,..., got 'layer'"),
        (["loads.csv", "--k", 1, "--where", "layer=a", "--where", "layer=b"], "--where gives layer twice"),
        (["loads.csv", "--k", 1, "--where", "layr=top"], "unknown column .* 'layr'; did you mean 'layer'"),
        (["loads.csv", "--k", 1, "--where", "layer=mid"], "leaves nothing .* has layer: top, low"),
        (["loads.csv", "--k", 1, "--family", "norml"], "--family: unknown source 'norml'; did you mean"),
        (["loads.csv", "--k", 1, "--set", "tail=2"], "--set tail: unknown key of normal 'tail'"),
        (["loads.csv", "--k", 1, "--set", "scale"], "--set wants KEY=VALUE"),
        (["loads.csv", "--k", 1, "--set", "scale=1,2"], "--set takes one value for a key here"),
        (["loads.csv", "--k", 1, "--set", "scale=-1"], "--set scale: `scale` must be a positive"),
        (["loads.csv", "--k", 1, "--set", "offsets=iqr"], "--set offsets: the command finds it from the"),
        (["loads.csv", "--k", 1, "--family", "recorded"], "--family recorded .* needs scores"),
        (["loads.csv", "--k", 1, "--family", "drifting"], "layer=top: `source` must draw from one"),
        (["loads.csv", "--k", 1, "--tokens", 2], "`n_tokens` must be at least 4"),
        (["loads.csv", "--k", 1, "--out", "no/a.toml"], "there is no folder 'no'; make it first"),
        (["bad.csv", "--k", 1], "bad.csv, line 3: a load must be a number of at least 0, got 'x'"),
    ],
)  # fmt: skip
def test_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], message: str
) -> None:
    import re

    monkeypatch.chdir(tmp_path)
    Path("loads.csv").write_text(TABLE)
    Path("bad.csv").write_text("expert,count\n0,1\n1,x\n")
    result = calibrate(*arguments)
    assert result.exit_code == 2
    assert re.search(message, " ".join(result.stderr.split()))
    assert result.stdout == ""
