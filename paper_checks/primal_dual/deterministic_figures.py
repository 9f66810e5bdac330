"""The figures of D1 to D5."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from balancesim.checks import Findings
from balancesim.report import style
from balancesim.types import Float64Array

_SMALL: style.Look = {"linestyle": "none", "markersize": 2.2, "markeredgewidth": 0.0, "alpha": 0.8}


def identity(findings: Findings) -> Figure:
    """D1: the two terms, and what the identity misses."""
    data = findings.data
    figure = style.new_figure(3.4)
    terms = style.add_axes(figure, 0.6, 0.95, 2.6, 2.2)
    missed = style.add_axes(figure, 4.0, 0.95, 2.8, 2.2)
    for i in range(len(data["names"])):
        look = style.distinct_look(i)
        terms.plot(data[f"squares{i}"], data[f"benefits{i}"], **_SMALL, **look)
        for key, line in (("errors", "-"), ("plain", ":")):
            values = np.sort(np.maximum(data[f"{key}{i}"], 1e-18))
            missed.plot(np.arange(1, len(values) + 1) / len(values), values, line, color=look["color"])
    style.decades(terms, x=True, y=True)
    ends = terms.get_xlim()
    terms.plot(ends, ends, color=style.INK, linewidth=0.7, zorder=1.0)
    terms.set_xlim(ends)
    terms.set(xlabel="squares, sum of eps (A - L)² [score units]", ylabel="switching benefits [score units]")
    terms.set_title("below the line the dual falls", loc="left")
    style.decades(missed, y=True)
    missed.axhline(1e-9, color=style.GREY)
    missed.set(xlabel="part of the steps", ylabel="error relative to both terms", xlim=(0.0, 1.0))
    missed.set_title("what the identity misses", loc="left")
    _names(figure, data["names"])
    return figure


def no_overshoot(findings: Findings) -> Figure:
    """D2: the change against its bound."""
    data = findings.data
    figure = style.new_figure(3.9)
    axes = style.add_axes(figure, 0.7, 0.95, 6.0, 2.75)
    for i in range(len(data["names"])):
        axes.plot(data[f"ceiling{i}"], data[f"change{i}"], **_SMALL, **style.distinct_look(i))
    axes.fill_between([0.0, 1.05], -1.05, 0.0, color="0.93", zorder=0.0)
    axes.axhline(0.0, color=style.GREY, linewidth=0.8)
    axes.axvline(0.0, color=style.GREY, linewidth=0.8)
    axes.plot([-1.0, 1.0], [-1.0, 1.0], color=style.INK, linewidth=0.7, zorder=1.0)
    axes.set(xlabel="bound, sum of delta (A+ - L) / D1's terms", ylabel="change of D / D1's terms")
    axes.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05))
    for x, text in ((-0.97, "no overshoot: D never rises"), (0.03, "overshoot")):
        axes.text(x, 0.88, text, fontsize=7.0)
    _names(figure, data["names"])
    return figure


def admissible(findings: Findings) -> Figure:
    """D3: t* along runs, and how many steps are monotone."""
    data = findings.data
    figure = style.new_figure(3.2)
    along = style.add_axes(figure, 0.6, 0.75, 2.9, 2.1)
    parts = style.add_axes(figure, 4.1, 0.75, 2.7, 2.1)
    scale = data["scale"]
    for schedule, colour in style.COLOURS.items():
        along.plot(data[f"violation {schedule}"], data[f"length {schedule}"], "o", color=colour, **_SMALL)
    along.axhline(scale, color=style.INK, linewidth=0.8)
    violation, total = (np.array(data[f"{name} sign"]) for name in ("violation", "sum"))
    cross: style.Look = {"marker": "x", "linestyle": "none", "markersize": 2.5, "markeredgewidth": 0.5}
    along.plot(violation, scale * total / data["n_experts"], color=style.INK, **cross)
    style.decades(along, x=True, y=True)
    along.set(xlabel="largest violation, max|A - L|/T", ylabel="t* as a step size u [score units]")
    along.set_title("(a) the longest monotone step", loc="left")
    for schedule, row in zip(style.COLOURS, _by_schedule(data), strict=True):
        parts.plot(data["parts"], row, "o-", color=style.COLOURS[schedule], markersize=3.0)
    parts.axvline(1.0, color=style.GREY, linewidth=0.8)
    style.decades(parts, x=True)
    parts.set(
        xlabel="u / (2/mu), sign: u / (0.2/mu)", ylabel="part of steps that do not raise D", ylim=(0.0, 1.04)
    )
    parts.set_title("(b) monotone steps of a run", loc="left")
    handles = [
        Line2D([], [], color=colour, marker="o", markersize=3.0, label=name)
        for name, colour in style.COLOURS.items()
    ]
    handles.append(Line2D([], [], color=style.INK, linewidth=0.8, label="2/mu"))
    handles.append(Line2D([], [], color=style.INK, label="2 |g|\N{SUBSCRIPT ONE}/(mu E), sign", **cross))
    style.legend_below(figure, handles)
    return figure


def _by_schedule(data: Any) -> list[Float64Array]:
    """The rows of ``fractions`` in the order of the colours."""
    schedules = ("sign", "constant", "harmonic", "sqrt")
    return [np.asarray(data["fractions"])[schedules.index(name)] for name in style.COLOURS]


def preference(findings: Findings) -> Figure:
    """D4: how prices moved in favour of the entered expert, and what rounding explains."""
    data = findings.data
    figure = style.new_figure(3.0)
    moved = style.add_axes(figure, 0.6, 0.75, 3.2, 1.95)
    gaps = style.add_axes(figure, 4.5, 0.75, 2.3, 1.95)
    edges = np.arange(-8.5, 9.0) / 4.0
    for i, name in enumerate(data["names"]):
        counts = np.histogram(data[f"rises{i}"], edges)[0]
        centres = (edges[1:] + edges[:-1]) / 2.0
        moved.plot(
            centres,
            np.where(counts > 0, counts, np.nan),
            label=name,
            markersize=3.0,
            **style.distinct_look(i),
        )
    moved.axvspan(edges[0], 0.05, color="0.93", zorder=0.0)
    style.decades(moved, y=True)
    moved.set(xlabel="delta of the entered less that of the left [score units]", ylabel="pairs")
    moved.set_title("dyadic scores: nothing at or below 0", loc="left")
    figure.legend(loc="lower left", bbox_to_anchor=(0.0, 0.0), ncols=3, fontsize=6.8)
    gaps.hist(np.asarray(data["gaps"]), bins=[0.1 * i for i in range(26)], color=style.COLOURS["harmonic"])
    gaps.axvline(2.0, color=style.INK, linewidth=0.8)
    gaps.set(xlabel="distance of the two scores [ulp]", ylabel="pairs against the price", xlim=(0.0, 2.5))
    gaps.set_title("floating point", loc="left")
    return figure


def approximate_balance(findings: Findings) -> Figure:
    """D5: runs into the band, cycles beyond it, and the time that it takes."""
    data = findings.data
    figure = style.new_figure(5.4)
    paths = style.add_axes(figure, 0.6, 3.1, 6.2, 2.0)
    swings = style.add_axes(figure, 0.6, 0.5, 2.7, 2.0)
    entries = style.add_axes(figure, 4.1, 0.5, 2.7, 2.0)
    _paths(paths, data)
    factors, values = np.asarray(data["factors"]), np.asarray(data["swings"])
    for factor, row in zip(factors, values, strict=True):
        swings.plot(np.full(len(row), factor), row, "o", color=style.COLOURS["sign"], **_SMALL)
    swings.plot(factors, np.median(values, axis=1), color=style.COLOURS["sign"])
    swings.axhline(1.0, color=style.INK, linewidth=0.8, linestyle="--")
    swings.axvline(1.0, color=style.GREY, linewidth=0.8)
    swings.set_xscale("log", base=2)
    swings.set(xlabel="u / largest admissible", ylabel="max|A - L| in the cycle / (E - 1)")
    swings.set_title("(b) the cycle, and what larger steps do", loc="left")
    for i, name in enumerate(("normal", "residues")):
        entered = np.asarray(data[f"entered {name}"], float)
        look = style.distinct_look(i)
        for tokens, row in zip(data["tokens"], entered, strict=True):
            entries.plot(np.full(len(row), tokens), np.maximum(row, 1.0), **_SMALL, **look)
        entries.plot(
            data["tokens"], np.nanmedian(np.maximum(entered, 1.0), axis=1), color=look["color"], label=name
        )
    style.decades(entries, y=True)
    entries.set_xscale("log", base=2)
    entries.set_xticks(np.asarray(data["tokens"]), [str(n) for n in data["tokens"]])
    entries.set(xlabel="tokens T", ylabel="steps until within E - 1 for good")
    entries.set_title("(c) the time that it takes", loc="left")
    entries.legend()
    return figure


def _paths(axes: Axes, data: Any) -> None:
    for i, name in enumerate(data["paths"]):
        look = style.distinct_look(i)
        path, entered = np.asarray(data[f"path{i}"]), data[f"entered{i}"]
        axes.plot(np.arange(len(path)), path, color=look["color"], linewidth=0.9, label=name)
        if entered >= 0:
            axes.plot(entered, path[entered], **look, markersize=4.5)
    axes.set(xlabel="step", ylabel="max|A - L| [tokens]", ylim=(-0.4, None))
    axes.set_title("(a) residues, T=59, the largest admissible u", loc="left")
    axes.legend(loc="upper right")


def _names(figure: Figure, names: list[str]) -> None:
    handles = [
        Line2D([], [], linestyle="none", markersize=3.5, label=name, **style.distinct_look(i))
        for i, name in enumerate(names)
    ]
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.0, 0.0), ncols=3, fontsize=6.8,
        columnspacing=1.1, handletextpad=0.3, borderaxespad=0.3,
    )  # fmt: skip
