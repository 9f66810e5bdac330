"""Score given up against imbalance left: a figure for all sources, and one for each with every rule named."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from balancesim.report import style
from balancesim.report.race.rows import representative

_NEAR = 1.5
"""Rules within this factor of the floor are shown once more, closer."""

_DEEPEST = 8.0
"""Imbalance below the floor by more than this factor is drawn there."""

_LONGEST = 28
"""Characters of a rule's name and setting that there is room for."""

# Inches.
_LEFT, _BOTTOM, _TITLE, _GAP = 0.58, 0.66, 0.42, 0.5
_ALL, _CLOSE, _HEIGHT = 2.05, 2.3, 3.3
_PANEL, _PITCH_X, _PITCH_Y, _LINE = 1.65, 2.22, 1.9, 0.15

_LOST = "score lost per token and batch [score units]"
_LEFT_OVER = "imbalance left: batch MaxVio"


def looks(rows: pd.DataFrame) -> dict[str, style.Look]:
    """Colour and marker of every rule, by the order of the run; a hollow marker is a current-batch rule."""
    causal = dict(zip(rows["family"], rows["causal"], strict=True))
    found = {}
    for i, family in enumerate(sorted(causal, key=lambda one: (not causal[one], one))):
        look = style.distinct_look(i)
        found[family] = {
            **look,
            "markerfacecolor": look["color"] if causal[family] else "white",
            "markeredgewidth": 1.1,
            "linestyle": "none",
        }
    return found


def source_figure(rows: pd.DataFrame) -> Figure:
    """Draw one source: all rules, and once more those near the sampling floor, each named.

    Parameters
    ----------
    rows : DataFrame
        The rows of one source, as `race_rows` makes them.

    Returns
    -------
    Figure
        Draw and save it inside :func:`balancesim.report.style.settings`.
    """
    rows = rows.assign(is_balanced=rows["max_violation"] == 0.0, drops=rows["drop_rate"] > 0.0)
    shown, first = representative(rows), rows.iloc[0]
    near = _near(shown)
    far = shown.drop(near.index)
    height = max(_HEIGHT, _LINE * (max(len(near), len(far)) + 1))
    figure = style.new_figure(_BOTTOM + height + _TITLE)
    own = looks(rows)
    left = style.add_axes(figure, _LEFT, _BOTTOM, _ALL, height)
    _points(left, rows, own)
    _front(left, rows)
    _beside(left, far, height, own)
    left.set_ylabel(_LEFT_OVER)
    left.set_title("all rules", loc="left")
    left.set_xlabel(_LOST, labelpad=2)
    if len(near):
        close = style.add_axes(figure, _LEFT + _ALL + _GAP, _BOTTOM, _CLOSE, height)
        _points(close, rows, own)
        _front(close, rows)
        _zoom(close, near)
        _name(close, near, own, height)
        close.set_title(f"those within a factor {_NEAR:g} of the floor", loc="left")
        close.set_xlabel(_LOST, labelpad=2)
    sizes = f"E={first['n_experts']}, K={first['k']}, T={first['n_tokens']}"
    figure.text(
        0.01, 1.0 - 0.06 / figure.get_figheight(), f"{first['source']}: {sizes}", fontsize=8,
        verticalalignment="top",
    )  # fmt: skip
    style.legend_below(figure, _handles(shown))
    return figure


