"""The other commands, in process."""

import json
import re
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from balancesim import __version__, balancers
from balancesim.cli import main
from balancesim.sweep.session import run_sweep
from balancesim.sweep.store import RunDirectory
from tests.sweep.tiny import TINY, Silent, configuration, parts


def call(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def complete(*words: str) -> list[str]:
    *before, incomplete = words
    completer = ShellComplete(main, {}, "balancesim", "_BALANCESIM_COMPLETE")
    return [item.value for item in completer.get_completions(before, incomplete)]


def test_help_and_version() -> None:
    assert "regret" not in call("--help").stdout
    for name in ("run", "solve", "calibrate", "list", "describe", "show", "doctor", "completion"):
        assert name in call("--help").stdout
        assert call(name, "--help").exit_code == 0
    assert call("--version").stdout == f"balancesim, version {__version__}\n"


def test_an_unknown_command_names_the_nearest() -> None:
    result = call("rum")
    assert result.exit_code == 2
    assert "unknown command 'rum'; did you mean 'run'?" in result.stderr


def test_list() -> None:
    result = call("list")
    for title in ("experiments:", "rules:", "sources:", "checks:"):
        assert title in result.stdout
    assert "student-t" in call("list", "sources").stdout
    document = json.loads(call("list", "experiments", "--json").stdout)
    assert document["experiments"]["regret-sweep"].startswith("How the regret of ALF-LB grows")
    assert call("list", "sauces").exit_code == 2


def test_describe_an_experiment() -> None:
    result = call("describe", "regret-sweep")
    assert "regret_sweep.toml" in result.stdout
    assert "1456 cells" in result.stdout
    assert "report: regret\n" in result.stdout
    assert "report: race\n" in call("describe", "balance-race").stdout
    assert json.loads(call("describe", "regret-sweep", "--json").stdout)["cells"] == 1456


def test_describe_a_source_and_a_rule() -> None:
    result = call("describe", "pareto")
    assert "tail_index = 1.5  (float)" in result.stdout
    assert "n_experts = required" in result.stdout
    document = json.loads(call("describe", "alf-lb", "--json").stdout)
    assert (document["is"], document["timing"]) == ("rule", "causal")
    own = {"schedule", "step_size", "step_unit", "recentre", "radius", "delay"}
    assert set(document["keys"]) == {*own, "every", "lag", "n_ranks"}
    assert document["runs"] == "in the compiled loop"
    text = call("describe", "alf-lb").stdout
    assert "\nfrom: arXiv:2408.15664; " in text
    assert "\n  n_ranks = 1  (int)\n" in text
    assert "\n  radius = none  (float | none)\n" in text
    assert text.rstrip().endswith("see `balancesim.balancers.Delayed`.")


def test_list_rules() -> None:
    """Every rule with its parameters and source; what there is to say of it is in the document too."""
    text = call("list", "rules").stdout
    assert re.search(r"^alf-lb +The rule of Wang et al\. \(2024\)", text, re.MULTILINE)
    assert re.search(r"\n +causal, selection, in the compiled loop; from: arXiv:2408\.15664", text)
    assert re.search(r"\n +keys: schedule='harmonic', step_size=1\.0, ", text)
    assert "every=1, lag=0, n_ranks=1\n" in text
    assert "current-batch, assigns the batch, in Python at every step (slower); from: ours" in text
    rules = json.loads(call("list", "rules", "--json").stdout)["rules"]
    assert {name for name, rule in rules.items() if rule["acts"] == "gradient"} == {
        "switch-loss",
        "gshard-loss",
    }
    assert rules["phi-balance"]["acts"] == "selection or gradient"
    assert rules["alf-lb"]["acts"] == "selection"
    assert set(rules) == set(balancers.registry())
    for name, rule in rules.items():
        assert rule["text"], name
        assert rule["timing"] in {"causal", "current-batch"}, name
        assert rule["acts"] in {"selection", "gradient", "selection or gradient", "assigns the batch"}, name
        assert rule["runs"] in {"in the compiled loop", "in Python at every step (slower)"}, name
        assert rule["reference"], f"{name}: say in the class attribute `reference` where the rule comes from"
    for name in ("switch-loss", "gshard-loss", "phi-balance"):
        assert rules[name]["runs"] == "in the compiled loop"
    assert rules["alf-lb"]["keys"]["step_size"] == {"type": "float | 'auto'", "default": 1.0}
    assert rules["exact"]["keys"] == rules["none"]["keys"] == {}


def test_describe_exact() -> None:
    result = call("describe", "exact")
    assert result.stdout.startswith("exact (rule, current-batch, assigns the batch, in Python at every step")
    assert "the floor or the ceiling of T K / E" in result.stdout
    assert result.stdout.endswith("\nIt takes no keys.\n")
    assert json.loads(call("describe", "exact", "--json").stdout)["timing"] == "current-batch"


def test_describe_an_unknown_name() -> None:
    result = call("describe", "paretto")
    assert result.exit_code == 2
    assert "unknown name 'paretto'; did you mean 'pareto'?" in result.stderr


def test_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configuration(tmp_path, TINY)
    run = RunDirectory(tmp_path / "out" / "tiny")
    run_sweep(run, config, executor="serial", reporter=Silent())
    result = call("show", run.path)
    assert result.exit_code == 0
    assert "12 cells done\n" in result.stdout
    assert "Normal" in result.stdout
    document = json.loads(call("show", run.path, "--json").stdout)
    assert document["cells"] == {"done": 12, "failed": 0, "lost": 0, "to do": 0}
    assert document["configuration"] == config.document()
    parts(run.path)[0].unlink()
    monkeypatch.chdir(tmp_path)
    assert "9 cells done, 3 cells to do\n" in call("show", "tiny").stdout


def test_show_what_is_no_run(tmp_path: Path) -> None:
    assert call("show", tmp_path).exit_code == 2
    assert "it has no config.toml" in call("show", tmp_path).stderr
    assert "there is no run directory" in call("show", tmp_path / "nowhere").stderr


def test_doctor() -> None:
    result = call("doctor")
    assert result.exit_code == 0, result.stdout
    assert "numpy" in result.stdout
    document = json.loads(call("doctor", "--json").stdout)
    assert all(entry["ok"] for entry in document.values())


def test_doctor_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancesim.sweep.machine.version", lambda _: "not installed")
    result = call("doctor")
    assert result.exit_code == 1
    assert "FAIL  packages: not installed: balancesim" in result.stdout


def test_doctor_gpu_without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    result = call("doctor", "--gpu")
    assert result.exit_code == 3
    assert "FAIL  gpu: the backend 'cupy' needs CuPy, which is not installed" in result.stdout
    assert "FAIL  gpu self-test: not run" in result.stdout
    assert "pip install 'balancesim[cuda12]'" in result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # click asks bash for its version; there may be none here.
    monkeypatch.setattr("click.shell_completion.BashComplete._check_version", lambda *_: None)
    result = call("completion", shell)
    assert result.exit_code == 0
    assert "_BALANCESIM_COMPLETE" in result.stdout
    assert call("completion", "tcsh").exit_code == 2


def test_completion_knows_experiments_rules_sources_and_keys() -> None:
    assert complete("run", "reg") == ["regret-sweep"]
    assert {"regret-sweep", "pareto", "alf-lb"} <= set(complete("describe", ""))
    assert complete("run", "--set", "source.tail") == ["source.tail_index="]
    assert complete("run", "--set", "rule.step") == ["rule.step_size=", "rule.step_unit="]
    assert complete("run", "--set", "rule.ev") == ["rule.every="]
    assert complete("run", "--set", "rule.la") == ["rule.lag="]
    assert complete("run", "--set", "rule.n_r") == ["rule.n_ranks="]
    assert complete("run", "--set", "n_g") == ["n_groups="]
    assert complete("run", "--set", "hor") == ["horizon="]
    assert complete("run", "--set", "source=norm") == ["source=normal"]
    assert complete("run", "--set", "source=normal,par") == ["source=normal,pareto"]
    assert complete("run", "--set", "k=") == []
    assert complete("run", "--executor", "t") == ["thread"]
    assert complete("li") == ["list"]


def test_an_interrupt_anywhere_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("balancesim.sweep.experiment.experiment_files", interrupted)
    result = call("list", "experiments")
    assert result.exit_code == 130
    assert result.stderr == "interrupted\n"
