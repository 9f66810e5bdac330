"""A race of made-up cells: who beats whom, what is a tie, what is on the front; and a real one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from balancesim import balancers
from balancesim.report.race import REPORT
from balancesim.report.race.measures import CURVES, curves_of
from balancesim.report.race.rows import beats, race_rows, representative
from balancesim.report.race.table import race_table
from balancesim.sweep import RunDirectory, load_summary, load_trajectories
from tests.report.race.frames import cells_of, printed
from tests.sweep.tiny import configuration, sweep


def test_settings_are_chosen_on_some_seeds_and_reported_on_the_others() -> None:
    # On the tuning seeds 0 and 1 step 3 is best; on the others it is not: no selection on what is reported.
    rules = {"sign x1": [0.5] * 2 + [0.3] * 6, "sign x3": [0.4] * 2 + [0.6] * 6}
    rows = race_rows(*cells_of(rules))
    assert dict(zip(rows["rule"], rows["role"], strict=True)) == {"sign x1": "default", "sign x3": "tuned"}
    assert set(rows["n_seeds"]) == {6}
    assert dict(zip(rows["rule"], rows["max_violation"], strict=True)) == pytest.approx(
        {"sign x1": 0.3, "sign x3": 0.6}
    )
    assert list(representative(rows)["rule"]) == ["sign x3"]


def test_a_difference_within_the_noise_is_a_tie() -> None:
    noise = np.array([0.02, -0.01, 0.03, -0.03, 0.01, -0.02])
    common = np.linspace(0.0, 1.0, 6)
    cells = [
        {seed: {"lost": float(value)} for seed, value in enumerate(values)}
        for values in (common, common + 0.002 + noise, common + 0.1 + noise)
    ]
    # Paired by seed: the seeds' own spread of 1 drops out, the noise of 0.02 does not.
    assert not beats(cells[0], cells[1], "lost")
    assert not beats(cells[1], cells[0], "lost")
    assert beats(cells[0], cells[2], "lost")
    assert not beats(cells[2], cells[0], "lost")
    assert not beats(cells[0], cells[0], "lost")
    one_seed = [{0: one[0]} for one in cells]
    assert not beats(one_seed[0], one_seed[2], "lost")


def test_a_difference_that_rounding_makes_is_a_tie() -> None:
    cells, curves = cells_of({"sign x1": [0.3] * 8, "sqrt x1": [0.3] * 8, "constant x1": [0.3] * 8})
    for seed in range(8):
        for rule, more in (("sqrt x1", 1e-8), ("constant x1", 1e-3)):
            cell = f"{rule} {seed}"
            curves[cell] = curves[cell]._replace(lost=curves[cell].lost * (1.0 + more))
    rows = race_rows(cells, curves).set_index("rule")
    assert rows["lost_rank"].to_dict() == {"sign x1": 1, "sqrt x1": 1, "constant x1": 3}


def test_ranks_are_shared_and_blocks_are_apart() -> None:
    spread = np.array([0.01, -0.01, 0.02, -0.02, 0.01, -0.01, 0.02, -0.02])
    rules = {
        "no balancing": 2.0 + spread,
        "harmonic x1": 0.3 + spread,
        "sqrt x1": 0.3 + spread[::-1],
        "exact": 0.0 * spread,
    }
    rows = race_rows(*cells_of(rules))
    assert list(rows["causal"]) == [True, True, True, False]
    assert set(rows["rule"].iloc[:2]) == {"harmonic x1", "sqrt x1"}
    assert list(rows["max_violation_rank"]) == [1, 1, 3, 1]
    # The front: least imbalance, and least score lost (cells_of loses less where imbalance is larger).
    assert rows.set_index("rule").loc["no balancing", "on_front"]
    text = printed(race_table(rows))
    assert text.index("causal rules") < text.index("\nnone ") < text.index("current-batch rules: they see")
    assert text.index("current-batch rules: they see") < text.index("exact")


def test_intervals_are_student_s() -> None:
    values = np.array([0.3, 0.31, 0.35, 0.28, 0.33, 0.4, 0.31, 0.29])
    row = race_rows(*cells_of({"sqrt x1": values})).iloc[0]
    kept = values[2:]
    low, high = stats.t.interval(0.95, 5, kept.mean(), stats.sem(kept))
    assert (row["max_violation_low"], row["max_violation_high"]) == pytest.approx((low, high), rel=1e-10)


def test_rules_that_ended_early_are_left_out_and_named() -> None:
    cells, curves = cells_of({"sign x1": [0.3] * 8, "sign x3": [0.2] * 8})
    cells.loc[(cells["rule"] == "sign x3"), ["outcome", "reason"]] = ["bias_not_finite", "too large"]
    rows = race_rows(cells, curves)
    assert list(rows["rule"]) == ["sign x1", "sign x3"]
    assert rows["on_front"].tolist() == [True, False]
    early = rows.iloc[1]
    assert (early["n_seeds"], early["n_early"], early["setting"]) == (0, 8, "x3")
    assert early[["lost", "max_violation", "reach", "lost_rank", "max_violation_rank"]].isna().all()
    text = printed(race_table(rows))
    assert "alf-lb sign x3: 8 seeds left out: too large" in text
    assert "nan" not in text
    cells.loc[(cells["rule"] == "sign x3") & (cells["seed"] < 7), "outcome"] = "horizon_reached"
    found = race_rows(cells, curves).set_index("rule").loc["sign x3"]
    assert (found["n_early"], found["n_seeds"]) == (1, 5)
    assert "1 seeds left out: too large" in printed(race_table(race_rows(cells, curves)))


def test_a_race_that_nobody_ends_has_remarks_and_no_figure(tmp_path: Path) -> None:
    cells, curves = cells_of({"sign x1": [0.3] * 4, "no balancing": [2.0] * 4, "exact": [0.0] * 4})
    rows = race_rows(cells.assign(outcome="bias_not_finite", reason="too large"), {})
    assert rows["n_early"].tolist() == [4, 4, 4]
    assert printed(race_table(rows)).count("4 seeds left out: too large") == 3
    assert not list(REPORT.figures(RunDirectory(tmp_path), rows))
    empty = race_rows(cells.iloc[:0], curves)
    assert list(empty.columns) == list(rows.columns)
    assert "lost: score" in printed(race_table(empty))
    assert not list(REPORT.figures(RunDirectory(tmp_path), empty))


def test_rules_that_leave_places_empty_are_held_against_nobody_in_score() -> None:
    spread = np.array([0.01, -0.01, 0.02, -0.02, 0.01, -0.01, 0.02, -0.02])
    # cells_of loses less where imbalance is larger: the dropping rule would win on lost and be on the front.
    rules = {"sign x1": 2.0 + spread, "sqrt x1": 0.5 + spread, "constant x1": 0.3 + spread}
    cells, curves = cells_of(rules)
    cells["drop_rate"] = np.where(cells["rule"] == "sign x1", 0.235, 0.0)
    rows = race_rows(cells, curves).set_index("rule")
    assert np.isnan(rows.loc["sign x1", "lost_rank"])
    assert rows.loc[["sqrt x1", "constant x1"], "lost_rank"].tolist() == [1, 2]
    assert rows["on_front"].to_dict() == {"sign x1": False, "sqrt x1": True, "constant x1": True}
    assert rows["max_violation_rank"].to_dict() == {"constant x1": 1, "sqrt x1": 2, "sign x1": 3}
    text = printed(race_table(race_rows(cells, curves)))
    line = next(line for line in text.splitlines() if line.startswith("alf-lb sign"))
    # Rule (two words), setting, lost ± error, rank.
    assert line.split()[2:6][-1] == "-"
    assert "such a rule has no rank in lost" in text


def test_a_rank_counts_other_rules_not_their_settings() -> None:
    # On every seed sqrt at either setting leaves less than sign, and its tuned setting less than its default.
    spread = np.array([0.01, -0.01, 0.02, -0.02, 0.01, -0.01, 0.02, -0.02])
    rules = {"sqrt x1": 0.4 + spread, "sqrt x3": 0.3 + spread, "sign x1": 0.6 + spread}
    rows = race_rows(*cells_of(rules)).set_index("rule")
    assert rows["max_violation_rank"].to_dict() == {"sqrt x3": 1, "sqrt x1": 1, "sign x1": 2}


def test_seeds_tuned_on_are_named_for_every_row() -> None:
    rows = race_rows(*cells_of({"sign x1": [0.5] * 8, "no balancing": [2.0] * 8}))
    assert rows["role"].tolist() == ["", ""]
    assert rows["tuning_seeds"].tolist() == [[0, 1], [0, 1]]


RACE = """
report = "race"
[run]
n_tokens = 64
k = 2
horizon = 120
n_records = 40
n_exact = 0
comparator = "none"
seeds = "0:4"
[[source]]
kind = "drifting"
n_experts = 8
offsets = "iqr"
walk_rate = 0.0
switch_at = 60
[[rule]]
kind = "none"
[[rule]]
kind = "alf-lb"
schedule = "constant"
step_size = [0.3, 1.0]
step_unit = "default"
[[rule]]
kind = "flipped"
[[rule]]
kind = "exact"
run.horizon = 10
"""


class Flipped(balancers.AlfLB):
    """The rule with its sign flipped: prices go the wrong way."""

    name = "flipped"
    compiled_update = None

    def kernel_form(self, n_experts: int, n_tokens: int, k: int) -> None:
        del n_experts, n_tokens, k

    def init(self, n_experts: int, k: int) -> Any:
        del k
        return np.zeros(n_experts)

    def bias(self, state: Any) -> Any:
        return state

    def update(self, state: Any, loads: Any, probabilities: Any) -> Any:
        del probabilities
        return state + 0.1 * (loads / loads.mean() - 1.0)


def test_a_rule_with_its_sign_flipped_loses_the_race(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {**balancers.registry(), "flipped": Flipped}
    monkeypatch.setattr(balancers, "registry", lambda: known)
    run = RunDirectory(tmp_path / "run")
    sweep(run.path, configuration(tmp_path, RACE))
    rows = race_rows(load_summary(run), curves_of(load_trajectories(run, CURVES))).set_index("family")
    causal = rows[rows["causal"]]
    assert causal["max_violation_rank"].idxmax() == "flipped"
    assert causal.loc["flipped", "max_violation_rank"] == len(causal)
    assert causal.loc["flipped", ["reach", "recover"]].tolist() == [np.inf, np.inf]
    sound = causal.loc[["alf-lb constant"]]
    assert np.isfinite(sound[["reach", "recover"]]).all(axis=None)
    assert (sound["max_violation"] < 1.5 * sound["max_violation_floor"]).all()
    assert (sound["after_shift"] > sound["max_violation"]).all()
    assert rows.loc["exact", ["horizon", "shift", "max_violation"]].tolist() == [10, 0, 0.0]


def test_with_one_seed_nothing_is_tuned_and_nothing_is_ranked() -> None:
    rows = race_rows(*cells_of({"sign x1": [0.3], "sign x3": [0.2], "no balancing": [2.0]}))
    assert list(rows["role"]) == ["x3", "default", ""]
    assert list(rows["max_violation_rank"]) == [1, 1, 1]
    assert "nan" not in printed(race_table(rows))


def test_dropped_places_are_shown_where_there_are_some() -> None:
    cells, curves = cells_of({"sqrt x1": [0.3] * 8, "exact": [0.0] * 8})
    assert "dropped\n" not in printed(race_table(race_rows(cells, curves)))
    text = printed(race_table(race_rows(cells.assign(drop_rate=0.125), curves)))
    assert "12.50%" in text