def summary_figure(rows: pd.DataFrame) -> Figure:
    """Draw every source in a panel of its own, near the sampling floor where two rules or more are.

    Parameters
    ----------
    rows : DataFrame
        What `race_rows` returns.

    Returns
    -------
    Figure
        Draw and save it inside :func:`balancesim.report.style.settings`.
    """
    sources = list(rows.groupby("group", sort=False))
    own = looks(rows)
    n_across = 3
    n_lines = -(-len(own) // 4) + 1
    below = 0.45 + 0.16 * n_lines
    n_down = -(-len(sources) // n_across)
    figure = style.new_figure(below + n_down * (_PITCH_Y + 0.1))
    for i, (_, members) in enumerate(sources):
        across, down = i % n_across, i // n_across
        bottom = below + (n_down - 1 - down) * (_PITCH_Y + 0.1) + 0.1
        axes = style.add_axes(figure, _LEFT + across * _PITCH_X, bottom, _PANEL, _PITCH_Y - 0.45)
        shown = representative(members)
        near = _near(shown)
        _points(axes, members, own)
        _front(axes, members)
        if len(near) > 1:
            _zoom(axes, near)
            axes.xaxis.set_major_locator(MaxNLocator(3))
        source = str(members["source"].iloc[0])
        axes.set_title(source if len(source) < 34 else source.partition(" (")[0], loc="left", fontsize=7)
        if across == 0:
            axes.set_ylabel(_LEFT_OVER, fontsize=6.8)
        if i + n_across >= len(sources):
            axes.set_xlabel(_LOST, labelpad=1, fontsize=6.8)
    names = [Line2D([], [], label=family, markersize=4.5, **look) for family, look in own.items()]
    figure.legend(
        handles=[*names, *_handles(representative(rows))], loc="lower left", bbox_to_anchor=(0.0, 0.0),
        ncols=4, fontsize=6.8, columnspacing=1.0, handletextpad=0.4, borderaxespad=0.3,
    )  # fmt: skip
    return figure


def _points(axes: Axes, rows: pd.DataFrame, own: Mapping[str, style.Look]) -> None:
    """All rows as markers; the default of a tuned rule is small and joined to it."""
    axes.set_yscale("log")
    floor, bottom = float(rows["max_violation_floor"].iloc[0]), _bottom(rows)
    rows = rows.assign(max_violation=rows["max_violation"].clip(lower=bottom))
    axes.axhline(floor, color=style.INK, linewidth=0.9, linestyle=style.BOUND, zorder=1.5)
    shown = representative(rows)
    places = {row["family"]: (row["lost"], row["max_violation"]) for row in _records(shown)}
    for row in _records(rows.drop(shown.index)):
        end, look = places[row["family"]], own[row["family"]]
        axes.plot([row["lost"], end[0]], [row["max_violation"], end[1]], color=look["color"], linewidth=0.6)
        axes.plot([row["lost"]], [row["max_violation"]], markersize=2.6, **look)
    for row in _records(shown):
        look = own[row["family"]]
        axes.plot([row["lost"]], [row["max_violation"]], markersize=5.0, zorder=3, **look)
    top = float(rows["max_violation"].max())
    axes.set_ylim(0.9 * bottom, 1.25 * max(top, 1.2 * floor))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=9))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_major_locator(MaxNLocator(4))


def _bottom(rows: pd.DataFrame) -> float:
    """Where the least imbalance is drawn, perfect balance among it: a logarithmic axis has no zero."""
    floor = float(rows["max_violation_floor"].iloc[0])
    return 0.9 * max(min(floor, float(rows["max_violation"].min())), floor / _DEEPEST)


def _front(axes: Axes, rows: pd.DataFrame) -> None:
    """The Pareto front of the causal rules, and that of the current-batch rules dashed, as in the table."""
    rows = rows.assign(max_violation=rows["max_violation"].clip(lower=_bottom(rows)))
    for causal, linestyle in ((True, "-"), (False, "--")):
        front = rows[(rows["causal"] == causal) & rows["on_front"]].sort_values(["lost", "max_violation"])
        axes.step(
            front["lost"], front["max_violation"],
            where="post", color="0.55", linewidth=0.9, linestyle=linestyle, zorder=1.8,
        )  # fmt: skip


def _near(shown: pd.DataFrame) -> pd.DataFrame:
    """The rows within a factor of the sampling floor."""
    in_floors = shown["max_violation"] / shown["max_violation_floor"]
    return shown[(in_floors <= _NEAR) & (in_floors >= 1.0 / _NEAR)]


