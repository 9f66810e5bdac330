"""The figure of the report "phi-regret": a panel per objective, and the imbalance that is left in another."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from balancesim.report import style
from balancesim.types import Float64Array, IntArray

# Inches.
_LEFT, _WIDTH, _PITCH, _HEIGHT, _TITLE, _LINE = 0.55, 1.72, 2.25, 1.75, 0.45, 0.15


def source_figure(rows: pd.DataFrame, cells: pd.DataFrame, trajectories: pd.DataFrame) -> Figure:
    """Draw one source: regret on own objectives, regret on the dual, and MaxVio of all rules.

    Parameters
    ----------
    rows : DataFrame
        The rows of one source, as `phi_regret_rows` makes them.
    cells : DataFrame
        The summary's rows of the same source.
    trajectories : DataFrame
        Columns ``cell``, ``step``, ``regret`` and ``mean_max_violation``.

    Returns
    -------
    Figure
        Draw and save it inside :func:`balancesim.report.style.settings`. The first two panels show growth
        alone, as constants on different objectives do not compare: what each regret gains from N/100 on, in
        units of its gain up to N/10, so that a logarithm ends at 2 and a line at 11. Current-batch rules are
        hollow, and in the panel of MaxVio alone.
    """
    n_lines = -(-(len(rows) + 2) // 2)
    below = 0.5 + _LINE * n_lines
    figure = style.new_figure(below + _HEIGHT + _TITLE)
    own, dual, left = (style.add_axes(figure, _LEFT + i * _PITCH, below, _WIDTH, _HEIGHT) for i in range(3))
    done = cells[cells["outcome"] == "horizon_reached"]
    handles = []
    for i, row in enumerate(rows.to_dict("records")):
        look = style.distinct_look(i)
        if not row["causal"]:
            look = {**look, "markerfacecolor": "white"}
        curves = trajectories[trajectories["cell"].isin(done.loc[done["rule"] == row["rule"], "cell"])]
        if curves.empty:
            continue
        steps, regret = _mean(curves, "regret")
        _, violation = _mean(curves, "mean_max_violation")
        if row["causal"]:
            panel = own if row["is_own"] else dual
            panel.plot(*_growth(steps, regret), markersize=3.0, markevery=4, **look)
        left.plot(steps, violation / row["max_violation_floor"], markersize=3.0, markevery=(2, 8), **look)
        handles.append(Line2D([], [], label=row["rule"], markersize=3.0, **look))
    _dress(own, "regret on the rule's own objective (P7)")
    _dress(dual, "regret on the dual (S4)")
    own.set_ylabel("gain of regret since N/100")
    for panel in (own, dual):
        last = int(trajectories["step"].max())
        panel.plot(
            [last / 100, last], [0.0, 2.0], color=style.INK, linewidth=0.9, linestyle=style.BOUND, zorder=1
        )
        panel.set_ylim(-0.4, 4.0)
    _dress(left, "imbalance left: MaxVio / floor")
    left.set_yscale("log")
    left.set_yticks([1.0, 2.0, 5.0, 10.0], ["1", "2", "5", "10"])
    left.minorticks_off()
    left.axhline(1.0, color=style.INK, linewidth=0.9, linestyle=style.BOUND)
    first = rows.iloc[0]
    figure.text(
        0.01, 1.0 - 0.06 / figure.get_figheight(),
        f"{first['source']}: E={first['n_experts']}, K={first['k']}, T={first['n_tokens']}; "
        f"mean over {first['n_seeds']} seeds",
        fontsize=8, verticalalignment="top",
    )  # fmt: skip
    handles.append(
        Line2D(
            [], [], color=style.INK, linewidth=0.9, linestyle=style.BOUND,
            label="a logarithm; the sampling floor",
        )
    )  # fmt: skip
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.0, 0.0), ncols=2, fontsize=6.2,
        columnspacing=0.8, handlelength=2.2, handletextpad=0.5, borderaxespad=0.3,
    )  # fmt: skip
    return figure


def _growth(steps: IntArray, regret: Float64Array) -> tuple[Float64Array, Float64Array]:
    """The last two decades of a curve, from 0 at N/100 over 1 at N/10; NaN where it gains nothing there."""
    last = float(steps[-1])
    start, middle = np.interp(np.log([last / 100, last / 10]), np.log(steps), regret)
    shown = np.concatenate([[last / 100], steps[steps > last / 100]])
    gain = np.interp(np.log(shown), np.log(steps), regret) - start
    return shown, gain / (middle - start) if middle > start else np.full(shown.size, np.nan)


def _mean(curves: pd.DataFrame, name: str) -> tuple[IntArray, Float64Array]:
    """Steps, and the mean over cells, of one column of their curves."""
    mean = curves.groupby("step")[name].mean()
    return mean.index.to_numpy(dtype=np.int64), mean.to_numpy(dtype=np.float64)


def _dress(axes: Axes, title: str) -> None:
    style.decades(axes, x=True)
    axes.set_title(title, loc="left", fontsize=7)
    axes.set_xlabel("steps N", labelpad=1)
