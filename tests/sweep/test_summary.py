import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from balancesim import simulate, sources, theory
from balancesim.balancers import AlfLB, NoBalance
from balancesim.errors import RunDirectoryError
from balancesim.sweep import group_records, group_summary, load_summary, load_trajectories
from balancesim.sweep.cells import tasks_of
from balancesim.sweep.store import RunDirectory
from balancesim.sweep.summary import figures_are_current, record_figures
from tests.sweep.tiny import N_CELLS, TINY, configuration, parts, sweep

RULES = ("no balancing", "sign x1", "harmonic x1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("summary")
    sweep(folder / "run", configuration(folder, TINY.replace("0:2", "0:4")))
    return RunDirectory(folder / "run")


def test_one_row_a_cell_in_the_order_of_the_experiment(run: RunDirectory, tmp_path: Path) -> None:
    frame = load_summary(run)
    assert len(frame) == 2 * N_CELLS
    assert list(frame["group"]) == [0] * N_CELLS + [1] * N_CELLS
    assert list(frame["rule"]) == [rule for _ in range(2) for rule in RULES for _ in range(4)]
    assert list(frame["seed"]) == [0, 1, 2, 3] * 6
    config = configuration(tmp_path, TINY.replace("0:2", "0:4"))
    assert set(frame["cell"]) == {cell.key for task in tasks_of(config) for cell in task.cells}


def test_a_cell_is_what_simulate_gives(run: RunDirectory) -> None:
    source = sources.Pareto(n_experts=6, tail_index=0.8, offsets="iqr", seed=2)
    step = 1.0 / theory.modulus(source, 2).value
    sign = AlfLB(schedule="sign", step_size=0.01 * theory.boundary_spread(source, 2))
    rules = [NoBalance(), sign, AlfLB(schedule="harmonic", step_size=step)]
    results = simulate(rules, source, n_tokens=16, k=2, horizon=50, n_records=10)
    frame = load_summary(run)
    frame = frame[(frame["group"] == 1) & (frame["seed"] == 2)].reset_index(drop=True)
    curves = load_trajectories(run, ["cell", "step", "regret", "loads", "bias"])
    for row, result, rule in zip(frame.itertuples(), results, rules, strict=True):
        assert row.regret == result.regret[-1]
        assert row.step_size == pytest.approx(getattr(rule, "step_size", math.nan), nan_ok=True)
        assert row.score_kept == result.score_kept[-1]
        assert row.causal
        assert row.n_exact == result.exact_steps.size == 8
        assert row.kept_of_exact == result.kept_of_exact
        assert row.score_over_exact == result.score_over_exact.mean()
        assert row.exact_reason == ""
        own = curves[curves["cell"] == row.cell]
        np.testing.assert_array_equal(own["step"], result.steps)
        np.testing.assert_array_equal(own["regret"], result.regret)
        np.testing.assert_array_equal(np.stack(list(own["loads"])), result.loads)
        np.testing.assert_array_equal(np.stack(list(own["bias"])), result.bias)


def test_the_window_is_the_last_tenth_in_whole_records(run: RunDirectory) -> None:
    frame = load_summary(run)
    curves = load_trajectories(run, ["cell", "step", "mean_max_violation", "window_loads"])
    row = frame.iloc[0]
    own = curves[curves["cell"] == row["cell"]]
    steps = own["step"].to_numpy()
    last_before = steps[steps <= 0.9 * steps[-1]][-1]
    inside = steps > last_before
    assert row["window_steps"] == steps[-1] - last_before >= 5
    lengths = np.diff(steps, prepend=0)[inside]
    mean = np.average(own["mean_max_violation"].to_numpy()[inside], weights=lengths)
    assert row["max_violation"] == pytest.approx(mean, rel=1e-12)
    loads = np.stack(list(own["window_loads"]))[inside].sum(axis=0)
    assert loads.sum() == row["window_steps"] * 16 * 2
    assert row["window_max_violation"] == pytest.approx(loads.max() / loads.mean() - 1.0, rel=1e-12)
    assert row["dead_experts"] == (loads == 0).sum()
    assert row["max_violation_floor"] == theory.max_violation_floor(16, 6, 2).value
    assert (
        row["window_max_violation_floor"] == theory.max_violation_floor(16 * row["window_steps"], 6, 2).value
    )


def test_groups_average_over_seeds(run: RunDirectory) -> None:
    cells, groups = load_summary(run), group_summary(run)
    assert list(groups["rule"]) == [*RULES, *RULES]
    assert set(groups["reference"]) == {"harmonic x1"}
    assert set(groups["n_seeds"]) == {4}
    row = groups.iloc[1]
    own = cells[(cells["group"] == 0) & (cells["rule"] == "sign x1")]["regret"].to_numpy()
    other = cells[(cells["group"] == 0) & (cells["rule"] == "harmonic x1")]["regret"].to_numpy()
    for name, values in (("regret", own), ("difference", own - other)):
        interval = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
        found = row[name], row[f"{name}_low"], row[f"{name}_high"]
        assert found == pytest.approx((values.mean(), *interval), rel=1e-10)
    # Common random numbers: the paired interval is narrower than the two intervals together.
    assert row["difference_high"] - row["difference_low"] < 2 * (stats.sem(own) + stats.sem(other)) * 3.182


def test_groups_hold_the_theory_beside_the_fit(run: RunDirectory) -> None:
    groups = group_summary(run)
    steps = load_trajectories(run, ["cell", "step", "regret"])
    for _, row in groups.iterrows():
        assert row["bound"] == theory.regret_bound(modulus=row["modulus"], k=2, n_experts=6, horizon=50)
        harmonic = row["schedule"] == "harmonic"
        assert math.isnan(row["predicted_exponent"])
        assert math.isfinite(row["predicted_slope"]) == harmonic
        if harmonic:
            assert row["mu_times_step"] == pytest.approx(1.0, rel=1e-12)
            exact = theory.sharp_slope(modulus=row["modulus"], k=2, n_experts=6, n_tokens=16)
            assert row["predicted_slope"] == pytest.approx(exact, rel=1e-12)
    cells = load_summary(run)
    keys = cells[(cells["group"] == 1) & (cells["rule"] == "harmonic x1")]["cell"]
    curves = [steps[steps["cell"] == key] for key in keys]
    fit = theory.fit_growth(curves[0]["step"].to_numpy(), np.stack([curve["regret"] for curve in curves]))
    row = groups.iloc[5]
    assert (row["slope"], row["slope_low"], row["slope_high"]) == fit.slope[:3]
    assert (row["exponent"], row["verdict"]) == (fit.exponent.value, fit.verdict)


def test_too_short_steps_get_the_exponent_of_s8(tmp_path: Path) -> None:
    sweep(tmp_path / "run", configuration(tmp_path, TINY.replace("step_size = 1", "step_size = 0.3")))
    groups = group_summary(RunDirectory(tmp_path / "run"))
    row = groups[groups["schedule"] == "harmonic"].iloc[0]
    assert row["predicted_exponent"] == pytest.approx(0.4, rel=1e-9)
    assert math.isnan(row["predicted_slope"])


def test_runs_that_end_early_are_counted_and_left_out(tmp_path: Path) -> None:
    text = TINY.replace("step_size = 1", "step_size = 1e38").replace('"default"', '"score"')
    outcome, _ = sweep(tmp_path / "run", configuration(tmp_path, text))
    assert outcome.failures == {}
    groups = group_summary(RunDirectory(tmp_path / "run"))
    assert list(groups["n_early"][:3]) == [0, 2, 2]
    early = groups.iloc[1]
    assert "bias became non-finite" in early["reason"]
    assert math.isnan(early["regret"])
    assert early["verdict"] == "inconclusive"
    assert math.isnan(groups.iloc[0]["difference"])


def test_current_batch_rules_are_kept_apart(tmp_path: Path) -> None:
    text = TINY.replace("0:2", "0:4") + '\n[[rule]]\nkind = "exact"\n'
    sweep(tmp_path / "run", configuration(tmp_path, text))
    groups = group_summary(RunDirectory(tmp_path / "run"))
    assert list(groups["causal"]) == [True, True, True, False] * 2
    exact = groups[~groups["causal"]]
    # No difference from a causal rule, no growth: nothing that ranks it with the others.
    assert exact["difference"].isna().all()
    assert exact["exponent"].isna().all()
    assert set(exact["verdict"]) == {"not fitted"}
    assert (exact["regret"] < 0.0).all()
    assert exact["kept_of_exact"].to_numpy() == pytest.approx(1.0, abs=1e-9)
    assert exact["score_over_exact"].to_numpy() == pytest.approx(0.0, abs=1e-9)
    assert (groups["kept_of_exact_high"] >= groups["kept_of_exact"]).all()
    # The first rule, of the reference's kind: compared with the reference, which is causal.
    assert groups["difference"].notna().sum() == 6


def test_the_drop_rate_is_that_of_the_last_tenth(tmp_path: Path) -> None:
    text = TINY + '\n[[rule]]\nkind = "capacity-drop"\nfactor = 0.75\n'
    sweep(tmp_path / "run", configuration(tmp_path, text))
    run = RunDirectory(tmp_path / "run")
    frame = load_summary(run)
    assert (frame["drop_rate"] > 0.0).tolist() == (frame["rule_kind"] == "capacity-drop").tolist()
    row = frame[frame["rule_kind"] == "capacity-drop"].iloc[0]
    curves = load_trajectories(run)
    own = curves[curves["cell"] == row["cell"]]
    steps = own["step"].to_numpy()
    inside = steps > row["final_step"] - row["window_steps"]
    mean = np.average(own["drop_rate"].to_numpy()[inside], weights=np.diff(steps, prepend=0)[inside])
    assert row["drop_rate"] == pytest.approx(mean, rel=1e-12)
    # MaxVio is against T K / E = 16/3, whatever is dropped: no load above 4.
    assert -0.25 - 1e-12 <= row["window_max_violation"] <= 4 / (16 / 3) - 1.0 + 1e-12
    assert row["kept_of_exact"] != row["kept_of_exact"]
    groups = group_summary(run)
    assert groups[groups["rule_kind"] == "capacity-drop"]["drop_rate"].iloc[0] > 0.25 - 1e-12


def test_n_exact_zero_leaves_the_column_empty(tmp_path: Path) -> None:
    sweep(
        tmp_path / "run",
        configuration(tmp_path, TINY.replace("n_records = 10", "n_records = 10\nn_exact = 0")),
    )
    frame = load_summary(RunDirectory(tmp_path / "run"))
    assert (frame["n_exact"] == 0).all()
    assert frame[["kept_of_exact", "score_over_exact"]].isna().all(axis=None)


def test_a_cell_that_ends_before_its_first_record(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((64, 6))
    rows[:, 5] = -np.inf
    np.save(tmp_path / "rows.npy", rows)
    source = f'[[source]]\nkind = "recorded"\nscores = "{(tmp_path / "rows.npy").as_posix()}"\n'
    text = f"[run]\nn_tokens = 16\nk = 2\nhorizon = 3\nseeds = 0\n{source}"
    text += '[[rule]]\nkind = "none"\n[[rule]]\nkind = "exact"\n'
    outcome, _ = sweep(tmp_path / "run", configuration(tmp_path, text))
    assert outcome.failures == {}
    none, exact = load_summary(RunDirectory(tmp_path / "run")).to_dict("records")
    assert none["outcome"] == "horizon_reached"
    assert none["exact_reason"].startswith("after step 1: `scores` leave expert 5")
    assert (exact["outcome"], exact["final_step"], exact["window_steps"]) == ("not_assigned", 0, 0)
    assert "`scores` leave expert 5" in exact["reason"]
    assert math.isnan(exact["regret"])
    groups = group_summary(RunDirectory(tmp_path / "run"))
    assert list(groups["n_early"]) == [0, 1]
    assert groups["exact_reason"][0] == none["exact_reason"]


def test_records_are_json(run: RunDirectory) -> None:
    records = group_records(group_summary(run))
    assert records[0]["step_size"] is None
    assert records[0]["rule"] == "no balancing"
    assert records[2]["mu_times_step"] == 1.0


def test_a_run_without_its_summary_is_read_from_its_parts(run: RunDirectory, tmp_path: Path) -> None:
    copy = RunDirectory(tmp_path / "run")
    sweep(copy.path, configuration(tmp_path, TINY.replace("0:2", "0:4")))
    copy.summary_file.unlink()
    pd.testing.assert_frame_equal(load_summary(copy), load_summary(run), check_exact=True)


def test_figures_of_fewer_cells_are_not_current(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    sweep(run.path, configuration(tmp_path))
    run.figures.mkdir()
    (run.figures / "a.png").touch()
    assert not figures_are_current(run)
    record_figures(run, [run.figures / "a.png"])
    assert figures_are_current(run)
    sweep(run.path, configuration(tmp_path, TINY.replace("0:2", "0:3")))
    assert not figures_are_current(run)


def test_damaged_rows_are_found_and_run_again(tmp_path: Path) -> None:
    sweep(tmp_path / "run", configuration(tmp_path))
    before = (tmp_path / "run" / "summary.parquet").read_bytes()
    part = parts(tmp_path / "run")[0]
    data = part.read_bytes()
    part.write_bytes(data[:100] + bytes(200) + data[300:])
    outcome, _ = sweep(tmp_path / "run", configuration(tmp_path))
    assert outcome.failures == {}
    assert part.read_bytes() == data
    assert (tmp_path / "run" / "summary.parquet").read_bytes() == before
    assert part.with_name(f"damaged-{part.name}").exists()


def test_a_run_without_a_finished_cell(tmp_path: Path) -> None:
    sweep(tmp_path / "run", configuration(tmp_path))
    for part in parts(tmp_path / "run"):
        part.unlink()
    with pytest.raises(RunDirectoryError, match="has no finished cell"):
        load_trajectories(RunDirectory(tmp_path / "run"))
