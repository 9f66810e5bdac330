"""Figures of T2 to T7."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from balancesim.checks import Findings
from balancesim.report import style

_MU = "\N{GREEK SMALL LETTER MU}"


def _row(
    figure: Figure, n: int, *, bottom: float, height: float, left: float = 0.5, gap: float = 0.5
) -> list[Axes]:
    """So many axes side by side, as wide as the page lets them be."""
    width = (style.WIDTH - left - 0.1 - gap * (n - 1)) / n
    return [style.add_axes(figure, left + i * (width + gap), bottom, width, height) for i in range(n)]


def _colour(place: int) -> Any:
    return style.distinct_look(place)["color"]


def minimiser(findings: Findings) -> Figure:
    """T2: three units against the tail index."""
    data = findings.data
    figure = style.new_figure(2.75)
    axes = _row(figure, 3, bottom=0.75, height=1.7)
    titles = (f"{_MU} × boundary spread / ln 4", f"{_MU} × boundary score", f"{_MU} at minimum 1")
    for place, size in enumerate(data["sizes"]):
        curves = data["curves " + size.replace("E=", "").replace(" K=", " ").replace(",", "")]
        for i in range(3):
            axes[i].plot(data["inverse_index"], curves[i], color=_colour(place), label=size)
        for family, marker in (("Student t", "o"), ("log-normal", "^")):
            index, values = data[family + " " + size.replace("E=", "").replace(" K=", " ").replace(",", "")]
            axes[0].plot(index, values, marker, color=_colour(place), markersize=3, markerfacecolor="none")
    for i, (panel, title) in enumerate(zip(axes, titles, strict=True)):
        panel.set_title(title, loc="left")
        panel.axhline(1.0, color=style.INK, linewidth=0.7)
        style.decades(panel, x=True, y=True)
        panel.set_xlim(0.02, 50.0)
        panel.set_ylim(*((0.5, 1e6), (0.3, 1e3), (1e-12, 30.0))[i])
        panel.set_xlabel("1/a, or local index")
    axes[0].set_ylabel("over K/(E-1)")
    style.legend_below(figure, axes[0].get_legend_handles_labels()[0])
    return figure


def limits(findings: Findings) -> Figure:
    """T3: convergence at fixed K and at fixed K/E."""
    data = findings.data
    figure = style.new_figure(2.75)
    axes = _row(figure, 3, bottom=0.75, height=1.7)
    for panel, k in zip(axes, (1, 2), strict=False):
        for place, name in enumerate(data["names"]):
            panel.plot(data["sizes"], data[f"fixed {k}"][place], color=_colour(place), label=name)
            panel.axhline(data[f"limit {k}"][place], color=_colour(place), linewidth=0.7, linestyle=":")
        panel.set_title(f"K = {k}", loc="left")
        style.decades(panel, x=True)
        panel.set_yscale("log")
        panel.set_yticks([1, 2, 4, 8], ["1", "2", "4", "8"], minor=False)
        panel.set_yticks([], minor=True)
        panel.set_ylim(1.0, 13.0)
    axes[0].set_ylabel(f"E {_MU} × spread / K")
    for place, name in enumerate(data["names"]):
        axes[2].plot(data["sizes"], data["fraction"][place], color=_colour(place), label=name)
    axes[2].set_title(f"K/E = 1/8: |{_MU}/q(7/8) - 1|", loc="left")
    style.decades(axes[2], x=True, y=True)
    for panel in axes:
        panel.set_xlabel("experts E")
    style.legend_below(figure, axes[0].get_legend_handles_labels()[0])
    return figure


def gates(findings: Findings) -> Figure:
    """T4: densities of small gaps behind gates."""
    data = findings.data
    figure = style.new_figure(2.75)
    panels: dict[str, Axes] = {}
    axes = _row(figure, 3, bottom=0.75, height=1.7)
    for name, density in zip(data["names"], data["density"], strict=True):
        gate, family = name.split(": ")
        panel = panels.setdefault(gate, axes[min(len(panels), 2)])
        place = len(panel.get_lines())
        shown = np.where(density * data["widths"] * 2**19 >= 10.0, density, np.nan)
        panel.plot(data["widths"], shown, color=_colour(place), label=f"{family} logits")
        panel.set_title(gate, loc="left")
    for panel in axes:
        style.decades(panel, x=True, y=True)
        panel.set_ylim(0.2, 1e6)
        panel.set_xlabel("width w, median gaps")
    axes[0].set_ylabel("share of gaps below w, over w")
    style.legend_below(figure, axes[0].get_legend_handles_labels()[0])
    return figure


def domain(findings: Findings) -> Figure:
    """T5: bounds on the modulus over a ball."""
    data = findings.data
    figure = style.new_figure(2.95)
    axes = _row(figure, 2, bottom=0.75, height=1.9, left=0.62, gap=0.55)
    for panel, k in zip(axes, (1, 2), strict=True):
        for place, name in enumerate(data["names"]):
            low, high, known = data[f"K={k}"][place]
            panel.fill_between(data["radii"], low, high, color=_colour(place), alpha=0.13, linewidth=0)
            panel.plot(data["radii"], high, color=_colour(place), label=name)
            panel.plot(data["radii"], low, color=_colour(place), linewidth=0.8)
            panel.plot(data["radii"], known, ":", color=_colour(place), linewidth=0.9)
        panel.set_title(f"E = 16, K = {k}", loc="left")
        style.decades(panel, x=True, y=True)
        panel.set_ylim(1e-10, 2.0)
        panel.set_xlabel("radius, boundary spreads")
    axes[0].set_ylabel(f"{_MU} over the ball / {_MU}(p*)")
    style.legend_below(figure, axes[0].get_legend_handles_labels()[0])
    return figure


def uniformity(findings: Findings) -> Figure:
    """T6: the modulus of a ball of fixed size in spreads, for ever heavier tails."""
    data = findings.data
    figure = style.new_figure(2.75)
    left, right = _row(figure, 2, bottom=0.75, height=1.7, gap=0.7)
    for dashes, size in (("-", "E=16"), ("--", "E=64")):
        scaled = data[size] / data[f"unit {size}"]
        for place, label in enumerate(("at p*", f"ball of 0.1 spreads, {size}", f"ball of 1 spread, {size}")):
            name = label + (f", {size}" if place == 0 else "")
            left.plot(data["inverse_index"], scaled[:, place], dashes, color=_colour(place), label=name)
        halves = data[f"half {size}"]
        right.plot(data["inverse_index"], halves[:, 0], dashes, color=_colour(3), label=f"in spreads, {size}")
        right.plot(data["inverse_index"], halves[:, 1], dashes, color=_colour(4), label=f"in scores, {size}")
    ceiling = data["E=16"][:, 3] / data["unit E=16"]
    left.plot(data["inverse_index"], ceiling, ":", color=style.INK, label="T6's bound, 1 spread")
    left.set_title(f"{_MU} × spread, over the exponential's at p*", loc="left")
    right.set_title(f"radius at which {_MU} has halved", loc="left")
    for panel in (left, right):
        style.decades(panel, x=True, y=True)
        panel.set_xlabel("1/a")
    left.set_ylim(3e-3, 1e4)
    right.legend(fontsize=6.3, loc="lower left")
    handles = left.get_legend_handles_labels()[0]
    figure.legend(
        handles=handles, loc="lower left", ncols=4, fontsize=6.3, columnspacing=1.0, handlelength=1.8
    )
    return figure


def early(findings: Findings) -> Figure:
    """T7: regret over the bound against the delay."""
    data = findings.data
    figure = style.new_figure(2.75)
    axes = _row(figure, 3, bottom=0.75, height=1.7, gap=0.35)
    places = np.arange(len(data["delays"]))
    for panel, setting in zip(axes, data["settings"], strict=True):
        for place, name in enumerate(data["names"]):
            panel.plot(places, data[setting][place], label=name, markersize=3, **style.distinct_look(place))
        panel.axhline(1.0, color=style.INK, linewidth=0.8)
        panel.set_title(setting, loc="left")
        panel.set_yscale("log")
        ticks = (0.1, 1.0, 10.0)
        panel.set_yticks(ticks, ["0.1", "1", "10"], minor=False)
        panel.set_ylim(0.02, 30.0)
        panel.set_xticks(places, [f"{c:g}" for c in data["delays"]])
        panel.set_xlabel("delay, E/(K T) steps")
    axes[0].set_ylabel("mean regret / S4's bound")
    style.legend_below(figure, axes[0].get_legend_handles_labels()[0])
    return figure
