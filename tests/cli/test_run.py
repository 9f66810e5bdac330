"""``balancesim run`` in process: output, exit codes, one clear error each."""

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from balancesim.cli import main
from balancesim.cli.run import run_command
from balancesim.sweep.executors import EXECUTORS
from tests.sweep.tiny import N_CELLS, TINY, parts, summary_bytes, write


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, ["run", *map(str, arguments)], catch_exceptions=True)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with an experiment file and its finished run."""
    folder = tmp_path_factory.mktemp("cli")
    result = run("--config", write(folder), "--out", folder / "run", "--executor", "serial")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert "Pareto (index 0.8)" in result.stdout
    assert result.stdout.rstrip().endswith(
        f"{N_CELLS} of {N_CELLS} cells are done; table and figures are in {folder / 'run'}"
    )
    return folder


def test_a_run_leaves_what_it_promises(finished: Path) -> None:
    names = sorted(path.name for path in (finished / "run").iterdir())
    assert names == ["cells", "config.toml", "figures", "manifest.json", "summary.parquet"]
    figures = [path.name for path in (finished / "run" / "figures").iterdir()]
    listed = json.loads((finished / "run" / "manifest.json").read_text(encoding="utf-8"))["figures"]
    assert sorted(figures) == listed
    assert listed


def test_the_same_line_again_does_nothing_and_says_so(finished: Path) -> None:
    result = run("--config", finished / "tiny.toml", "--out", finished / "run")
    assert result.exit_code == 0
    assert result.stdout == f"nothing to do: {N_CELLS} of {N_CELLS} cells are done in {finished / 'run'}\n"


def test_missing_figures_are_drawn_again(finished: Path) -> None:
    figure = next((finished / "run" / "figures").iterdir())
    figure.unlink()
    result = run("--config", finished / "tiny.toml", "--out", finished / "run")
    assert result.exit_code == 0
    assert "nothing to do" not in result.stdout
    assert figure.exists()


def test_the_resolved_configuration_runs_itself(finished: Path, tmp_path: Path) -> None:
    result = run("--config", finished / "run" / "config.toml", "--out", tmp_path / "again", "--quiet")
    assert result.exit_code == 0
    assert summary_bytes(tmp_path / "again") == summary_bytes(finished / "run")


def test_the_issue_s_dry_run_lists_24_cells(tmp_path: Path) -> None:
    arguments = ["source=pareto", "source.tail_index=0.8,1.2,2.5", "rule.schedule=sign,harmonic"]
    settings = [word for text in [*arguments, "rule.step_size=1"] for word in ("--set", text)]
    result = run("regret-sweep", *settings, "--seeds", "0:4", "--dry-run", "--out", tmp_path / "new")
    assert result.exit_code == 0
    *cells, last = result.stdout.splitlines()
    assert len(set(cells)) == 24
    assert last == f"24 cells: 0 done, 24 to do in {tmp_path / 'new'}"
    assert result.stderr == "note: --set rule.schedule: leaves out none, which have no such key\n"
    assert not (tmp_path / "new").exists()


def test_a_dry_run_counts_what_is_done(finished: Path) -> None:
    arguments = ("--config", finished / "tiny.toml", "--out", finished / "run", "--seeds", "0:3", "--dry-run")
    assert run(*arguments).stdout.splitlines()[-1] == f"18 cells: 12 done, 6 to do in {finished / 'run'}"
    document = json.loads(run(*arguments, "--json").stdout)
    assert document["cells"] == {"requested": 18, "done": 12, "to_do": 6}
    assert [cell["state"] for cell in document["list"]].count("done") == 12
    assert "18 to do" in run(*arguments, "--fresh").stdout


def test_a_dry_run_in_another_s_directory_says_so(finished: Path) -> None:
    arguments = ("--set", "k=1", "--out", finished / "run", "--dry-run")
    result = run("--config", finished / "tiny.toml", *arguments)
    assert result.exit_code == 0
    assert "12 cells: 0 done, 12 to do" in result.stdout
    assert "holds another configuration: run.k (2 there, 1 here)" in result.stderr


def test_json_is_one_document(finished: Path, tmp_path: Path) -> None:
    for out, now in ((tmp_path / "new", N_CELLS), (finished / "run", 0)):
        result = run("--config", finished / "tiny.toml", "--out", out, "--json")
        assert result.exit_code == 0
        document = json.loads(result.stdout)
        assert document["experiment"] == "tiny"
        assert document["cells"] == {
            "requested": N_CELLS,
            "done_before": N_CELLS - now,
            "done_now": now,
            "failed": 0,
            "lost": 0,
        }
        assert len(document["groups"]) == 6
        assert document["figures"]


def test_nothing_is_written_on_stderr_without_a_terminal(finished: Path, tmp_path: Path) -> None:
    assert run("--config", finished / "tiny.toml", "--out", tmp_path / "new", "--jobs", 2).stderr == ""


def test_a_terminal_gets_a_bar(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # rich takes this for a terminal; NO_COLOR leaves the bar and takes its colours.
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    arguments = ("--config", finished / "tiny.toml", "--executor", "serial")
    result = run(*arguments, "--out", tmp_path / "new")
    assert "12/12" in result.stderr
    assert "\x1b[3" not in result.stderr
    assert run(*arguments, "--out", tmp_path / "quiet", "--quiet").stderr == ""


def test_quiet_says_no_notes(finished: Path, tmp_path: Path) -> None:
    arguments = ("--config", finished / "tiny.toml", "--set", "rule.schedule=sign", "--dry-run")
    assert run(*arguments, "--out", tmp_path / "x").stderr != ""
    assert run(*arguments, "--out", tmp_path / "x", "--quiet").stderr == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("regret-swep",), "unknown experiment 'regret-swep'; did you mean 'regret-sweep'?"),
        ((), "an experiment is needed: one of balance-race"),
        (("regret-sweep", "--set", "horizn=3"), "did you mean 'horizon'?"),
        (("regret-sweep", "--set", "source=paretto"), "did you mean 'pareto'?"),
        (("regret-sweep", "--seeds", "x"), "--seeds is FIRST:END"),
        (("regret-sweep", "--jobs", "0"), "'--jobs'"),
        (("regret-sweep", "--executor", "dask"), "'--executor'"),
        (("--config", "nowhere.toml"), "cannot read the experiment file nowhere.toml"),
        (("regret-sweep", "--set", "source.scale=0"), "--set source.scale: `scale` must be"),
        (("regret-sweep", "--set", "rule.step_size=-1"), "--set rule.step_size: `step_size` must be"),
        (("regret-sweep", "--set", "k=16"), "k must be below the source's number of experts"),
        (("regret-sweep", "--no-such-option"), "No such option"),
    ],
)
def test_usage_errors_exit_with_2(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    result = run(*arguments, "--out", tmp_path / "new")
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "new").exists()


def test_an_unknown_report_stops_before_any_cell(tmp_path: Path) -> None:
    path = write(tmp_path, 'report = "rase"\n' + TINY)
    result = run("--config", path, "--out", tmp_path / "new")
    assert result.exit_code == 2
    assert "report: unknown report 'rase'; did you mean 'race'?" in result.stderr
    assert not (tmp_path / "new").exists()


def test_a_trade_off_that_sweeps_nothing_stops_before_any_cell(tmp_path: Path) -> None:
    path = write(tmp_path, 'report = "trade-off"\n' + TINY)
    result = run("--config", path, "--out", tmp_path / "new")
    assert result.exit_code == 2
    assert 'report: "trade-off" draws against a key of the rules' in result.stderr
    assert not (tmp_path / "new").exists()


def test_another_report_of_a_finished_run_is_drawn(finished: Path, tmp_path: Path) -> None:
    run("--config", finished / "tiny.toml", "--out", tmp_path / "run", "--quiet")
    before = summary_bytes(tmp_path / "run")
    path = write(tmp_path, 'report = "race"\n' + TINY, "race.toml")
    result = run("--config", path, "--out", tmp_path / "run", "--quiet")
    assert result.exit_code == 0
    assert "causal rules: 50 steps" in result.stdout
    assert summary_bytes(tmp_path / "run") == before
    assert run("--config", path, "--out", tmp_path / "run").stdout.startswith("nothing to do")
    shown = CliRunner().invoke(main, ["show", str(tmp_path / "run")])
    assert "causal rules: 50 steps" in shown.stdout
    document = json.loads(run("--config", path, "--out", tmp_path / "run", "--json").stdout)
    assert {row["family"] for row in document["groups"]} >= {"none", "alf-lb sign"}


def test_a_toml_syntax_error_names_the_line(tmp_path: Path) -> None:
    result = run("--config", write(tmp_path, "[run]\nk = \n"), "--out", tmp_path / "new")
    assert result.exit_code == 2
    assert "tiny.toml is not valid TOML" in result.stderr
    assert "at line 2" in result.stderr


def test_directories_that_cannot_be_used(finished: Path) -> None:
    config = finished / "tiny.toml"
    result = run("--config", config, "--out", config)
    assert result.exit_code == 2
    assert "tiny.toml is a file, not a directory" in result.stderr
    result = run("--config", config, "--set", "horizon=51", "--out", finished / "run")
    assert result.exit_code == 2
    assert "holds another configuration: run.horizon (50 there, 51 here)" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_full_disk_is_one_error_and_keeps_what_is_done(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table = pq.write_table
    arguments = ("--config", finished / "tiny.toml", "--out", tmp_path / "new", "--executor", "serial")

    def full(table: Any, path: Path, **options: Any) -> None:
        if len(parts(tmp_path / "new")) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_table(table, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", full)
        result = run(*arguments)
    assert result.exit_code == 2
    assert "is full; what is finished is kept" in result.stderr
    assert f"{N_CELLS} of {N_CELLS} cells are done" in run(*arguments).stdout
    assert summary_bytes(tmp_path / "new") == summary_bytes(finished / "run")


def test_failed_cells_exit_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from balancesim.sweep import work

    perform = work.perform

    def breaks(assignment: Any, progress: Any) -> None:
        if assignment.task.seed == 1:
            raise ZeroDivisionError("no such price")
        perform(assignment, progress)

    monkeypatch.setattr("balancesim.sweep.executors.perform", breaks)
    arguments = ("--config", write(tmp_path), "--out", tmp_path / "run", "--executor", "serial")
    result = run(*arguments)
    assert result.exit_code == 1
    assert "failed: Normal, seed 1: ZeroDivisionError: no such price" in result.stderr
    assert "6 of 12 cells are not done (6 failed, 0 lost); try them again with:" in result.stderr
    assert "6 of 12 cells are done" in result.stdout
    assert run(*arguments, "--json").exit_code == 1
    monkeypatch.setattr("balancesim.sweep.executors.perform", perform)
    assert run(*arguments).exit_code == 0


def test_nothing_but_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("balancesim.sweep.executors.perform", breaks)
    arguments = ("--config", write(tmp_path), "--executor", "serial", "--fail-fast")
    result = run(*arguments, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "12 of 12 cells are not done (3 failed, 0 lost)" in result.stderr
    assert json.loads(run(*arguments, "--out", tmp_path / "run", "--json").stdout)["groups"] == []


def test_ctrl_c_exits_with_130_and_the_command_that_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from balancesim.sweep import work

    perform = work.perform

    def interrupted(assignment: Any, progress: Any) -> None:
        if parts(tmp_path / "my run"):
            raise KeyboardInterrupt
        perform(assignment, progress)

    config, out = write(tmp_path), tmp_path / "my run"
    monkeypatch.setattr("balancesim.sweep.executors.perform", interrupted)
    arguments = ("--config", config, "--set", "k=1,2", "--seeds", "0:2", "--out", out, "--executor", "serial")
    result = run(*arguments, "--fresh")
    assert result.exit_code == 130
    assert result.stdout == ""
    assert f"interrupted: 3 of 24 cells are done and kept in {out}" in result.stderr
    assert result.stderr.splitlines()[-1].strip() == (
        f"balancesim run --config {config} --set k=1,2 --seeds 0:2 --executor serial --out '{out}'"
    )


def test_the_choices_are_the_executors() -> None:
    (option,) = [param for param in run_command.params if param.name == "executor"]
    assert tuple(option.type.choices) == EXECUTORS  # type: ignore[attr-defined]


def test_exact_beside_the_sweep_s_rules(tmp_path: Path) -> None:
    arguments = ("regret-sweep", "--set", "rule=none,exact", "--set", "source=pareto", "--set", "horizon=20")
    result = run(*arguments, "--seeds", "0:2", "--out", tmp_path / "run", "--executor", "serial")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("current-batch rules: they see the batch they assign") == 2
    document = json.loads(run(*arguments, "--seeds", "0:2", "--out", tmp_path / "run", "--json").stdout)
    assert [group["causal"] for group in document["groups"]] == [True, False] * 2
    assert all(group["kept_of_exact"] >= 0.99 for group in document["groups"])


def test_a_name_and_a_file_go_together(tmp_path: Path) -> None:
    top = write(tmp_path, "[[source]]\nkind = 'normal'\n[[rule]]\nkind = 'none'\n")
    result = run("regret-sweep", "--config", top, "--dry-run", "--out", tmp_path / "new")
    assert result.stdout.splitlines()[-1].startswith("16 cells: 0 done")


def test_the_default_directory_is_out_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, TINY)
    assert run("--config", "tiny.toml", "--dry-run").stdout.endswith("to do in out/tiny\n")


def test_groups_and_delays_from_the_command_line(tmp_path: Path) -> None:
    settings = ["n_groups=3", "n_chosen_groups=3,2", "n_exact=0", "rule.every=1,4", "rule.n_ranks=1,2"]
    words = [word for text in ["source=normal", *settings] for word in ("--set", text)]
    arguments = ("--config", write(tmp_path), *words, "--out", tmp_path / "run")
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == "note: --set rule.every: leaves out none, which have no such key\n"
    assert "E=6, K=2, T=16, N=50, 2 of 3 groups" in result.stdout
    rows = pq.read_table(tmp_path / "run" / "summary.parquet").to_pylist()
    assert len(rows) == 2 * 2 * 4 * 2  # limits, schedules, delays, seeds
    for row in rows:
        assert ("every=4" in row["rule"]) == (row["every"] == 4)
        assert ("n_ranks=2" in row["rule"]) == (row["n_ranks"] == 2)
        assert (row["n_groups"], row["group_score"], row["lag"]) == (3, "top2", 0)
        # A limit that allows every group is none.
        assert math.isnan(row["regret"]) == (row["n_chosen_groups"] == 2)
        assert row["max_violation"] > 0.0
    # No figure where there is no regret to show.
    figures = sorted(path.name for path in (tmp_path / "run" / "figures").glob("source-*.png"))
    assert figures == ["source-00-normal-3-of-3-groups-top2.png"]
    groups = json.loads(run(*arguments, "--json").stdout)["groups"]
    for group in groups:
        plain = (group["every"], group["n_ranks"], group["n_chosen_groups"]) == (1, 1, 3)
        assert (group["bound"] is not None) == plain
        if group["n_chosen_groups"] == 2:
            assert group["verdict"] == "not fitted"
            assert "regret is not defined" in group["verdict_reason"]
