"""The figures of a race: what is drawn where, that names can be read, that odd races are drawn."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from balancesim.report import style
from balancesim.report.race.front import looks, source_figure, summary_figure
from balancesim.report.race.recovery import recovery_figure
from balancesim.report.race.rows import race_rows
from tests.report.race.frames import FLOOR, STEPS, cells_of

SPREAD = np.array([0.01, -0.01, 0.02, -0.02, 0.01, -0.01, 0.02, -0.02])
RULES = {
    "no balancing": 2.0 + SPREAD,
    **{
        f"{schedule} x{step}": 0.21 + 0.01 * i + 0.02 * j + SPREAD
        for i, schedule in enumerate(("sign", "constant", "sqrt", "harmonic"))
        for j, step in enumerate((3, 1, 10))
    },
    "exact": 0.0 * SPREAD,
}


def rows(switch_at: int = 0) -> pd.DataFrame:
    return race_rows(*cells_of(RULES, switch_at))


def drawn(figure: Figure) -> Figure:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return figure


def names(figure: Figure) -> list[object]:
    return [text for axes in figure.axes for text in axes.texts if text.get_text()]


def test_every_rule_is_named_once_and_no_names_touch() -> None:
    with style.settings():
        figure = drawn(source_figure(rows()))
        boxes = [text.get_window_extent() for text in names(figure)]
    labels = sorted(text.get_text() for text in names(figure))
    assert labels == [
        "alf-lb constant x3", "alf-lb harmonic x3", "alf-lb sign x3", "alf-lb sqrt x3", "exact (none left)",
        "none",
    ]  # fmt: skip
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def test_the_floor_and_the_front_are_drawn() -> None:
    with style.settings():
        figure = drawn(source_figure(rows()))
    axes = figure.axes[0]
    assert axes.get_yscale() == "log"
    assert any(np.allclose(line.get_ydata(), FLOOR) for line in axes.lines)
    shown = rows()
    front = shown[shown["causal"] & shown["on_front"]]
    steps = next(line for line in axes.lines if line.get_drawstyle() == "steps-post")
    assert sorted(steps.get_ydata()) == pytest.approx(sorted(front["max_violation"]))


def test_rules_that_leave_places_empty_are_marked_and_off_the_front() -> None:
    cells, curves = cells_of(RULES)
    cells["drop_rate"] = np.where(cells["rule"] == "no balancing", 0.25, 0.0)
    frame = race_rows(cells, curves)
    with style.settings():
        figure = drawn(source_figure(frame))
    assert "none (drops)" in [text.get_text() for text in names(figure)]
    front = next(line for line in figure.axes[0].lines if line.get_drawstyle() == "steps-post")
    assert max(front.get_ydata()) < 1.0
    assert any(text.get_text().startswith("(drops)") for text in figure.legends[0].get_texts())


def test_current_batch_rules_are_hollow_and_causal_ones_filled() -> None:
    found = looks(rows())
    assert found["exact"]["markerfacecolor"] == "white"
    assert all(look["markerfacecolor"] != "white" for family, look in found.items() if family != "exact")
    assert len({(look["color"], look["marker"]) for look in found.values()}) == len(found)


def test_the_summary_has_a_panel_per_source() -> None:
    first = rows()
    frame = pd.concat([first.assign(group=i, source=f"Source {i}") for i in range(5)])
    with style.settings():
        figure = drawn(summary_figure(frame))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [f"Source {i}" for i in range(5)]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert set(first["family"]) < set(legend)


def test_recovery_has_a_panel_per_rule_and_counts_from_the_shift() -> None:
    cells, curves = cells_of(RULES, switch_at=32)
    frame = race_rows(cells, curves)
    shifted = frame[(frame["shift"] > 0) & frame["causal"]]
    with style.settings():
        figure = drawn(recovery_figure(shifted, cells, curves))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert set(titles) == set(frame.loc[frame["causal"], "family"])
    axes = figure.axes[titles.index("none")]
    own = max(axes.lines, key=lambda line: line.get_linewidth())
    np.testing.assert_array_equal(own.get_xdata(), STEPS[STEPS > 32] - 32)
    np.testing.assert_allclose(own.get_ydata(), RULES["no balancing"][2:].mean() / FLOOR)


@pytest.mark.parametrize("kept", [["exact"], ["no balancing"], ["sign x1"]])
def test_a_race_of_one_is_drawn(kept: list[str]) -> None:
    frame = race_rows(*cells_of({rule: RULES[rule] for rule in kept}))
    with style.settings():
        drawn(source_figure(frame))
        drawn(summary_figure(frame))
