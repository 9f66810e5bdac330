"""The figure of the report "minibatch-bias": regret per late step against the batch size, by source."""

from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from balancesim.report import style

# Inches.
_LEFT, _WIDTH, _PITCH, _HEIGHT, _TITLE, _ROW, _LINE = 0.6, 2.7, 3.5, 2.3, 0.42, 3.2, 0.15
_PER_ROW = 2
_TITLE_WIDTH = 52
_BEYOND = 1.6
_ANALYTIC: style.Look = {"color": style.INK, "linewidth": 0.6, "zorder": 1.0}


def sources_figure(rows: pd.DataFrame) -> Figure:
    """Draw regret per late step, with 95 % bars, against tokens per batch, and P5's line behind each rule.

    Parameters
    ----------
    rows : DataFrame
        What `minibatch_bias_rows` returns.

    Returns
    -------
    Figure
        Draw and save it inside :func:`balancesim.report.style.settings`. Values that are not positive are
        left out.
    """
    labels = list(dict.fromkeys(rows["label"]))
    looks = {label: style.distinct_look(i) for i, label in enumerate(labels)}
    panels = list(rows.groupby("panel", sort=False))
    n_rows = -(-len(panels) // _PER_ROW)
    below = 0.45 + _LINE * -(-(len(labels) + 1) // 2)
    figure = style.new_figure(below + _HEIGHT + _TITLE + _ROW * (n_rows - 1))
    for i, (_, own) in enumerate(panels):
        row, column = divmod(i, _PER_ROW)
        up = below + _ROW * (n_rows - 1 - row)
        axes = style.add_axes(figure, _LEFT + _PITCH * column, up, _WIDTH, _HEIGHT)
        for label, of_rule in own.groupby("label", sort=False):
            _rule(axes, of_rule.sort_values("n_tokens"), looks[str(label)])
        _dress(axes, own)
        if column == 0:
            axes.set_ylabel("regret per late step [score units]")
    handles = [Line2D([], [], label=label, markersize=3.5, **looks[label]) for label in labels]
    handles.append(Line2D([], [], label="analytic (P5)", **_ANALYTIC))
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.0, 0.0), ncols=2, fontsize=6.8,
        columnspacing=1.1, handlelength=2.2, handletextpad=0.5, borderaxespad=0.3,
    )  # fmt: skip
    return figure


def _rule(axes: Axes, own: pd.DataFrame, look: style.Look) -> None:
    known = own[np.isfinite(own["analytic"]) & np.isfinite(own["excess"])]
    if len(known):
        # Beyond the points too, by 1/T, as it would hide behind a line that it predicts.
        sizes = known["n_tokens"].to_numpy(dtype=np.float64)
        longer = np.array([sizes[0] / _BEYOND, *sizes, sizes[-1] * _BEYOND])
        level = known["analytic"].to_numpy() * sizes
        axes.plot(longer, np.array([level[0], *level, level[-1]]) / longer, **_ANALYTIC)
    shown = own[own["excess"] > 0.0]
    if len(shown):
        # A bar that reaches zero or below has no end in a logarithm.
        high = (shown["excess_high"] - shown["excess"]).fillna(0.0)
        low = np.minimum(high, 0.9 * shown["excess"])
        axes.errorbar(
            shown["n_tokens"], shown["excess"], yerr=[low, high], markersize=3.5, linewidth=1.0,
            elinewidth=0.8, **look,
        )  # fmt: skip


def _dress(axes: Axes, own: pd.DataFrame) -> None:
    first = own.iloc[0]
    style.decades(axes, x=True, y=True)
    sizes = sorted(own["n_tokens"].unique())
    axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    title = f"{first['source']}: E={first['n_experts']}, K={first['k']}, N={first['horizon']:,}"
    axes.set_title(fill(title, _TITLE_WIDTH), loc="left", fontsize=7.2)
    axes.set_xlabel("tokens per batch T", labelpad=1)
