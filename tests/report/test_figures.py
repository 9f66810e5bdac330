"""The figures: what they show, that odd results are drawn, that the same results give the same bytes."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from balancesim.errors import RunDirectoryError
from balancesim.report import style
from balancesim.report.curves import source_figure
from balancesim.report.overview import overview_figure
from tests.report.frames import EXACT, RULES, STEPS, results

Results = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]


def of_first_source(found: Results) -> Figure:
    groups, cells, records = found
    with style.settings():
        return source_figure(groups[groups["group"] == 0], cells[cells["group"] == 0], records)


def drawn(figure: Figure) -> RendererBase:
    with style.settings():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return canvas.get_renderer()


def texts(figure: Figure) -> str:
    parts = [text.get_text() for axes in figure.axes for text in (*axes.texts, axes.title, axes._left_title)]
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    labels = [label for axes in figure.axes for label in (axes.get_xlabel(), axes.get_ylabel())]
    return "\n".join([*parts, *legends, *labels, *(text.get_text() for text in figure.texts)])


def saved(figure: Figure, folder: Path) -> list[bytes]:
    folder.mkdir()
    with style.settings():
        return [path.read_bytes() for path in style.save(figure, folder, "figure")]


def test_one_panel_per_schedule_and_one_for_straight_lines() -> None:
    figure = of_first_source(results())
    assert len(figure.axes) == 3
    text = texts(figure)
    for part in (
        "sign",
        "harmonic",
        "\N{MULTIPLICATION SIGN}0.3",
        "no balancing",
        "10 % to 90 % of seeds",
        "S4's bound",
        "S7's slope 0.1",
        "S8's power",
        "[score units]",
        "steps N",
        "6 seeds",
    ):
        assert part in text


def test_what_is_drawn_is_the_mean_over_seeds() -> None:
    groups, cells, records = results()
    figure = of_first_source((groups, cells, records))
    own = cells.loc[(cells["group"] == 0) & (cells["rule"] == "sign x1"), "cell"]
    mean = records[records["cell"].isin(own)].groupby("step")["regret"].mean().to_numpy()
    curves = [np.asarray(line.get_ydata()) for line in figure.axes[0].lines]
    assert any(len(data) == len(mean) and np.allclose(data, mean, rtol=1e-12) for data in curves)


def test_a_rule_that_ran_for_fewer_steps_is_drawn_as_far_as_it_went() -> None:
    groups, cells, records = results()
    short = set(cells.loc[cells["rule"] == "sign x1", "cell"])
    figure = of_first_source(
        (groups, cells, records[~records["cell"].isin(short) | (records["step"] <= 100)])
    )
    drawn(figure)
    lengths = {len(np.asarray(line.get_xdata())) for line in figure.axes[0].lines}
    assert {int((STEPS <= 100).sum()), len(STEPS)} <= lengths


def test_bound_is_that_of_the_theory() -> None:
    groups, cells, records = results()
    figure = of_first_source((groups, cells, records))
    # S4 with |g|^2 at most K(1 - K/E) = 1.75 and mu = 1.07, at N = 1.
    starts = [float(np.asarray(line.get_ydata())[0]) for line in figure.axes[0].lines]
    assert any(np.isclose(value, 1.75 / (2 * 1.07), rtol=1e-12) for value in starts)


def test_every_source_and_family_is_in_the_overview() -> None:
    groups, _, _ = results()
    with style.settings():
        figure = overview_figure(groups)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["none", "sign", "harmonic"] * 2
    text = texts(figure)
    for part in ("Uniform (E=16", "Pareto (index 0.8) (E=16", "MaxVio", "sampling floor", "spread"):
        assert part in text


def test_current_batch_rules_stand_apart() -> None:
    found = results(rules=(RULES[1], EXACT, RULES[4]))
    with style.settings():
        figure = overview_figure(found[0])
    # Below the causal rules of their source, under a heading, whatever the order of the experiment.
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert sorted(labels) == sorted(["sign", "harmonic", "exact"] * 2)
    places = dict(zip(labels[:3], figure.axes[0].get_yticks()[:3], strict=True))
    assert places["sign"] < places["harmonic"] < places["exact"]
    assert texts(figure).count("current-batch") == 2
    # S4's bound is not one for them.
    spans = [line.get_ydata() for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    assert len(spans) == 2
    assert all(max(np.asarray(span)[:2]) < places["exact"] or min(span) > places["exact"] for span in spans)
    figure = of_first_source(found)
    assert "exact" not in [axes._left_title.get_text() for axes in figure.axes]
    assert "current-batch rules left out" in texts(figure)


def current_batch_only(_found: Results) -> Results:
    return results(rules=(EXACT,))


def with_exact_before_the_others(_found: Results) -> Results:
    return results(rules=(EXACT, *RULES))


def without_a_price(_found: Results) -> Results:
    groups, cells, records = results(rules=(*RULES, EXACT))
    own = groups["rule_kind"] == "exact"
    groups.loc[own, ["regret", "regret_low", "regret_high"]] = np.nan
    gone = records["cell"].isin(cells.loc[cells["rule_kind"] == "exact", "cell"])
    records.loc[gone, "regret"] = np.nan
    return groups, cells, records


def without_control(found: Results) -> Results:
    groups, cells, records = found
    return groups[groups["rule_kind"] != "none"], cells[cells["rule_kind"] != "none"], records


def control_only(found: Results) -> Results:
    groups, cells, records = found
    return groups[groups["rule_kind"] == "none"], cells[cells["rule_kind"] == "none"], records


def without_modulus(found: Results) -> Results:
    groups, cells, records = found
    unknown = [
        "modulus",
        "modulus_low",
        "modulus_high",
        "bound",
        "predicted_slope",
        "predicted_exponent",
        "mu_times_step",
    ]
    return groups.assign(**dict.fromkeys(unknown, np.nan)), cells, records


def below_zero(found: Results) -> Results:
    groups, cells, records = found
    shifted = groups[["regret", "regret_low", "regret_high"]] - 10.0
    return groups.assign(**shifted), cells, records.assign(regret=records["regret"] - 10.0)


def other_rule(found: Results) -> Results:
    """A third party's rule, without a schedule or a step size."""
    groups, cells, records = found
    renamed = {"rule": {"sign x1": "my rule"}}
    groups, cells = groups.replace(renamed), cells.replace(renamed)
    for frame in (groups, cells):
        mine = frame["rule"] == "my rule"
        frame.loc[mine, "rule_kind"] = "my-rule"
        frame.loc[mine, ["schedule", "step_unit"]] = None
        frame.loc[mine, ["step_multiple", "step_size", "mu_times_step"]] = np.nan
    return groups, cells, records


