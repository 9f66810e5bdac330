"""The figure of a trade-off: imbalance and cost against the swept key, and against each other."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator

from balancesim.report import style

# Inches.
_LEFT, _WIDTH, _PITCH, _HEIGHT, _TITLE = 0.5, 1.75, 2.26, 1.75, 0.45
_LINE = 0.15


def source_figure(rows: pd.DataFrame) -> Figure:
    """Draw one source: MaxVio and score lost against the swept key, and one against the other.

    Parameters
    ----------
    rows : DataFrame
        The rows of one source, as `trade_off_rows` makes them. Rules without the key are level dotted lines
        in the first two panels and single markers in the third.

    Returns
    -------
    Figure
        Draw and save it inside :func:`balancesim.report.style.settings`.
    """
    first = rows.iloc[0]
    families = list(dict.fromkeys(rows["family"]))
    n_lines = -(-(len(families) + 1) // 3)
    below = 0.5 + _LINE * n_lines
    figure = style.new_figure(below + _HEIGHT + _TITLE)
    panels = [style.add_axes(figure, _LEFT + i * _PITCH, below, _WIDTH, _HEIGHT) for i in range(3)]
    handles = []
    for i, family in enumerate(families):
        own, look = rows[rows["family"] == family], style.distinct_look(i)
        _line(panels[0], own, "max_violation", look)
        _line(panels[1], own, "lost", look)
        hollow = {} if own["causal"].all() else {"markerfacecolor": "white"}
        order = own.sort_values("value")
        panels[2].plot(
            order["lost"], order["max_violation"], markersize=3.5, linewidth=1.0, **{**look, **hollow}
        )
        handles.append(Line2D([], [], label=family, markersize=3.5, **{**look, **hollow}))
    floor = float(first["max_violation_floor"])
    for axes in (panels[0], panels[2]):
        axes.set_yscale("log")
        axes.axhline(floor, color=style.INK, linewidth=0.9, linestyle=style.BOUND)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=9))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    for axes in panels[:2]:
        if (rows["value"].dropna() > 0.0).all():
            style.decades(axes, x=True)
        axes.set_xlabel(str(first["key"]), labelpad=1)
    panels[0].set_title("imbalance left: batch MaxVio", loc="left")
    panels[1].set_title("score lost per token and batch", loc="left")
    panels[2].set_title("one against the other", loc="left")
    panels[2].set_xlabel("score lost [score units]", labelpad=1)
    panels[2].xaxis.set_major_locator(MaxNLocator(4))
    figure.text(
        0.01, 1.0 - 0.06 / figure.get_figheight(),
        f"{first['source']}: E={first['n_experts']}, K={first['k']}, T={first['n_tokens']}, "
        f"N={first['horizon']:,}; {first['n_seeds']} seeds, bars: 95 %",
        fontsize=8, verticalalignment="top",
    )  # fmt: skip
    handles.append(
        Line2D([], [], color=style.INK, linewidth=0.9, linestyle=style.BOUND, label="sampling floor")
    )
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.0, 0.0), ncols=3, fontsize=6.8,
        columnspacing=1.1, handlelength=2.2, handletextpad=0.5, borderaxespad=0.3,
    )  # fmt: skip
    return figure


def _line(axes: Axes, own: pd.DataFrame, name: str, look: style.Look) -> None:
    swept = own[np.isfinite(own["value"])].sort_values("value")
    if len(swept):
        errors = (swept[f"{name}_high"] - swept[name]).fillna(0.0)
        axes.errorbar(
            swept["value"], swept[name], yerr=errors, markersize=3.5, linewidth=1.0, elinewidth=0.8, **look
        )
    for level in own.loc[~np.isfinite(own["value"]), name]:
        axes.axhline(level, color=look["color"], linewidth=1.0, linestyle=":")
