"""Statements for tests of the checks themselves."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from balancesim.checks import Case, Depth, Findings, Statement, at_most, statement
from balancesim.report import style

GOOD = at_most("here", "error", 0.5, 1.0)
BAD = at_most("there", "error", 2.0, 1.0)
UNSURE = at_most("elsewhere", "error", 0.9, 1.0, low=0.8, high=1.1, decide="more seeds")
NOT_A_NUMBER = at_most("nowhere", "error", math.nan, 1.0)
UNMET = at_most("beyond", "error", 9.0, 1.0, unmet="no density")
CONTROL = at_most("here", "error", 3.0, 1.0, control="sign flipped")
PASSING_CONTROL = at_most("here", "error", 0.1, 1.0, control="sign flipped")
BROKEN_CONTROL = at_most("here", "error", math.nan, 1.0, control="sign flipped")


def draw(findings: Findings) -> Figure:
    figure = style.new_figure(1.5)
    axes = style.add_axes(figure, 0.5, 0.4, 6.0, 1.0)
    axes.plot(findings.data["errors"])
    return figure


def stated(label: str, *cases: Case, act: Callable[[], Any] = lambda: None, figure: bool = True) -> Statement:
    """Return a statement that finds these cases; ``act`` is called whenever it runs."""

    @statement(
        label=label,
        paper="ours",
        title=f"Statement {label}",
        claim="Errors are small.",
        hypotheses=("Scores have a density.",),
        statistic="the largest error",
        control="a sign flipped",
        figure=draw if figure else None,
        caption="Errors.",
    )
    def check(depth: Depth) -> Findings:
        act()
        return Findings(cases, {"errors": np.array([0.5, np.inf])}, (f"at {depth} depth",))

    return check
