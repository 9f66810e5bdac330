"""``balancesim solve`` in process: the certificate, exit codes, and one clear error each."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import balancesim
from balancesim.cli import main
from balancesim.exact import SolveOutcome, SolveStatus

T, E, K = 60, 6, 2
SCORES = np.random.default_rng(12).standard_normal((T, E)) + np.linspace(0.0, 1.0, E)


def solve(*arguments: object) -> Result:
    result = CliRunner().invoke(main, ["solve", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result


def document(*arguments: object) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(solve(*arguments, "--json").stdout, parse_constant=refuse)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    np.save(tmp_path / "scores.npy", SCORES)
    return tmp_path / "scores.npy"


def test_the_certificate_is_printed(file: Path) -> None:
    result = solve(file, "--k", K)
    assert result.exit_code == 0
    assert result.stderr == ""
    exact = balancesim.solve(SCORES, k=K)
    for text in (
        f"{file}: 60 tokens, 6 experts, K = 2",
        "status      optimal: the certificate closes (dual: ",
        f"value       {exact.value:.15g}",
        f"dual value  {exact.dual_value:.15g}",
        "rows        0 tokens without K different experts",
        "columns     0 tokens outside the limits",
        "integral    yes",
        "slackness   0 tokens",
        "loads       20 to 20",
        "MaxVio      0; ",
        "balance     costs ",
        "s to solve",
    ):
        assert text in result.stdout
    table = result.stdout.splitlines()[-E:]
    assert [int(line.split()[0]) for line in table] == list(range(E))
    assert [int(line.split()[1]) for line in table] == [20] * E


def test_json(file: Path) -> None:
    found = document(file, "--k", K)
    exact = balancesim.solve(SCORES, k=K)
    top = balancesim.route(SCORES, k=K)
    assert found["status"] == "optimal"
    assert (found["n_tokens"], found["n_experts"], found["k"], found["method"]) == (T, E, K, "dual")
    assert found["value"] == pytest.approx(exact.value, rel=1e-12)
    assert abs(found["certificate"]["gap"]) < 1e-12
    assert found["loads"] == [20] * E
    assert found["unbalanced"]["loads"] == top.loads.tolist()
    assert found["unbalanced"]["value"] == pytest.approx(top.score)
    assert len(found["bias"]) == len(found["interval"]) == E
    for (low, high), price in zip(found["interval"], found["bias"], strict=True):
        assert (-math.inf if low is None else low) <= price <= (math.inf if high is None else high)


def test_many_experts_are_shortened_but_not_in_json(tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", np.random.default_rng(0).standard_normal((50, 40)))
    lines = solve(tmp_path / "wide.npy", "--k", 4).stdout.splitlines()
    assert [line.split()[0] for line in lines].count("...") == 1
    after = next(i for i, line in enumerate(lines) if line.startswith("expert"))
    assert len(lines) - after == 1 + 16 + 1
    assert len(document(tmp_path / "wide.npy", "--k", 4)["bias"]) == 40


@pytest.mark.parametrize("method", ["highs", "cvxpy"])
def test_the_witnesses_agree(file: Path, method: str) -> None:
    value = document(file, "--k", K)["value"]
    assert document(file, "--k", K, "--method", method)["value"] == pytest.approx(value, rel=1e-9)


def test_other_files(tmp_path: Path, file: Path) -> None:
    value = document(file, "--k", K)["value"]
    np.savez(tmp_path / "several.npz", a=SCORES, b=SCORES[:5])
    assert document(tmp_path / "several.npz", "--array", "a", "--k", K)["value"] == value
    np.savetxt(tmp_path / "scores.csv", SCORES, delimiter=",", header="a,b,c,d,e,f", comments="")
    assert document(tmp_path / "scores.csv", "--k", K)["value"] == pytest.approx(value, rel=1e-12)
    np.save(tmp_path / "single.npy", SCORES.astype(np.float32))
    assert "float32 scores, solved in float64" in solve(tmp_path / "single.npy", "--k", K).stdout


def test_capacities(tmp_path: Path, file: Path) -> None:
    loads = [10, 15, 20, 25, 30, 20]
    assert document(file, "--k", K, "--capacity", ",".join(map(str, loads)))["loads"] == loads
    np.save(tmp_path / "loads.npy", np.array(loads))
    assert document(file, "--k", K, "--capacity", tmp_path / "loads.npy")["loads"] == loads
    (tmp_path / "loads.csv").write_text("load\n" + "\n".join(map(str, loads)))
    assert document(file, "--k", K, "--capacity", tmp_path / "loads.csv")["loads"] == loads
    (tmp_path / "limits.csv").write_text("\n".join(["15,25"] * E))
    within = document(file, "--k", K, "--capacity", tmp_path / "limits.csv")
    assert 15 <= min(within["loads"]) <= max(within["loads"]) <= 25
    balanced, factor, free = (
        document(file, "--k", K, "--capacity", text) for text in ("balanced", "1.25", "6")
    )
    assert max(factor["loads"]) <= 25
    assert balanced["value"] < within["value"] <= factor["value"] < free["value"]
    assert free["loads"] == free["unbalanced"]["loads"]
    assert free["value"] == pytest.approx(free["unbalanced"]["value"])


def test_a_factor_is_not_rounded_up_by_its_own_rounding(tmp_path: Path) -> None:
    scores = np.random.default_rng(1).standard_normal((30, 3))
    scores[:, 0] += 5.0
    np.save(tmp_path / "scores.npy", scores)
    # 1.1 * 10 is 11.000000000000002.
    for factor, most in (("1.1", 11), ("1.11", 12)):
        assert document(tmp_path / "scores.npy", "--k", 1, "--capacity", factor)["loads"][0] == most


def test_out_and_warm_start(tmp_path: Path, file: Path) -> None:
    out = tmp_path / "solution.npz"
    assert solve(file, "--k", K, "--out", out).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.npy", "solution.npz"]
    with np.load(out) as found:
        rows = np.arange(T)[:, None]
        assert SCORES[rows, found["experts"]].sum() == pytest.approx(float(found["value"]))
        assert (np.bincount(found["experts"].ravel(), minlength=E) == found["loads"]).all()
        assert found["interval"].shape == (E, 2)
        np.save(tmp_path / "bias.npy", found["bias"])
        value = float(found["value"])
    for start in (out, tmp_path / "bias.npy"):
        assert document(file, "--k", K, "--warm-start", start)["value"] == pytest.approx(value, rel=1e-12)


def test_what_is_not_proven_exits_with_1(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from balancesim.exact import Certificate, Effort, ExactSolution

    status = SolveStatus(SolveOutcome.INTERRUPTED, "interrupted before an optimum was found")
    nothing = ExactSolution(
        None, None, math.nan, None, None, math.inf, math.inf, Certificate.unsolved(), status, "dual",
        Effort(0.1, 0.2, 3, 4),
    )  # fmt: skip
    monkeypatch.setattr("balancesim.exact.solve", lambda *_, **__: nothing)
    result = solve(file, "--k", K, "--time-limit", 0.3, "--out", tmp_path / "solution.npz")
    assert result.exit_code == 1
    assert "status      interrupted before an optimum was found" in result.stdout
    assert "there is no proven optimum" in result.stderr
    assert not (tmp_path / "solution.npz").exists()
    found = document(file, "--k", K)
    assert (found["status"], found["value"], found["bias"]) == ("interrupted", None, None)
    assert found["certificate"]["gap"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.npy", "--k", 2], "which does not exist"),
        (["scores.npy"], "Missing option '--k'"),
        (["scores.npy", "--k", 0], "0 is not in the range x>=1"),
        (["scores.npy", "--k", 6], "`k` must satisfy 1 <= k < n_experts = 6, got 6"),
        (["nan.npy", "--k", 2], "got nan at token 3, expert 1"),
        (["flat.npy", "--k", 2], "`scores`"),
        (["masked.npy", "--k", 2], "expert 4"),
        (["bad.csv", "--k", 1], "line 2: column 2 must be a number, got 'x'"),
        (["several.npz", "--k", 2], "`array` must name one of the arrays in"),
        (["scores.npy", "--k", 2, "--capacity", "equal"], "must be balanced, a factor, loads N,N,..."),
        (["scores.npy", "--k", 2, "--capacity", "0.9"], "a factor must be at least 1, got 0.9"),
        (["scores.npy", "--k", 2, "--capacity", "inf"], "a factor must be at least 1, got inf"),
        (["scores.npy", "--k", 2, "--capacity", "20,x,20"], "entry 1 must be a number, got '20,x,20'"),
        (["scores.npy", "--k", 2, "--capacity", "20,20,20"], "`capacity` must be integers, (E,) = (6,)"),
        (["scores.npy", "--k", 2, "--capacity", "20,20,20,20,20,21"], "must sum to T K = 120, got 121"),
        (["scores.npy", "--k", 2, "--capacity", "-1,20,20,20,20,41"], "got -1 at expert 0"),
        (["scores.npy", "--k", 2, "--capacity", "61,20,20,10,9,0"], "got 61 at expert 0"),
        (["scores.npy", "--k", 2, "--capacity", "20.5,20,20,20,20,19.5"], "loads must be whole numbers"),
        (["scores.npy", "--k", 2, "--capacity", "scores.npy"], "must be whole numbers, which 'scores.npy'"),
        (["scores.npy", "--k", 2, "--warm-start", "flat.npy"], "`bias`"),
        (["scores.npy", "--k", 2, "--warm-start", "no.npy"], "`warm-start` names the file 'no.npy'"),
        (["scores.npy", "--k", 2, "--warm-start", "several.npz"], "`array` must name"),
        (["scores.npy", "--k", 2, "--time-limit", "-1"], "`time_limit`"),
        (["scores.npy", "--k", 2, "--out", "out.npy"], "--out must name an .npz file, got 'out.npy'"),
        (["scores.npy", "--k", 2, "--out", "no/out.npz"], "there is no folder 'no'; make it first"),
        (["scores.npy", "--k", 2, "--method", "magic"], "'magic' is not one of"),
    ],
)  # fmt: skip
def test_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("scores.npy", SCORES)
    np.save("nan.npy", np.where(np.arange(T * E).reshape(T, E) == 3 * E + 1, np.nan, SCORES))
    np.save("masked.npy", np.where(np.arange(E) == 4, -np.inf, SCORES))
    np.save("flat.npy", np.zeros(4))
    np.savez("several.npz", a=SCORES, b=SCORES)
    Path("bad.csv").write_text("1,2\n3,x\n")
    result = solve(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_an_interrupt_exits_with_130(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("balancesim.exact.solve", interrupted)
    result = solve(file, "--k", K)
    assert result.exit_code == 130
    assert result.stderr == "interrupted\n"
