"""The trade-off against one swept key: which key that is, what is a line, what the rows and figures say."""

import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from balancesim.errors import ConfigurationError
from balancesim.report import style
from balancesim.report.race.measures import Curve
from balancesim.report.sweeps import family_without, swept_key
from balancesim.report.trade_off import trade_off_rows, trade_off_table
from balancesim.report.trade_off_figure import source_figure
from tests.report.race.frames import ALF, cells_of, printed

STEPS = ("0.5", "1", "2", "4")


def swept() -> tuple[pd.DataFrame, dict[str, Curve]]:
    """Larger steps leave more imbalance; two schedules, beside rules that have no step."""
    rules = {
        f"{schedule} x{step}": float(step) * height * np.array([0.1, 0.11, 0.12])
        for schedule, height in (("sign", 2.0), ("sqrt", 1.0))
        for step in STEPS
    }
    return cells_of({"exact": [0.0] * 3, **rules, "no balancing": [2.0, 2.1, 2.2]})


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
    rules = {
        "a": {"kind": "alf-lb", "delay": 1, "step_size": 1.0},
        "b": {"kind": "alf-lb", "delay": 2, "step_size": 1.0},
    }
    assert swept_key(rules) == "delay"
    with pytest.raises(ConfigurationError, match='"trade-off" draws against a key'):
        swept_key({"a": {"kind": "alf-lb", "delay": 1, "recentre": True}, "b": {"kind": "none"}})
    assert family_without({**ALF, "schedule": "sign", "step_size": 3.0, "delay": 2}, "step_size") == (
        "alf-lb sign delay=2"
    )


def test_seeds_that_ended_early_are_left_out() -> None:
    cells, curves = swept()
    cells.loc[(cells["rule"] == "sign x4") & (cells["seed"] > 0), "outcome"] = "bias_not_finite"
    row = trade_off_rows(cells, curves).set_index("rule").loc["sign x4"]
    assert row["n_seeds"] == 1
    assert np.isnan(row["lost_high"])
    assert json.loads(cells["rule_parameters"].iloc[-1]) == {"kind": "none"}
