"""One figure per source: how regret grows under every rule, beside what the theory says.

Upper row, log-log: one panel per family of rules (ALF-LB's schedules), its step sizes told apart by line
style and marker, with no balancing in grey and S4's bound in each. Lower row, linear in R and logarithmic in
N, where a logarithm is a straight line: harmonic steps above half of 1/mu, each beside the slope that S7
predicts where experts are exchangeable. Current-batch rules, which see the batch, are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from balancesim.report import style
from balancesim.report.rows import CONTROL, RuleRow, rule_rows, unit_text
from balancesim.theory import regret_bound
from balancesim.types import Float64Array, IntArray

_PREDICTED: Any = (0, (1, 1.1))
# Plain text: mathtext takes half as long to draw as all the rest of a figure's text.
_TITLES = {
    "sign": "sign: u sign(g)",
    "constant": "constant: u g",
    "sqrt": "sqrt: u g/√n",
    "harmonic": "harmonic: u g/n",
}
_REGRET = "regret per token, summed\nover steps [score units]"

# Inches: margins and heights of the two rows of panels.
_LEFT, _TITLE, _PANEL, _STRAIGHT, _BELOW, _LEGEND = 0.68, 0.78, 1.75, 1.55, 0.38, 0.26
_SLOPE_TEXT = 1.95


@dataclass(frozen=True)
class Line:
    """One rule's regret: steps (R,), regret (n_seeds, R) in score units per token, rank within its family."""

    row: RuleRow
    rank: int
    steps: IntArray
    regret: Float64Array

    @property
    def mean(self) -> Float64Array:
        """Mean over seeds, (R,)."""
        return np.asarray(self.regret.mean(axis=0), dtype=np.float64)

    @property
    def late(self) -> slice:
        """Records from the square root of the last step on: the part that growth is fitted to."""
        return slice(int(np.searchsorted(self.steps, np.sqrt(self.steps[-1]))), None)

    def draw(self, axes: Axes) -> None:
        """Draw the mean, and the seeds from the 10 % to the 90 % quantile (all, if fewer than five)."""
        levels = (0.1, 0.9) if len(self.regret) >= 5 else (0.0, 1.0)
        low, high = np.quantile(self.regret, levels, axis=0)
        colour = style.colour_of(self.row.family)
        linestyle, width, marker = style.look_of(self.rank)
        axes.fill_between(self.steps, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(
            self.steps, self.mean, color=colour, linestyle=linestyle, linewidth=width,
            marker=marker, markersize=3.0, markevery=(2, 8), markerfacecolor="white", markeredgewidth=0.8,
        )  # fmt: skip


def source_figure(rules: pd.DataFrame, cells: pd.DataFrame, trajectories: pd.DataFrame) -> Figure:
    """Draw the regret of every rule on one source.

    Parameters
    ----------
    rules : DataFrame
        The rows of the grouped summary for one source, in the order to draw them.
    cells : DataFrame
        The rows of the summary for the same source; cells that ended early are left out.
    trajectories : DataFrame
        Columns ``cell``, ``step`` and ``regret``, for at least these cells.

    Returns
    -------
    Figure
        7 inches wide; draw and save it inside :func:`balancesim.report.style.settings`.
    """
    lines = _lines(rules[rules["causal"]], cells, trajectories)
    if not lines:
        return _empty_figure(rules)
    straight = [line for line in lines if line.row.schedule == "harmonic" and line.row.mu_times_step > 0.5]
    base = _LEGEND + (_BELOW + _STRAIGHT + 0.25 if straight else 0.0)
    figure = style.new_figure(base + _BELOW + _PANEL + _TITLE)
    families = list(dict.fromkeys(line.row.family for line in lines))
    panels = [family for family in families if family != CONTROL] or families
    longest = max((len(line.row.variant) for line in lines if line.row.family in panels), default=0)
    pitch = (style.WIDTH - _LEFT) / max(1, len(panels))
    width = max(0.5, pitch - 0.14 - 0.055 * longest)
    for column, family in enumerate(panels):
        axes = style.add_axes(figure, _LEFT + column * pitch, base + _BELOW, width, _PANEL)
        shown = [line for line in lines if line.row.family in (family, CONTROL)]
        _growth_panel(axes, family, shown, _limits(lines))
        if column == 0:
            axes.set_ylabel(_REGRET)
        else:
            axes.tick_params(labelleft=False)
    if straight:
        width = style.WIDTH - _LEFT - _SLOPE_TEXT
        _slope_panel(style.add_axes(figure, _LEFT, _LEGEND + _BELOW, width, _STRAIGHT), straight)
    _explain(figure, lines, all_shown=bool(rules["causal"].all()))
    return figure


def _empty_figure(rules: pd.DataFrame) -> Figure:
    what = "no seed reached the horizon" if rules["causal"].any() else "current-batch rules only"
    figure = style.new_figure(0.5)
    figure.text(0.01, 0.4, f"{rules['source'].iloc[0]}: {what}", fontsize=8)
    return figure


def _lines(rules: pd.DataFrame, cells: pd.DataFrame, trajectories: pd.DataFrame) -> list[Line]:
    """Rules that have at least one seed that reached the horizon."""
    done = cells[cells["outcome"] == "horizon_reached"]
    records = trajectories[trajectories["cell"].isin(done["cell"])]
    curves = records.pivot(index="cell", columns="step", values="regret")
    lines: list[Line] = []
    for row in rule_rows(rules):
        own = curves.loc[done.loc[done["rule"] == row.rule, "cell"]].dropna(axis="columns", how="all")
        if own.size:
            steps = own.columns.to_numpy(dtype=np.int64)
            rank = sum(line.row.family == row.family for line in lines)
            lines.append(Line(row, rank, steps, own.to_numpy(dtype=np.float64)))
    return lines


def _limits(lines: Sequence[Line]) -> tuple[float, float]:
    """Limits of a logarithmic axis for every positive mean, seven decades at most."""
    positive = np.concatenate([line.mean[line.mean > 0.0] for line in lines])
    if not positive.size:
        return 1e-3, 1.0
    top = 2.0 * float(positive.max())
    return max(0.5 * float(positive.min()), 1e-7 * top), top


def _growth_panel(axes: Axes, family: str, lines: Sequence[Line], limits: tuple[float, float]) -> None:
    """One family of rules, log-log, with the control and the bound."""
    style.decades(axes, x=True, y=True)
    axes.set_ylim(*limits)
    own = [line for line in lines if line.row.family == family]
    for line in lines:
        if line.row.family != family:
            axes.plot(line.steps, line.mean, color=style.GREY, linewidth=2.0)
    for line in own:
        line.draw(axes)
        if np.isfinite(line.row.predicted_exponent):
            steps = line.steps[line.late]
            power = 2.0 * line.mean[-1] * (steps / steps[-1]) ** line.row.predicted_exponent
            axes.plot(steps, power, color=style.INK, linewidth=1.0, linestyle=_PREDICTED)
    row, steps = lines[0].row, lines[0].steps
    if np.isfinite(row.modulus):
        bound = regret_bound(modulus=row.modulus, k=row.k, n_experts=row.n_experts, horizon=steps)
        axes.plot(steps, bound, color=style.INK, linewidth=0.9, linestyle=style.BOUND)
    axes.set_title(_TITLES.get(family, family), loc="left", y=1.0, pad=14)
    axes.annotate(
        unit_text([line.row for line in own]), (0.0, 1.0), (0, 4),
        xycoords="axes fraction", textcoords="offset points", fontsize=6.8,
    )  # fmt: skip
    axes.set_xlabel("steps N", labelpad=1)
    low, high = np.log(limits)
    ends = [float((np.log(max(line.mean[-1], limits[0])) - low) / (high - low)) for line in own]
    style.label_ends(axes, ends, [line.row.variant for line in own], _PANEL, style.colour_of(family))


def _slope_panel(axes: Axes, lines: Sequence[Line]) -> None:
    """Steps long enough for a logarithm (S7), on axes where it is a straight line."""
    style.decades(axes, x=True)
    texts = []
    for line in lines:
        line.draw(axes)
        row, logs = line.row, np.log(line.steps)
        text = (
            f"{row.family} {row.variant}\nslope {row.slope:.3g} [{row.slope_low:.3g}, {row.slope_high:.3g}]"
        )
        if np.isfinite(row.predicted_slope):
            start = float(np.mean((line.mean - row.predicted_slope * logs)[line.late]))
            predicted = start + row.predicted_slope * logs
            axes.plot(line.steps, predicted, color=style.INK, linewidth=1.1, linestyle=_PREDICTED)
            text += f"\nS7's slope {row.predicted_slope:.3g}"
        texts.append(text)
    axes.set_ylim(bottom=min(0.0, *(float(line.mean.min()) for line in lines)))
    low, high = axes.get_ylim()
    axes.set_xlabel("steps N", labelpad=1)
    axes.set_ylabel(_REGRET)
    axes.set_title(
        "steps long enough for a logarithm, a straight line here: slope in ln N [95 %]", loc="left"
    )
    ends = [float((line.mean[-1] - low) / (high - low)) for line in lines]
    style.label_ends(axes, ends, texts, _STRAIGHT, style.INK)


def _explain(figure: Figure, lines: Sequence[Line], all_shown: bool) -> None:
    """Title and legend: what is shown, of how many seeds, against which comparator."""
    row = lines[0].row
    n_seeds = sorted({len(line.regret) for line in lines})
    seeds = f"{n_seeds[0]} seeds" if len(n_seeds) == 1 else f"{n_seeds[0]} to {n_seeds[-1]} seeds"
    seeds += "" if all_shown else "; current-batch rules left out"
    figure.text(
        0.01, 1.0 - 0.07 / figure.get_figheight(),
        f"{row.source}: {row.setting}; {seeds}\nregret against {row.comparator_text}; {row.modulus_text}",
        fontsize=8, verticalalignment="top", linespacing=1.3,
    )  # fmt: skip
    band = "10 % to 90 % of seeds" if n_seeds[-1] >= 5 else "range of seeds"
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=style.INK, marker="o", markersize=3.0, markerfacecolor="white", label="mean"),
        Patch(color=style.INK, alpha=0.2, linewidth=0, label=band),
    ]
    if any(line.row.family == CONTROL for line in lines):
        handles.append(Line2D([], [], color=style.GREY, linewidth=2.0, label="no balancing"))
    if np.isfinite(row.modulus):
        handles.append(style.bound_handle())
    predicted = [
        text
        for text, values in (
            ("S7's slope", [line.row.predicted_slope for line in lines]),
            ("S8's power (raised)", [line.row.predicted_exponent for line in lines]),
        )
        if np.isfinite(values).any()
    ]
    if predicted:
        handles.append(Line2D([], [], color=style.INK, linestyle=_PREDICTED, label=", ".join(predicted)))
    style.legend_below(figure, handles)
