"""The trade-off against one swept key: which key that is, what is a line, what the rows and figures say."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from balancesim.errors import ConfigurationError
from balancesim.report import style
from balancesim.report.race.measures import Curve
from balancesim.report.sweeps import family_without, swept_key, value_of
from balancesim.report.trade_off import REPORT, trade_off_rows, trade_off_table
from balancesim.report.trade_off_figure import source_figure
from balancesim.sweep import RunDirectory
from tests.report.race.frames import ALF, cells_of, printed

STEPS = ("0.5", "1", "2", "4")


def swept() -> tuple[pd.DataFrame, dict[str, Curve], str]:
    """Larger steps leave more imbalance; two schedules, beside rules that have no step."""
    rules = {
        f"{schedule} x{step}": float(step) * height * np.array([0.1, 0.11, 0.12])
        for schedule, height in (("sign", 2.0), ("sqrt", 1.0))
        for step in STEPS
    }
    return *cells_of({"exact": [0.0] * 3, **rules, "no balancing": [2.0, 2.1, 2.2]}), "step_size"


def test_one_line_per_family_along_the_swept_key() -> None:
    rows = trade_off_rows(*swept())
    assert set(rows["key"]) == {"step_size"}
    assert list(dict.fromkeys(rows["family"])) == ["alf-lb sign", "alf-lb sqrt", "none", "exact"]
    sqrt = rows[rows["family"] == "alf-lb sqrt"]
    assert list(sqrt["value"]) == [0.5, 1.0, 2.0, 4.0]
    np.testing.assert_allclose(sqrt["max_violation"], 0.11 * sqrt["value"], rtol=1e-12)
    # 1.96 is 4.303 for two degrees of freedom; the three values lie 0.01 apart.
    half = 4.302653 * 0.01 / np.sqrt(3.0)
    np.testing.assert_allclose(
        sqrt["max_violation_high"] - sqrt["max_violation"], half * sqrt["value"], rtol=1e-6
    )
    assert rows[rows["family"] == "none"]["value"].isna().all()
    assert list(rows["causal"]) == [True] * 9 + [False]


def test_the_table_has_a_block_for_each_kind_of_rule() -> None:
    text = printed(trade_off_table(trade_off_rows(*swept())))
    assert text.index("alf-lb sign") < text.index("current-batch rules") < text.index("exact")
    line = next(line for line in text.splitlines() if line.startswith("alf-lb sqrt"))
    assert line.split()[2] == "0.5"
    assert "nan" not in text


def test_the_figure_draws_the_means() -> None:
    rows = trade_off_rows(*swept())
    with style.settings():
        figure = source_figure(rows)
        FigureCanvasAgg(figure).draw()
    left, lost, against = figure.axes
    want = rows[rows["family"] == "alf-lb sign"]
    assert any(np.array_equal(line.get_ydata(), want["max_violation"]) for line in left.lines)
    assert any(np.array_equal(line.get_ydata(), want["lost"]) for line in lost.lines)
    assert any(np.array_equal(line.get_xdata(), want["lost"]) for line in against.lines)
    assert left.get_xscale() == "log"
    assert left.get_xlabel() == "step_size"


def test_which_key_is_swept() -> None:
    rules = [
        {"kind": "alf-lb", "delay": 1, "step_size": 1.0},
        {"kind": "alf-lb", "delay": 2, "step_size": 1.0},
    ]
    assert swept_key(rules) == "delay"
    # A key that resolved rules hold only where it is no default.
    assert swept_key([{**ALF, "every": 4}, ALF]) == "every"
    assert [value_of(rule, "every") for rule in ({**ALF, "every": 4}, ALF)] == [4.0, 1.0]
    assert np.isnan(value_of({"kind": "none"}, "every"))
    with pytest.raises(ConfigurationError, match='"trade-off" draws against a key'):
        swept_key([{"kind": "alf-lb", "delay": 1, "recentre": True}, {"kind": "none"}])
    assert family_without({**ALF, "schedule": "sign", "step_size": 3.0, "delay": 2}, "step_size") == (
        "alf-lb sign delay=2"
    )


def test_a_word_for_the_swept_key_is_part_of_the_name() -> None:
    cells, curves, key = swept()
    auto = json.dumps({**ALF, "schedule": "sign", "step_size": "auto"})
    cells.loc[cells["rule"] == "sign x4", ["rule", "rule_parameters"]] = ["sign auto", auto]
    rows = trade_off_rows(cells, curves, key)
    row = rows.set_index("rule").loc["sign auto"]
    assert row["family"] == "alf-lb sign auto"
    assert np.isnan(row["value"])
    line = next(
        text for text in printed(trade_off_table(rows)).splitlines() if text.startswith("alf-lb sign auto")
    )
    assert line.split()[3] == "-"
    with style.settings():
        FigureCanvasAgg(source_figure(rows)).draw()


def test_seeds_that_ended_early_are_left_out_and_named() -> None:
    cells, curves, key = swept()
    is_early = (cells["rule"] == "sign x4") & (cells["seed"] > 0)
    cells.loc[is_early, ["outcome", "reason"]] = ["bias_not_finite", "too large"]
    row = trade_off_rows(cells, curves, key).set_index("rule").loc["sign x4"]
    assert (row["n_seeds"], row["n_early"], row["reason"]) == (1, 2, "too large")
    assert np.isnan(row["lost_high"])
    text = printed(trade_off_table(trade_off_rows(cells, curves, key)))
    assert "sign x4: 2 seeds left out: too large" in text
    assert "seeds: 1 to 3" in text


@pytest.mark.parametrize("is_all", [False, True])
def test_rules_that_ended_early_on_every_seed_are_named_and_not_drawn(tmp_path: Path, is_all: bool) -> None:
    cells, curves, key = swept()
    is_early = (cells["rule"] == "sign x4") | is_all
    cells.loc[is_early, ["outcome", "reason"]] = ["bias_not_finite", "too large"]
    rows = trade_off_rows(cells, {} if is_all else curves, key)
    assert rows.set_index("rule").loc["sign x4", ["n_seeds", "n_early"]].tolist() == [0, 3]
    text = printed(trade_off_table(rows))
    assert "sign x4: 3 seeds left out: too large" in text
    assert "nan" not in text
    with style.settings():
        drawn = dict(REPORT.figures(RunDirectory(tmp_path), rows))
    assert len(drawn) == (0 if is_all else 1)


def test_no_cells_give_no_rows_and_no_figure(tmp_path: Path) -> None:
    cells, curves, key = swept()
    rows = trade_off_rows(cells.iloc[:0], curves, key)
    assert list(rows.columns) == list(trade_off_rows(cells, curves, key).columns)
    assert "lost: score" in printed(trade_off_table(rows))
    assert not list(REPORT.figures(RunDirectory(tmp_path), rows))
