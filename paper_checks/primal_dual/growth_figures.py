"""Figures of S6, S7 and S8."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from balancesim.checks import Findings
from balancesim.report import style

_COLOURS = {"1/(mu n)": "#0072B2", "0.3/(mu n)": "#CC79A7", "constant": "#B07800"}
_BY_MULTIPLE = ("#0072B2", "#D55E00")


def draw_verdicts(findings: Findings) -> Figure:
    """S6: the intervals of all replications, sorted within each rule."""
    instances = findings.data["replications"]
    figure = style.new_figure(2.95 * len(instances))
    for row, (name, rules) in enumerate(reversed(instances.items())):
        _intervals(style.add_axes(figure, 0.6, 0.5 + 2.95 * row, 5.0, 2.1), name, rules)
    return figure


def _intervals(axes: Axes, name: str, rules: dict[str, Any]) -> None:
    axes.axhspan(-0.05, 0.05, color="0.88", linewidth=0)
    axes.axhline(0.3, color=style.INK, linewidth=0.8, linestyle=style.BOUND)
    start = 0
    for rule, found in rules.items():
        order = np.argsort(found["value"])
        place = start + np.arange(order.size)
        low, value, high = (np.asarray(found[key])[order] for key in ("low", "value", "high"))
        colour = _COLOURS[rule]
        axes.vlines(place, low, high, color=colour, linewidth=0.7, alpha=0.6)
        axes.plot(place, value, ".", color=colour, markersize=2)
        counts = Counter(found["verdict"]).most_common()
        text = ", ".join(f"{count} {verdict}" for verdict, count in counts)
        height = float(np.median(value)) + (
            0.42 if rule == "1/(mu n)" else -0.2 if rule == "constant" else 0.25
        )
        axes.text(start, height, f"{_text(rule)}: {text}", color=colour, fontsize=6.8, va="center", ha="left")
        start += order.size + 15
    axes.set_xticks([])
    axes.set_ylabel("exponent \N{GREEK SMALL LETTER BETA}")
    axes.set_xlabel("replications, sorted within each rule")
    axes.set_title(f"{name}, 16 curves of 2,000 steps each", loc="left")
    for height, text in ((0.0, "logarithm"), (0.3, "excluded powers"), (1.0, "line")):
        axes.annotate(
            text, (1.0, height), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            fontsize=6.8, va="center", color="0.3",
        )  # fmt: skip


def _text(rule: str) -> str:
    return rule.replace("mu", "\N{GREEK SMALL LETTER MU}")


def draw_sharp(findings: Findings) -> Figure:
    """S7: each source's regret against the predicted slope, hindsight, and all ratios."""
    panels, hindsight = findings.data["panels"], findings.data["hindsight"]
    n_panels = len(panels) + 1
    n_rows = -(-n_panels // 3)
    ratios = [
        (f"{name.partition(', T=')[0]}, {_multiple(curve['multiple'])}", curve["ratio"])
        for name, panel in panels.items()
        for curve in panel["curves"]
    ]
    ratios.append((f"{hindsight['name'].partition(', T=')[0]}, hindsight", hindsight["ratio"]))
    foot = 0.6 + 0.17 * len(ratios)
    figure = style.new_figure(foot + 0.2 + 2.05 * n_rows)
    for i, (name, panel) in enumerate(panels.items()):
        row, column = divmod(i, 3)
        axes = _place(figure, foot + 0.45 + 2.05 * (n_rows - 1 - row), column)
        if len(panel["bound"]):
            axes.plot(panel["steps"], panel["bound"], color=style.INK, linewidth=0.8, linestyle=style.BOUND)
        for colour, curve in zip(_BY_MULTIPLE, panel["curves"], strict=False):
            _curve(axes, panel, curve["regret"], curve["predicted"], colour)
            _label_end(axes, panel["steps"][-1], curve["regret"][-1], _multiple(curve["multiple"]), colour)
        _title(axes, name, column)
    row, column = divmod(len(panels), 3)
    axes = _place(figure, foot + 0.45 + 2.05 * (n_rows - 1 - row), column)
    share = hindsight["steps"] / hindsight["steps"][-1]
    _curve(axes, hindsight, hindsight["minimiser"], hindsight["predicted"], "#0072B2")
    axes.plot(hindsight["steps"], hindsight["best"], ".", color="#009E73", markersize=3)
    axes.plot(
        hindsight["steps"], hindsight["minimiser"] + share * hindsight["gain"], color="#009E73", linewidth=0.9
    )
    _label_end(axes, hindsight["steps"][-1], hindsight["best"][-1], "hindsight", "#009E73")
    _label_end(axes, hindsight["steps"][-1], hindsight["minimiser"][-1], "p*", "#0072B2")
    _title(axes, hindsight["name"], column)
    _all_ratios(style.add_axes(figure, 3.35, 0.4, 3.4, foot - 0.55), ratios)
    return figure


def _multiple(c: float) -> str:
    return f"{c:g}/(\N{GREEK SMALL LETTER MU}n)"


def _place(figure: Figure, up: float, column: int) -> Axes:
    return style.add_axes(figure, 0.55 + 2.22 * column, up, 1.45, 1.4)


def _title(axes: Axes, name: str, column: int) -> None:
    source, _, sizes = name.partition(", E=")
    short = source.partition(" (olmoe")[0] + (" (OLMoE statistics)" if "olmoe" in source else "")
    axes.set_title(f"{short}\nE={sizes}", loc="left", fontsize=7, linespacing=1.25)
    axes.set_xlabel("steps n", labelpad=1)
    if column == 0:
        axes.set_ylabel("regret [score units]")
    style.decades(axes, x=True)
    axes.set_ylim(bottom=0.0)


def _curve(axes: Axes, panel: dict[str, Any], regret: Any, predicted: float, colour: str) -> None:
    """Dots, and a line of the predicted slope through the middle of those that the slope is taken from."""
    steps = np.asarray(panel["steps"])
    axes.plot(steps, regret, ".", color=colour, markersize=3)
    used = steps >= panel["first"]
    logs = np.log(steps[used])
    axes.plot(
        steps[used], np.mean(regret[used]) + predicted * (logs - logs.mean()), color=style.INK, linewidth=0.9
    )


def _label_end(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    axes.annotate(text, (x, y), (4, 0), textcoords="offset points", fontsize=6.5, color=colour, va="center")


def _all_ratios(axes: Axes, ratios: list[tuple[str, list[float]]]) -> None:
    places = np.arange(len(ratios))[::-1]
    axes.axvspan(0.95, 1.05, color="0.92", linewidth=0)
    axes.axvline(1.0, color=style.INK, linewidth=0.8)
    for place, (_, (value, low, high)) in zip(places, ratios, strict=True):
        axes.errorbar(
            value, place, xerr=[[value - low], [high - value]], fmt="o", color="#0072B2", markersize=3,
            linewidth=1.0,
        )  # fmt: skip
    texts = [text.replace("; statistics, not logits", "") for text, _ in ratios]
    axes.set_yticks(places, texts)
    axes.set_ylim(-0.7, len(ratios) - 0.3)
    axes.set_xlim(0.92, 1.08)
    axes.set_xlabel("measured slope / predicted, 95 % intervals over 256 seeds")


def draw_threshold(findings: Findings) -> Figure:
    """S8: curves with their powers, exponents against the multiple, slopes above the threshold."""
    data = findings.data
    figure = style.new_figure(3.1)
    _powers(style.add_axes(figure, 0.55, 0.5, 2.0, 2.25), data)
    _exponents(style.add_axes(figure, 3.6, 0.5, 1.35, 2.25), data)
    _factors(style.add_axes(figure, 5.5, 0.5, 1.35, 2.25), data["factors"])
    return figure


def _powers(axes: Axes, data: Mapping[str, Any]) -> None:
    steps = np.asarray(data["steps"], dtype=np.float64)
    late = steps >= np.sqrt(steps[-1])
    ends, texts, colours = [], [], []
    for i, (label, regret, expected) in enumerate(
        zip(data["labels"], data["regret"], data["expected"], strict=True)
    ):
        colour = style.distinct_look(i)["color"]
        axes.plot(steps, regret, color=colour)
        # The predicted form A + c (N^beta - 1)/beta, with A and c through two late records.
        shape = np.log(steps[late]) if expected == 0.0 else steps[late] ** expected
        values = np.asarray(regret)[late]
        factor = (values[-1] - values[0]) / (shape[-1] - shape[0])
        axes.plot(
            steps[late],
            values[0] + factor * (shape - shape[0]),
            color=style.INK,
            linewidth=0.8,
            linestyle=":",
        )
        ends.append(float(regret[-1]))
        texts.append(label)
        colours.append(colour)
    style.decades(axes, x=True, y=True)
    low, high = (float(np.log(end)) for end in axes.get_ylim())
    fractions = [(float(np.log(end)) - low) / (high - low) for end in ends]
    placed = style.spread_out(fractions, texts, 8.3 / 72.0 / 2.25)
    for place, text, colour in zip(placed, texts, colours, strict=True):
        axes.annotate(
            text, (1.0, place), (3, 0), xycoords="axes fraction", textcoords="offset points", color=colour,
            fontsize=6.8, va="center",
        )  # fmt: skip
    axes.set_xlabel("steps n")
    axes.set_ylabel("regret [score units]")
    axes.set_title("Uniform, E=6, K=1, T=64", loc="left")


def _exponents(axes: Axes, data: Mapping[str, Any]) -> None:
    line = np.linspace(0.0, 0.5, 2)
    axes.plot(line, 1.0 - 2.0 * line, color=style.INK, linewidth=0.9)
    axes.plot([0.5, 1.1], [0.0, 0.0], color=style.INK, linewidth=0.9)
    for c, (value, low, high) in zip(data["multiples"], data["exponent"], strict=False):
        axes.errorbar(
            c,
            value,
            yerr=[[value - low], [high - value]],
            fmt="o",
            color="#0072B2",
            markersize=3.5,
            linewidth=1.0,
        )
    axes.set_xlabel("c, step in units of 1/\N{GREEK SMALL LETTER MU}")
    axes.set_ylabel("exponent \N{GREEK SMALL LETTER BETA}")
    axes.set_title("below 1/2: a power", loc="left")


def _factors(axes: Axes, factors: dict[str, Any]) -> None:
    c = np.linspace(0.6, 4.3, 100)
    axes.plot(c, c * c / (2.0 * c - 1.0), color=style.INK, linewidth=0.9)
    for multiple, (value, low, high) in zip(factors["multiples"], factors["slopes"], strict=True):
        axes.errorbar(
            multiple, value, yerr=[[value - low], [high - value]], fmt="o", color="#0072B2", markersize=3.5,
            linewidth=1.0,
        )  # fmt: skip
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("c")
    axes.set_ylabel("slope / slope at c = 1, predicted")
    axes.set_title("above: a factor", loc="left")
