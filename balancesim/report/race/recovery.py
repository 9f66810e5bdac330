"""What a sudden shift does: smoothed MaxVio against the steps since, one small panel per rule."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from balancesim.report import style
from balancesim.report.race.front import looks
from balancesim.report.race.measures import GOAL, Curve
from balancesim.types import Float64Array, IntArray

# Inches.
_LEFT, _TITLE, _PANEL, _HEIGHT, _PITCH_X, _PITCH_Y, _BELOW = 0.45, 0.32, 1.45, 1.0, 1.62, 1.3, 0.6
_ACROSS = 4


def recovery_figure(rows: pd.DataFrame, cells: pd.DataFrame, curves: Mapping[str, Curve]) -> Figure:
    """Draw how every rule comes back from the sudden shift of one source.

    Parameters
    ----------
    rows : DataFrame
        The rows of one source whose ``shift`` is not 0.
    cells : DataFrame
        The summary of the run.
    curves : mapping of str to Curve
        Of its cells.

    Returns
    -------
    Figure
        Draw and save it inside :func:`balancesim.report.style.settings`. One panel per rule, the other rules
        in grey; the default setting is dotted where another one is tuned.
    """
    own = looks(rows)
    families = list(dict.fromkeys(rows["family"]))
    n_down = -(-len(families) // _ACROSS)
    figure = style.new_figure(_BELOW + n_down * _PITCH_Y + _TITLE)
    lines = [_line(row, cells, curves) for row in rows.to_dict("records")]
    for i, family in enumerate(families):
        bottom = _BELOW + (n_down - 1 - i // _ACROSS) * _PITCH_Y
        axes = style.add_axes(figure, _LEFT + i % _ACROSS * _PITCH_X, bottom, _PANEL, _HEIGHT)
        for (steps, violation), row in zip(lines, rows.to_dict("records"), strict=True):
            if row["family"] != family:
                axes.plot(steps, violation, color="0.85", linewidth=0.5, zorder=1.6)
            else:
                dotted = row["role"] == "default" and family in _tuned(rows)
                axes.plot(
                    steps, violation, color=own[family]["color"], linestyle=":" if dotted else "-", zorder=3
                )
        _dress(axes, family, own[family]["color"])
        if i % _ACROSS:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel("MaxVio / floor", fontsize=6.8)
        if i + _ACROSS >= len(families):
            axes.set_xlabel("steps since the shift", labelpad=1, fontsize=6.8)
        else:
            axes.tick_params(labelbottom=False)
    first = rows.iloc[0]
    figure.text(
        0.01, 1.0 - 0.06 / figure.get_figheight(),
        f"{first['source']}: sudden shift after step {first['shift']:,}; mean over {first['n_seeds']} seeds",
        fontsize=8, verticalalignment="top",
    )  # fmt: skip
    grey: dict[str, Any] = {"color": "0.35"}
    style.legend_below(
        figure,
        [
            Line2D([], [], label="tuned, or only setting", **grey),
            Line2D([], [], linestyle=":", label="default", **grey),
            Line2D([], [], color="0.85", label="the other rules"),
            Line2D([], [], color=style.INK, linewidth=0.9, linestyle=style.BOUND, label="sampling floor"),
            Line2D(
                [], [], color=style.INK, linewidth=0.6, linestyle=":", label=f"{GOAL:g} floors: recovered"
            ),
        ],
    )
    return figure


def _tuned(rows: pd.DataFrame) -> set[str]:
    return set(rows.loc[rows["role"] == "tuned", "family"])


def _line(
    row: Mapping[Any, Any], cells: pd.DataFrame, curves: Mapping[str, Curve]
) -> tuple[IntArray, Float64Array]:
    """Steps since the shift and the mean of the smoothed MaxVio over the reported seeds, in floors."""
    of_rule = (cells["group"] == row["group"]) & (cells["rule"] == row["rule"])
    done = (cells["outcome"] == "horizon_reached") & ~cells["seed"].isin(row["tuning_seeds"])
    found = [curves[cell] for cell in cells.loc[of_rule & done, "cell"]]
    after = found[0].steps > row["shift"]
    mean = np.mean([curve.violation[after] for curve in found], axis=0) / row["max_violation_floor"]
    return found[0].steps[after] - row["shift"], np.asarray(mean, dtype=np.float64)


def _dress(axes: Axes, family: str, colour: str) -> None:
    style.decades(axes, x=True)
    axes.set_yscale("log")
    axes.set_yticks([1.0, 2.0, 5.0, 10.0], ["1", "2", "5", "10"])
    axes.minorticks_off()
    axes.axhline(1.0, color=style.INK, linewidth=0.9, linestyle=style.BOUND)
    axes.axhline(GOAL, color=style.INK, linewidth=0.6, linestyle=":")
    axes.set_title(family, loc="left", fontsize=7, color=colour, pad=2)
