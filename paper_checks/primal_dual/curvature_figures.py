"""Figures of S1 to S3."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from balancesim.checks import Findings
from balancesim.report import style

# Inches.
_LEFT, _RIGHT, _WIDTH, _HEIGHT, _TOP = 0.62, 0.12, 2.62, 2.3, 0.3

SHOWN_FAMILIES = ("uniform", "exponential", "gumbel", "normal", "cauchy", "pareto 1.5")
"""Families of S2's left panel; the others lie close to one of these."""

_METHODS = ("gap", "difference", "naive: places K and K+1")


def _panels(below: float, width: float = _WIDTH) -> tuple[Figure, Axes, Axes]:
    """Two panels above a margin, the right one of a width."""
    figure = style.new_figure(below + _HEIGHT + _TOP)
    left = style.add_axes(figure, _LEFT, below, _WIDTH, _HEIGHT)
    right = style.add_axes(figure, style.WIDTH - _RIGHT - width, below, width, _HEIGHT)
    return figure, left, right


def _ticks(axis: Axis, low: float, high: float) -> None:
    """Label 1, 2 and 5 of every decade between two values of a logarithmic axis."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [digit * 10.0**power for power in decades for digit in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])


def _legend(axes: Axes, handles: list[Any], columns: int) -> None:
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(-0.06, -0.16), ncols=columns, fontsize=6.5,
        columnspacing=1.0, handlelength=1.8, handletextpad=0.5, borderaxespad=0.0,
    )  # fmt: skip


def draw_hessian(findings: Findings) -> Figure:
    """Entries by quadrature against counts; the least modulus against its bound."""
    data = findings.data
    figure, left, right = _panels(0.98)
    start, handles = 0, []
    for i, (label, size) in enumerate(zip(data["labels"], data["n_pairs"], strict=True)):
        part = slice(start, start + int(size))
        start += int(size)
        look = style.distinct_look(i)
        x, y = np.asarray(data["quadrature"])[part], np.asarray(data["counted"])[part]
        low, high = np.asarray(data["low"])[part], np.asarray(data["high"])[part]
        left.errorbar(
            x, y, yerr=np.stack([y - low, high - y]), linestyle="none", markersize=2.6, elinewidth=0.5,
            markeredgewidth=0.0, **look,
        )  # fmt: skip
        handles.append(Line2D([], [], linestyle="none", markersize=3.5, label=label, **look))
    style.decades(left, x=True, y=True)
    ends = np.array([np.min(data["quadrature"]) * 0.8, np.max(data["quadrature"]) * 1.25])
    left.plot(ends, ends, color=style.INK, linewidth=0.7, zorder=1)
    for axis in (left.xaxis, left.yaxis):
        _ticks(axis, *ends.tolist())
    left.set_xlabel("h_kj by quadrature, per score unit")
    left.set_ylabel("h_kj counted")
    left.set_title("tie densities of all pairs", loc="left")
    _legend(left, handles, 1)
    handles = []
    labels = np.array(data["domain_labels"])
    curves = np.asarray(data["bound_curves"])
    for i, label in enumerate(dict.fromkeys(data["domain_labels"])):
        mine = labels == label
        look = style.distinct_look(i)
        radii, least = np.asarray(data["radii"])[mine], np.asarray(data["least_modulus"])[mine]
        right.plot(radii, least, linestyle="none", markersize=4.5, markerfacecolor="none", **look)
        right.plot(data["curve_radii"], curves[i], color=look["color"], linewidth=1.1)
        handles.append(Line2D([], [], markersize=3.5, markerfacecolor="none", label=label, **look))
    style.decades(right, y=True)
    positive = curves[curves > 0.0]
    right.set_ylim(float(positive.min()) * 0.8, 1.25)
    right.set_xlim(0.0, float(np.max(data["radii"])) * 1.05)
    _ticks(right.yaxis, float(positive.min()) * 0.8, 1.0)
    right.set_xlabel("R, score units")
    right.set_ylabel("modulus / modulus at p*")
    right.set_title("least modulus over |p_k| <= R and its bound", loc="left")
    _legend(right, handles, 1)
    return figure


def draw_closed_forms(findings: Findings) -> Figure:
    """The modulus against K, and the distance of two computations."""
    data = findings.data
    figure, left, right = _panels(0.82)
    handles = []
    for i, family in enumerate(SHOWN_FAMILIES):
        look = style.distinct_look(i)
        left.plot(data["ks"], np.asarray(data["lines"])[i], color=look["color"])
        left.plot(data["some_ks"], np.asarray(data["points"])[i], linestyle="none", markersize=3.8, **look)
        handles.append(Line2D([], [], markersize=3.5, label=family, **look))
    style.decades(left, y=True)
    left.set_xlabel("K, of E = 64")
    left.set_ylabel("modulus, per score unit")
    left.set_title("modulus at p*", loc="left")
    _legend(left, handles, 3)
    errors = np.maximum(np.asarray(data["errors"], dtype=np.float64), 1e-16)
    for i, row in enumerate(errors):
        right.plot(np.full(row.size, i), row, linestyle="none", marker="o", markersize=3.0, color="#0072B2")
    right.axhline(1e-8, color=style.INK, linewidth=0.9, linestyle=style.BOUND)
    right.annotate("asked: 1e-8", (1.0, 1e-8), (-2, 3), xycoords=("axes fraction", "data"),
                   textcoords="offset points", fontsize=6.8, horizontalalignment="right")  # fmt: skip
    style.decades(right, y=True)
    right.set_ylim(5e-17, 1e-6)
    right.set_xticks(range(len(errors)), data["families"], rotation=40, ha="right", rotation_mode="anchor")
    right.set_ylabel("relative distance")
    right.set_title("quadrature against closed form or integral", loc="left")
    return figure


def draw_estimates(findings: Findings) -> Figure:
    """Bias against the width; coverage by source."""
    data = findings.data
    figure, left, right = _panels(0.68, 2.1)
    bias, error, expected = (np.asarray(data[name]) for name in ("bias", "bias_error", "expected"))
    handles = []
    for i, method in enumerate(_METHODS):
        look = style.distinct_look(i)
        left.plot(data["line_widths"], np.abs(expected[i]), color=look["color"])
        left.errorbar(
            data["widths"], np.abs(bias[i]), yerr=1.96 * error[i],
            linestyle="none", markersize=3.5, elinewidth=0.8, **look,
        )  # fmt: skip
        handles.append(Line2D([], [], markersize=3.5, label=method, **look))
    style.decades(left, x=True, y=True)
    left.set_ylim(1e-5, 1.0)
    left.set_xlabel("w / spread around the K-th place")
    left.set_ylabel("relative bias of the trace")
    left.set_title("bias against the width", loc="left")
    _legend(left, handles, 3)
    coverage = 100.0 * np.asarray(data["coverage"])  # (trials, gap or difference, quantity)
    places = np.arange(len(coverage))[::-1]
    right.axvspan(93.0, 97.0, color="0.92", linewidth=0.0)
    handles = []
    for i, quantity in enumerate(("h_kj", "trace(H)/(E-1)", "lambda_2")):
        look = style.distinct_look(i)
        for j, (shift, filling) in enumerate(((0.13, look["color"]), (-0.13, "white"))):
            right.plot(
                coverage[:, j, i], places + shift, linestyle="none", markersize=3.8, markerfacecolor=filling,
                clip_on=False, zorder=3, **look,
            )  # fmt: skip
        handles.append(Line2D([], [], linestyle="none", markersize=3.5, label=quantity, **look))
    right.set_yticks(places, data["trials"])
    right.set_ylim(-0.6, len(coverage) - 0.4)
    right.set_xlim(90.0, 100.0)
    right.set_xlabel("covered, % of replications")
    right.set_title("coverage (hollow: difference)", loc="left")
    _legend(right, handles, 3)
    return figure