def one_ended_early(found: Results) -> Results:
    groups, cells, records = found
    cells.loc[(cells["rule"] == "sign x1") & (cells["seed"] > 3), "outcome"] = "bias_not_finite"
    return groups, cells, records


def all_of_a_rule_ended_early(found: Results) -> Results:
    groups, cells, records = found
    cells.loc[cells["rule"] == "sign x1", "outcome"] = "bias_not_finite"
    groups.loc[groups["rule"] == "sign x1", ["regret", "regret_low", "regret_high", "max_violation"]] = np.nan
    return groups, cells, records


def all_ended_early(found: Results) -> Results:
    groups, cells, records = found
    return groups.assign(regret=np.nan), cells.assign(outcome="data_exhausted"), records


def one_seed(_found: Results) -> Results:
    groups, cells, records = results(n_seeds=1)
    unknown = [f"{name}_{end}" for name in ("regret", "max_violation", "exponent") for end in ("low", "high")]
    return groups.assign(**dict.fromkeys(unknown, np.nan)), cells, records


@pytest.mark.parametrize(
    "change",
    [
        current_batch_only,
        with_exact_before_the_others,
        without_a_price,
        without_control,
        control_only,
        without_modulus,
        below_zero,
        other_rule,
        one_ended_early,
        all_of_a_rule_ended_early,
        all_ended_early,
        one_seed,
    ],
)
def test_odd_results_are_drawn(change, tmp_path: Path) -> None:
    found = change(results())
    assert all(saved(of_first_source(found), tmp_path / "source"))
    with style.settings():
        figure = overview_figure(found[0])
    assert all(saved(figure, tmp_path / "overview"))


def test_same_results_same_bytes(tmp_path: Path) -> None:
    first = saved(of_first_source(results()), tmp_path / "a")
    second = saved(of_first_source(results()), tmp_path / "b")
    assert first == second
    assert b"<dc:date>" not in first[0]


def test_settings_leave_no_trace() -> None:
    # The backend is looked up when it is read.
    before = {name: value for name, value in matplotlib.rcParams.items() if name != "backend"}
    with style.settings():
        assert matplotlib.rcParams["svg.hashsalt"] == "balancesim"
    assert {name: matplotlib.rcParams[name] for name in before} == before


def test_labels_never_touch() -> None:
    figure = of_first_source(results())
    renderer = drawn(figure)
    for axes in figure.axes:
        boxes = [text.get_window_extent(renderer) for text in axes.texts if text.get_text()]
        touching = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
        assert not touching


def test_nothing_leaves_the_page() -> None:
    groups, _, _ = results()
    with style.settings():
        overview = overview_figure(groups)
    for figure in (of_first_source(results()), overview):
        box = figure.get_tightbbox(drawn(figure))
        width, height = figure.get_size_inches()
        assert box.x0 >= 0.0
        assert box.y0 >= 0.0
        assert box.x1 <= width
        assert box.y1 <= height


def test_folder_that_is_gone_is_one_clear_error(tmp_path: Path) -> None:
    with style.settings(), pytest.raises(RunDirectoryError):
        style.save(of_first_source(results()), tmp_path / "gone", "figure")
