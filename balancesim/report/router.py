"""The figure of a router race: the reward that balance costs against the imbalance that is left."""

import re
import textwrap

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from balancesim.errors import InputError
from balancesim.report import style
from balancesim.theory import max_violation_floor

# Inches.
_LEFT, _BOTTOM, _TOP, _PANEL, _LINE = 0.62, 0.5, 0.32, 3.9, 0.15
_LEAST_HEIGHT = 2.6
_WIDEST_LABEL = 42
_COLOURS = (style.GREY, *style.COLOURS.values(), *style.OTHER_COLOURS)
_NUMBER = re.compile(r"[-+.\de]+$")
"""The weight or step that a rule's text ends with: rules that differ in it alone are one family."""

_NEEDED = ("rule", "kind", "acts", "max_violation", "reward_lost", "n_tokens", "n_experts", "k")


def router_figure(frame: pd.DataFrame) -> Figure:
    """Draw one point per rule and weight, with the range over seeds.

    Parameters
    ----------
    frame : DataFrame
        What `balancesim.router.race` returns. Runs that diverged, or have no reference, are left out.

    Returns
    -------
    Figure
        7 inches wide; draw and save it inside :func:`balancesim.report.style.settings`. Across: mean MaxVio
        of late batches, logarithmic, with the sampling floor as a line. Up: what the best balanced assignment
        earns more, per token; below zero, imbalance buys reward. Rules that differ only in the number that
        ends their text share a colour and a line; gradient rules have filled markers, selection rules white
        ones.

    Raises
    ------
    InputError
        If columns are missing, or no run can be drawn.
    """
    missing = [name for name in _NEEDED if name not in frame]
    if missing:
        raise InputError(f"`frame` must come from balancesim.router.race; it lacks {', '.join(missing)}")
    shown = frame.dropna(subset=["max_violation", "reward_lost"])
    if shown.empty:
        raise InputError("`frame` must hold a run that ended well and has a reference, got none")
    n_lines = sum(1 + len(name) // _WIDEST_LABEL for name in shown["rule"].unique())
    height = max(_LEAST_HEIGHT, _LINE * (n_lines + 2))
    figure = style.new_figure(height + _BOTTOM + _TOP)
    axes = style.add_axes(figure, _LEFT, _BOTTOM, _PANEL, height)
    families = [_NUMBER.sub("", name) for name in shown["rule"]]
    colours = {family: _COLOURS[i % len(_COLOURS)] for i, family in enumerate(dict.fromkeys(families))}
    for family, members in shown.groupby(families, sort=False):
        colour = colours[str(family)]
        means = members.groupby("rule", sort=False)[["max_violation", "reward_lost"]].mean()
        axes.plot(
            means["max_violation"].to_numpy(), means["reward_lost"].to_numpy(), color=colour, linewidth=0.8
        )
        for rank, (rule, of_rule) in enumerate(members.groupby("rule", sort=False)):
            across, up = (of_rule[name].to_numpy() for name in ("max_violation", "reward_lost"))
            axes.plot([across.min(), across.max()], [up.mean()] * 2, color=colour, linewidth=0.6)
            axes.plot([across.mean()] * 2, [up.min(), up.max()], color=colour, linewidth=0.6)
            filled = of_rule["acts"].iloc[0] == "gradient"
            axes.plot(
                [across.mean()], [up.mean()], marker=style.look_of(rank)[2], color=colour, markersize=5.0,
                markerfacecolor=colour if filled else "white", linestyle="none",
                label=textwrap.fill(str(rule), _WIDEST_LABEL),
            )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=9))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    sizes = shown[["n_tokens", "n_experts", "k"]].drop_duplicates()
    if len(sizes) == 1:
        n_tokens, n_experts, k = (int(value) for value in sizes.iloc[0])
        floor = max_violation_floor(n_tokens, n_experts, k).value
        axes.axvline(floor, color=style.INK, linewidth=0.9, linestyle=style.BOUND, label="sampling floor")
    axes.axhline(0.0, color=style.INK, linewidth=0.9)
    axes.set_xlabel("imbalance left: MaxVio of late batches", labelpad=2)
    axes.set_ylabel("reward lost per token", labelpad=2)
    axes.set_title("against the best balanced assignment (filled: acts on the gradient)", loc="left")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0, handlelength=1.6)
    return figure
