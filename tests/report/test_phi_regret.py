"""Regret on two objectives: growth by decades, the blocks apart, imbalance always beside it."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg

from balancesim.report import style
from balancesim.report.phi_regret import decades, phi_regret_rows, phi_regret_table
from balancesim.report.phi_regret_figure import source_figure
from tests.report.frames import EXACT, results
from tests.report.race.frames import printed

RULES = (
    ("sign x1", "alf-lb", "sign", 1.0, 0.5),
    ("phi-balance entropy", "phi-balance", None, np.nan, 0.0),
    ("harmonic x1", "alf-lb", "harmonic", 1.0, 0.0),
)


def found() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    groups, cells, records = results(rules=RULES)
    for frame in (groups, cells):
        frame.loc[frame["rule_kind"] == "phi-balance", "comparator"] = "rule"
    return groups, cells, records.assign(mean_max_violation=0.4)


def curves(axes: Axes) -> list[np.ndarray]:
    """What is drawn of the rules; lines of two points are for reference."""
    return [np.asarray(line.get_ydata()) for line in axes.lines if len(line.get_xdata()) > 2]


def test_a_logarithm_grows_alike_in_every_decade_and_a_line_tenfold() -> None:
    steps = np.unique(np.round(np.geomspace(1, 10_000, 41)).astype(np.int64))
    last, before = decades(steps, 3.0 * np.log(steps))
    assert (last, before) == pytest.approx((3.0 * np.log(10.0),) * 2, rel=1e-12)
    last, before = decades(steps, 2.0 * steps)
    assert last / before == pytest.approx(10.0, rel=1e-12)
    assert np.isnan(decades(steps[:10], steps[:10].astype(float))).all()


def test_each_objective_has_a_block_of_its_own() -> None:
    rows = phi_regret_rows(*found())
    assert list(rows["rule"]) == ["phi-balance entropy", "sign x1", "harmonic x1"] * 2
    logarithm = rows[rows["rule"] != "sign x1"]
    # Records lie a third apart: between them a logarithm is interpolated exactly.
    np.testing.assert_allclose(logarithm["decade_ratio"], 1.0, atol=1e-9)
    assert (rows.loc[rows["rule"] == "sign x1", "decade_ratio"] > 2.0).all()
    text = printed(phi_regret_table(rows))
    own, dual = "regret on each rule's own objective (P7)", "regret on the dual (S4)"
    assert text.count(own) == text.count(dual) == 2
    assert text.index(own) < text.index("phi-balance entropy") < text.index(dual) < text.index("sign x1")
    # Residual imbalance beside every regret.
    lines = [line for line in text.splitlines() if line.startswith(("sign", "phi", "harmonic"))]
    assert {line.split()[-1] for line in lines} == {"1.06"}


def test_current_batch_rules_are_apart() -> None:
    groups, cells, records = results(rules=(*RULES, EXACT))
    records = records.assign(mean_max_violation=0.4)
    rows = phi_regret_rows(groups, cells, records)
    assert rows["causal"].tolist() == [True, True, True, False] * 2
    text = printed(phi_regret_table(rows))
    assert text.index("harmonic x1") < text.index("current-batch rules: they see") < text.index("exact")
    with style.settings():
        figure = source_figure(rows[rows["group"] == 0], cells[cells["group"] == 0], records)
        FigureCanvasAgg(figure).draw()
    assert [len(curves(axes)) for axes in figure.axes] == [0, 3, 4]


def test_the_figure_has_a_panel_per_objective_and_one_for_imbalance() -> None:
    groups, cells, records = found()
    rows = phi_regret_rows(groups, cells, records)
    with style.settings():
        figure = source_figure(rows[rows["group"] == 0], cells[cells["group"] == 0], records)
        FigureCanvasAgg(figure).draw()
    own, dual, left = figure.axes
    # Growth since N/100 in units of that up to N/10: a logarithm goes from 0 to 2, a power above that.
    power, logarithm = curves(dual)
    for growth in (*curves(own), logarithm):
        np.testing.assert_allclose(growth[[0, -1]], [0.0, 2.0], atol=1e-9)
    assert power[-1] > 3.0
    np.testing.assert_allclose(curves(left), [np.full(records["step"].nunique(), 0.4 / 0.31)] * 3, rtol=1e-12)
