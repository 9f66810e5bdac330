"""The summary figure: every source and rule of a run, by its final regret and by its imbalance."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from balancesim.report import style
from balancesim.report.rows import CONTROL, RuleRow, rule_rows
from balancesim.types import Float64Array

# Inches.
_LEFT, _GAP, _RIGHT, _TOP, _BOTTOM = 0.78, 0.25, 0.15, 0.1, 0.62
_PITCH, _TALLEST = 0.145, 60.0
# In lines: what a source's heading takes, and the room above it.
_HEADING, _ROOM = 1.0, 0.6


def overview_figure(rules: pd.DataFrame) -> Figure:
    """Draw the final regret and the imbalance of every rule on every source.

    Parameters
    ----------
    rules : DataFrame
        The grouped summary of a run. Rules without a seed that reached the horizon are left out.

    Returns
    -------
    Figure
        7 inches wide; draw and save it inside :func:`balancesim.report.style.settings`. Left: mean final
        regret with its 95 % interval, in units of the source's spread at the K-th place (in score units if
        that is not known for every source), and S4's bound as a dashed line. Right: mean batch MaxVio at the
        end, over its sampling floor. Current-batch rules stand apart, below the others of their source.
    """
    rows = [row for row in rule_rows(rules) if np.isfinite(row.max_violation)]
    places, headings, notes = _places(rows)
    n_lines = max(places.values(), default=0.0) + 0.7
    height = min(_TALLEST, _PITCH * n_lines)
    figure = style.new_figure(height + _TOP + _BOTTOM)
    width = 0.5 * (style.WIDTH - _LEFT - _GAP - _RIGHT)
    regret = style.add_axes(figure, _LEFT, _BOTTOM, width, height)
    balance = style.add_axes(figure, _LEFT + width + _GAP, _BOTTOM, width, height)
    for axes in (regret, balance):
        style.decades(axes, x=True)
        axes.set_ylim(n_lines, 0.0)
        axes.set_yticks(list(places.values()), [family for _, family in places] if axes is regret else [])
        axes.tick_params(axis="y", length=0)
        axes.yaxis.grid(visible=False)
        axes.spines["left"].set_visible(False)
        for place, _ in headings[1:]:
            axes.axhline(place - 0.5 * _HEADING - 0.15, color="0.75", linewidth=0.6)
    in_spreads = all(row.spread > 0.0 for row in rows)
    ranks = _ranks(rows)
    for row, rank in zip(rows, ranks, strict=True):
        place, unit = places[row.group, row.family], row.spread if in_spreads else 1.0
        _dot(regret, row, rank, place, np.array([row.regret_low, row.regret, row.regret_high]) / unit)
        violation = np.array([row.max_violation_low, row.max_violation, row.max_violation_high])
        _dot(balance, row, rank, place, violation / row.max_violation_floor)
    causal = [row for row in rows if row.causal]
    for row in {row.group: row for row in causal}.values():
        own = [places[other.group, other.family] for other in causal if other.group == row.group]
        bound = row.bound / (row.spread if in_spreads else 1.0)
        regret.plot(
            [bound] * 2,
            [min(own) - 0.5, max(own) + 0.5],
            color=style.INK,
            linewidth=0.9,
            linestyle=style.BOUND,
        )
    balance.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=9))
    balance.xaxis.set_major_formatter("{x:g}")
    balance.axvline(1.0, color=style.INK, linewidth=0.9)
    for place, text in headings:
        regret.annotate(
            text, (0.0, place), (4 - _LEFT * 72, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", verticalalignment="center", fontweight="bold", fontsize=7,
        )  # fmt: skip
    for place in notes:
        regret.annotate(
            "current-batch (at the left edge: zero or less)", (0.0, place), (4 - _LEFT * 72, 0),
            xycoords=("axes fraction", "data"), textcoords="offset points", verticalalignment="center",
            fontstyle="italic", fontsize=7,
        )  # fmt: skip
        for axes in (regret, balance):
            axes.axhline(place - 0.5, color="0.75", linewidth=0.6, linestyle=":")
    unit_name = "over the spread at the K-th place" if in_spreads else "[score units]"
    regret.set_xlabel(f"final regret per token, {unit_name}", labelpad=2)
    balance.set_xlabel("batch MaxVio at the end, over its sampling floor", labelpad=2)
    _legend(figure, rows, ranks)
    return figure


def _places(
    rows: Sequence[RuleRow],
) -> tuple[dict[tuple[int, str], float], list[tuple[float, str]], list[float]]:
    """Where each (group, family), each source's heading and each note "current-batch" lies, in lines."""
    places: dict[tuple[int, str], float] = {}
    headings: list[tuple[float, str]] = []
    notes: list[float] = []
    line = -0.1
    for _, members in groupby(rows, key=lambda row: row.group):
        line += (_ROOM if headings else 0.0) + _HEADING
        own = sorted(members, key=lambda row: not row.causal)
        headings.append((line - 0.25, f"{own[0].source} ({own[0].setting})"))
        noted = False
        for row in own:
            if not row.causal and not noted:
                line += _HEADING
                notes.append(line)
                noted = True
            key = (row.group, row.family)
            if key not in places:
                line += 1.0
                places[key] = line
    return places, headings, notes


def _ranks(rows: Sequence[RuleRow]) -> list[int]:
    """The place of each rule among the rules of its source and family."""
    seen: dict[tuple[int, str], int] = {}
    ranks = []
    for row in rows:
        key = (row.group, row.family)
        ranks.append(seen.get(key, 0))
        seen[key] = ranks[-1] + 1
    return ranks


def _look(family: str, rank: int) -> dict[str, Any]:
    """Marker of a rule; white inside, so that it covers a short interval."""
    marker, colour = style.look_of(rank)[2], style.colour_of(family)
    if family == CONTROL:
        marker, colour = "x", style.GREY
    return {
        "marker": marker,
        "color": colour,
        "markerfacecolor": "white",
        "markersize": 4.4,
        "linestyle": "none",
    }


def _dot(axes: Axes, row: RuleRow, rank: int, place: float, values: Float64Array) -> None:
    """A value with its interval; at the left edge, as an arrow, where a logarithmic axis cannot show it."""
    look = _look(row.family, rank)
    low, value, high = values
    if np.isnan(value):
        return
    if value > 0.0:
        axes.plot([value], [place], **look)
        if np.isfinite(high):
            axes.plot(
                [max(low, 0.2 * value), high], [place] * 2, color=look["color"], linewidth=0.9, zorder=1.9
            )
    else:
        axes.plot([0.01], [place], **look | {"marker": "<"}, transform=axes.get_yaxis_transform())


def _legend(figure: Figure, rows: Sequence[RuleRow], ranks: Sequence[int]) -> None:
    names: dict[int, list[str]] = {}
    for row, rank in zip(rows, ranks, strict=True):
        if row.causal and row.family != CONTROL:
            names.setdefault(rank, []).append(row.variant)
    handles = []
    for rank, labels in sorted(names.items()):
        label = f"step {labels[0]}" if len(set(labels)) == 1 else f"rule {rank + 1} of its family"
        handles.append(Line2D([], [], **_look("", rank) | {"color": style.INK}, label=label))
    if any(row.family == CONTROL for row in rows):
        handles.append(Line2D([], [], **_look(CONTROL, 0), label="no balancing"))
    if any(np.isfinite(row.bound) for row in rows):
        handles.append(style.bound_handle())
    handles.append(Line2D([], [], color=style.INK, linewidth=0.9, label="sampling floor; bars: 95 %"))
    style.legend_below(figure, handles)