def _zoom(axes: Axes, near: pd.DataFrame) -> None:
    """Limits around the rules near the floor."""
    low, high = float(near["lost"].min()), float(near["lost"].max())
    margin = 0.12 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set_xlim(low - margin, high + margin)
    floor, top = float(near["max_violation_floor"].iloc[0]), float(near["max_violation"].max())
    bottom = min(floor, float(near["max_violation"].min()))
    room = max(top / bottom, 1.02) ** 0.08
    axes.set_ylim(bottom / room, max(top, 1.02 * floor) * room)
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _name(axes: Axes, rows: pd.DataFrame, own: Mapping[str, style.Look], height: float) -> None:
    """Name each rule in a column at the right, a thin line leading from its marker."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    transform = axes.transScale + axes.transLimits
    ordered = rows.sort_values("max_violation")
    ends = [
        float(transform.transform((x, y))[1])
        for x, y in zip(ordered["lost"], ordered["max_violation"], strict=True)
    ]
    texts = [_text(row) for row in _records(ordered)]
    places = style.spread_out(ends, texts, _LINE / height)
    for place, text, row in zip(places, texts, _records(ordered), strict=True):
        colour = own[row["family"]]["color"]
        axes.annotate(
            text, (row["lost"], row["max_violation"]), (1.04, place), xycoords="data",
            textcoords="axes fraction", fontsize=6.5, verticalalignment="center", color=colour,
            annotation_clip=False, arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.35, "shrinkB": 2},
        )  # fmt: skip


def _beside(axes: Axes, far: pd.DataFrame, height: float, own: Mapping[str, style.Look]) -> None:
    """Name the rules far from the floor inside their panel, on the side where there is room."""
    low, high = axes.get_xlim()
    far = far.assign(max_violation=far["max_violation"].clip(lower=axes.get_ylim()[0] / 0.9))
    transform = axes.transScale + axes.transLimits
    ordered = far.sort_values("max_violation")
    points = [
        transform.transform(point) for point in zip(ordered["lost"], ordered["max_violation"], strict=True)
    ]
    texts = [_text(row) for row in _records(ordered)]
    # Perfect balance lies on the axis: its names go above the markers there.
    lift = [1.5 * _LINE / height * bool(balanced) for balanced in ordered["is_balanced"]]
    ends = [float(point[1]) + more for point, more in zip(points, lift, strict=True)]
    places = style.spread_out(ends, texts, _LINE / height)
    for place, point, text, row in zip(places, points, texts, _records(ordered), strict=True):
        right = point[0] > 0.5
        axes.annotate(
            text, (row["lost"], row["max_violation"]), (point[0] - 0.05 if right else point[0] + 0.05, place),
            xycoords="data", textcoords="axes fraction", fontsize=6.5, verticalalignment="center",
            horizontalalignment="right" if right else "left", color=own[row["family"]]["color"],
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}, zorder=2.5,
            arrowprops={"arrowstyle": "-", "color": own[row["family"]]["color"], "lw": 0.35},
        )  # fmt: skip
    axes.set_xlim(low, high)


def _records(rows: pd.DataFrame) -> list[dict[Any, Any]]:
    """The rows as mappings, whose values pandas' stubs leave untyped."""
    return rows.to_dict("records")


def _text(row: Mapping[Any, Any]) -> str:
    """The rule, and its setting where that is short enough to stay in the figure."""
    text = f"{row['family']} {row['setting']}".strip()
    text = text if len(text) <= _LONGEST else row["family"]
    text = f"{text} (none left)" if row["is_balanced"] else text
    return f"{text} (drops)" if row["drops"] else text


def _handles(shown: pd.DataFrame) -> Sequence[Line2D]:
    grey: style.Look = {"color": "0.35", "linestyle": "none", "marker": "o"}
    handles = [
        Line2D([], [], markersize=5.0, label="tuned, or only setting", **grey),
        Line2D([], [], markersize=2.6, label="default", **grey),
        Line2D([], [], color=style.INK, linewidth=0.9, linestyle=style.BOUND, label="sampling floor"),
        Line2D([], [], color="0.55", linewidth=0.9, label="Pareto front, causal"),
    ]
    if (shown["drop_rate"] > 0.0).any():
        handles.append(Line2D([], [], linestyle="none", label="(drops): places left empty"))
    if not shown["causal"].all():
        hollow = Line2D([], [], markersize=5.0, markerfacecolor="white", label="current-batch", **grey)
        handles.append(hollow)
    return handles
