"""The ratios of a run of `balancesim bench` against their goals, as one figure."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from balancesim.bench.rows import Ratio, Row
from balancesim.bench.timing import Estimate
from balancesim.report import style
from balancesim.sweep.atomic import write_atomically

# Inches.
_LEFT, _RIGHT, _TOP, _FOOT, _AXIS = 2.7, 0.2, 0.28, 0.25, 0.4
_PITCH = 0.155
_ACROSS, _CURVE, _MARGIN = 3, 1.2, 0.5

_REACHED, _MISSED = "#0072B2", "#D55E00"
_LINE: dict[str, Any] = {"marker": "o", "markersize": 3.0, "linewidth": 1.2}
_TITLES = {
    Ratio.PEER_OVER_OURS: "peer / ours: further right is better",
    Ratio.OURS_OVER_PEER: "ours / peer: further left is better",
}


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw and write a figure.

    Parameters
    ----------
    rows : sequence of Row
        The comparisons; those without a ratio are left out.
    path : Path
        Its ending is the format.
    """
    with style.settings():
        figure = ratio_figure(rows)
        kind = path.suffix.removeprefix(".")
        write_atomically(path, functools.partial(figure.savefig, format=kind, metadata=_METADATA.get(kind)))


def ratio_figure(rows: Sequence[Row]) -> Figure:
    """Draw the ratios on logarithmic axes, with intervals and goals.

    Parameters
    ----------
    rows : sequence of Row
        The comparisons; those without a ratio are left out.

    Returns
    -------
    Figure
        7 inches wide, one panel for each way of dividing; save it inside `balancesim.report.style.settings`.
    """
    curves = [row for row in rows if row.curve]
    panels = {way: [row for row in rows if row.goal.ratio is way and row.ratio] for way in _TITLES}
    heights = {way: _PITCH * (len(members) + 0.6) for way, members in panels.items() if members}
    total = _FOOT + sum(_TOP + height + _AXIS for height in heights.values())
    n_lines = -(-len(curves) // _ACROSS)
    total += n_lines * (_TOP + _CURVE + _AXIS)
    figure = style.new_figure(total)
    top = total
    for way, height in heights.items():
        top -= _TOP + height
        axes = style.add_axes(figure, _LEFT, top, style.WIDTH - _LEFT - _RIGHT, height)
        _panel(axes, panels[way])
        axes.set_title(_TITLES[way], loc="left", fontweight="bold", pad=4)
        top -= _AXIS
    across = style.WIDTH / _ACROSS
    for place, row in enumerate(curves):
        left = across * (place % _ACROSS) + _MARGIN
        bottom = top - (place // _ACROSS) * (_TOP + _CURVE + _AXIS) - _TOP - _CURVE
        _curve(style.add_axes(figure, left, bottom, across - _MARGIN - _RIGHT, _CURVE), row)
    style.legend_below(figure, _handles())
    return figure


_METADATA = {"svg": {"Date": None}, "png": {"Software": None}, "pdf": {"CreationDate": None}}


def _panel(axes: Axes, rows: Sequence[Row]) -> None:
    style.decades(axes, x=True)
    axes.set_ylim(len(rows) - 0.3, -0.9)
    axes.set_yticks(range(len(rows)), [f"{row.case}: {row.peer_name}" for row in rows], fontsize=6.5)
    axes.tick_params(axis="y", length=0)
    axes.yaxis.grid(visible=False)
    axes.spines["left"].set_visible(False)
    reach = [1.0]
    for place, row in enumerate(rows):
        if row.ratio is None:
            continue
        _dot(axes, place, row.ratio, row.met)
        reach += [row.ratio.low, row.ratio.high]
        if row.ratio_with_build is not None:
            axes.plot([row.ratio_with_build.median], [place], **_look("o", "white", "0.45", 3.0))
            reach.append(row.ratio_with_build.median)
        if row.goal.bound is not None:
            axes.plot([row.goal.bound] * 2, [place - 0.4, place + 0.4], color=style.INK, linewidth=1.1)
            reach.append(row.goal.bound)
    axes.axvline(1.0, color=style.GREY, linewidth=0.7)
    axes.set_xlim(0.7 * min(reach), 1.4 * max(reach))


def _curve(axes: Axes, row: Row) -> None:
    """Seconds against a size, beside a straight line through the last point."""
    sizes, seconds = zip(*row.curve, strict=True)
    axes.loglog(sizes, seconds, color=_REACHED if row.met else _MISSED, **_LINE)
    axes.loglog(sizes, [seconds[-1] * size / sizes[-1] for size in sizes], color=style.GREY, linewidth=0.8)
    axes.set_xticks(sizes, [f"{size:g}" for size in sizes], fontsize=6.5)
    axes.minorticks_off()
    slope = "" if row.ours is None else f", exponent {row.ours.median:.2f}"
    axes.set_title(f"{row.case.removeprefix('exponent of time in ').partition(',')[0]}{slope}", loc="left")
    axes.set_ylabel("seconds", fontsize=6.5)


def _dot(axes: Axes, place: int, ratio: Estimate, met: bool | None) -> None:
    marker, colour = _MARKS[met]
    axes.plot([ratio.low, ratio.high], [place, place], color=colour, linewidth=1.2)
    axes.plot([ratio.median], [place], **_look(marker, colour, colour, 3.8))


def _look(marker: str, face: str, edge: str, size: float) -> dict[str, Any]:
    return {
        "marker": marker,
        "markerfacecolor": face,
        "markeredgecolor": edge,
        "markersize": size,
        "linestyle": "none",
    }


_MARKS: dict[bool | None, tuple[str, str]] = {
    True: ("o", _REACHED),
    False: ("X", _MISSED),
    None: ("D", "0.5"),
}


def _handles() -> list[Line2D]:
    words = {True: "goal reached", False: "goal missed", None: "no goal"}
    dots = [
        Line2D([], [], label=word, **_look(_MARKS[met][0], _MARKS[met][1], _MARKS[met][1], 3.8))
        for met, word in words.items()
    ]
    build = Line2D([], [], label="with the peer's set-up", **_look("o", "white", "0.45", 3.0))
    goal = Line2D([], [], label="goal", color=style.INK, linewidth=1.1, marker="|", linestyle="none")
    return [*dots, build, goal]
