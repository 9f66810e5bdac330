"""Figures of S4 and S5."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from balancesim.checks import Findings
from balancesim.report import style

_FAMILY_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B07800", "#56B4E9", "#6A3D9A", "#000000")


def draw_bound(findings: Findings) -> Figure:
    """S4: an instance against its bounds; ratios with and without a domain; ratios by batch size."""
    data = findings.data
    figure = style.new_figure(5.75)
    _example(style.add_axes(figure, 0.6, 3.45, 2.65, 1.95), data["example"])
    _by_batch(style.add_axes(figure, 4.05, 3.45, 2.65, 1.95), data["largest"])
    axes = style.add_axes(figure, 0.6, 0.45, 3.6, 2.4)
    _ratios(axes, data["ratios"])
    return figure


def _example(axes: Axes, example: dict[str, Any]) -> None:
    steps = example["steps"]
    for key, label, look in (
        ("worst", "worst case", {"color": style.INK, "linestyle": style.BOUND}),
        ("by_loads", "by expected loads", {"color": "#009E73", "linewidth": 2.6, "alpha": 0.5}),
        ("measured", "measured gradients", {"color": "#D55E00", "linewidth": 1.0}),
        ("regret", "mean regret", {"color": "#0072B2", "linewidth": 1.6}),
    ):
        axes.plot(steps, example[key], label=label, **look)
    style.decades(axes, x=True, y=True)
    axes.set_ylim(bottom=0.5 * float(np.min(example["regret"][1:])))
    axes.set_title(example["name"], loc="left")
    axes.set_xlabel("steps n")
    axes.set_ylabel("regret [score units]")
    axes.legend(loc="lower right", fontsize=6.5)


def _ratios(axes: Axes, ratios: dict[str, Any]) -> None:
    handles = []
    for place, (name, found) in enumerate(ratios.items()):
        colour = _FAMILY_COLOURS[place % len(_FAMILY_COLOURS)]
        axes.plot(found["steps"][1:], found["inside"][1:], color=colour)
        axes.plot(found["steps"][1:], found["outside"][1:], color=colour, linestyle="--")
        handles.append(Line2D([], [], color=colour, label=name.removesuffix(", T=1")))
    handles += [
        Line2D([], [], color="0.4", label="projected, steps 1/(\N{GREEK SMALL LETTER MU}_C n)"),
        Line2D(
            [], [], color="0.4", linestyle="--", label="no domain, steps 1/(\N{GREEK SMALL LETTER MU}(p*) n)"
        ),
    ]
    axes.axhline(1.0, color=style.INK, linewidth=0.9)
    style.decades(axes, x=True, y=True)
    axes.set_ylim(1e-4, 30.0)
    axes.set_xlabel("steps n")
    axes.set_ylabel("mean regret / worst-case bound")
    axes.set_title("T=1, every family: the bound is 1", loc="left")
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.03, 0.5), fontsize=6.8)


def _by_batch(axes: Axes, largest: list[dict[str, Any]]) -> None:
    """The largest ratio of every instance, spread a little along its batch size."""
    sizes = sorted({one["n_tokens"] for one in largest})
    for place, size in enumerate(sizes):
        own = [one for one in largest if one["n_tokens"] == size]
        shifts = np.linspace(-0.28, 0.28, len(own)) if len(own) > 1 else [0.0]
        for shift, one in zip(shifts, own, strict=True):
            colour = "#0072B2" if one["met"] else style.GREY
            axes.plot(place + shift, one["worst"], "o", color=colour, fillstyle="none", markersize=4)
            axes.plot(place + shift, one["measured"], "o", color=colour, markersize=4)
    axes.axhline(1.0, color=style.INK, linewidth=0.9)
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    style.decades(axes, y=True)
    axes.set_ylim(5e-5, 3.0)
    axes.set_xlabel("tokens per batch T")
    axes.set_ylabel("largest ratio to the bound")
    axes.set_title("all instances", loc="left")
    marks: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 4}
    axes.legend(
        handles=[
            Line2D([], [], color="#0072B2", label="measured gradients", **marks),
            Line2D([], [], color="#0072B2", fillstyle="none", label="worst case", **marks),
            Line2D([], [], color=style.GREY, label="iterates left the domain", **marks),
        ],
        loc="lower left",
        fontsize=6.5,
    )


def draw_differences(findings: Findings) -> Figure:
    """S5: errors of both ways against the size of scores."""
    data = findings.data
    figure = style.new_figure(3.5)
    axes = style.add_axes(figure, 0.7, 0.45, 5.6, 2.1)
    sizes = [one["largest_score"] for one in data["errors"].values()]
    for key, label, colour, marker in (
        ("naive", "two sums subtracted", "#D55E00", "s"),
        ("safe", "safe differences", "#0072B2", "o"),
    ):
        values = [max(one[key], 1e-17) for one in data["errors"].values()]
        axes.plot(sizes, values, marker, color=colour, markersize=4.5, label=label)
    axes.axhline(data["allowed"], color=style.INK, linewidth=0.9, linestyle=style.BOUND)
    axes.annotate(
        "allowed", (1.0, data["allowed"]), (4, 0), xycoords=("axes fraction", "data"),
        textcoords="offset points", fontsize=6.8, va="center", color="0.3",
    )  # fmt: skip
    style.decades(axes, x=True, y=True)
    axes.set_ylim(1e-10, 30.0)
    axes.set_xlabel("largest of 4,096 scores")
    axes.set_ylabel("error of a batch's difference / width")
    axes.legend(loc="lower right")
    for name, one in data["errors"].items():
        axes.axvline(one["largest_score"], color="0.9", linewidth=0.5, zorder=0.5)
        axes.annotate(
            name.partition(",")[0], (one["largest_score"], 1.02), xycoords=("data", "axes fraction"),
            rotation=55, fontsize=6.5, color="0.35", ha="left", va="bottom",
        )  # fmt: skip
    axes.grid(visible=False, axis="x")
    return figure
