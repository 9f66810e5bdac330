"""How every figure looks, and how it reaches the disk.

Figures are drawn through ``matplotlib.figure.Figure``: no pyplot, and no global state but the settings below,
which hold inside :func:`settings` only. The same data gives the same bytes on one machine: ids in SVG are
salted with a fixed word, and neither format carries a date.
"""

import contextlib
import functools
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from balancesim.sweep.atomic import write_atomically

WIDTH = 7.0
GREY = "0.66"
INK = "0.15"

# Okabe & Ito's palette: safe for the colour-blind, and of different lightness in grey.
COLOURS = {"sign": "#D55E00", "constant": "#B07800", "sqrt": "#009E73", "harmonic": "#0072B2"}
OTHER_COLOURS = ("#CC79A7", "#56B4E9", "#E69F00", "#000000")

BOUND: Any = (0, (7, 2))
"""Line style of S4's bound."""

_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B07800", "#56B4E9", "#555555")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")

Look = dict[str, Any]
"""Keywords of ``Axes.plot``."""

_LOOKS: tuple[tuple[Any, float, str], ...] = (
    (":", 1.4, "v"),
    ("-", 1.5, "o"),
    ("--", 1.2, "^"),
    ("-.", 1.2, "s"),
    ((0, (3, 1, 1, 1, 1, 1)), 1.2, "D"),
)

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "0.3",
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "mathtext.fontset": "dejavusans",
    "svg.hashsalt": "balancesim",
    "svg.fonttype": "path",
    "savefig.dpi": 200,
}


@contextlib.contextmanager
def settings() -> Iterator[None]:
    """Hold this project's settings of matplotlib while figures are drawn and saved."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def source_name(index: Any, source: str) -> str:
    """File name of the figure of one source: its place in the run, and its label as far as a name may."""
    label = re.sub(r"[^a-z0-9.]+", "-", source.lower()).strip("-.")
    return f"source-{index:02}-{label[:60]}"


def colour_of(family: str) -> str:
    """Colour of a family of rules: its own where it is a schedule of ALF-LB, else one that its name picks."""
    return COLOURS.get(family) or OTHER_COLOURS[sum(family.encode()) % len(OTHER_COLOURS)]


def distinct_look(place: int) -> Look:
    """Colour and marker of the so many-th of up to 77 things."""
    return {"color": _PALETTE[place % len(_PALETTE)], "marker": _MARKERS[place % len(_MARKERS)]}


def look_of(rank: int) -> tuple[Any, float, str]:
    """Line style, width and marker by the rank of a step size within its family."""
    return _LOOKS[rank % len(_LOOKS)]


def new_figure(height: float) -> Figure:
    """An empty figure as wide as a page's text, of a height in inches."""
    return Figure(figsize=(WIDTH, height))


def add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place in inches from the figure's lower left corner."""
    across, up = figure.get_size_inches()
    axes = figure.add_axes((left / across, bottom / up, width / across, height / up))
    axes.set_axisbelow(True)
    axes.grid(visible=True)
    return axes


def decades(axes: Axes, *, x: bool = False, y: bool = False) -> None:
    """Logarithmic axes with one tick a decade, and values that are not positive left out."""
    if x:
        axes.set_xscale("log", nonpositive="mask")
    if y:
        axes.set_yscale("log", nonpositive="mask")
    for axis in [axes.xaxis] * x + [axes.yaxis] * y:
        axis.set_major_locator(LogLocator(numticks=8))
        axis.set_major_formatter(_power_of_ten)
        axis.set_minor_locator(NullLocator())


def _power_of_ten(value: float, _position: float) -> str:
    """The label of a decade: 1, 10, 10², ...; plain text is drawn many times faster than mathtext."""
    exponent = round(math.log10(value))
    return {0: "1", 1: "10"}.get(exponent, "10" + str(exponent).translate(_SUPERSCRIPTS))


def label_ends(axes: Axes, ends: Sequence[float], texts: Sequence[str], height: float, colour: str) -> None:
    """Name each line at its right end; ends are fractions of the axis, whose height is in inches."""
    for place, text in zip(spread_out(ends, texts, 8.3 / 72.0 / height), texts, strict=True):
        axes.annotate(
            text, (1.0, place), (2, 0), xycoords="axes fraction", textcoords="offset points",
            color=colour, fontsize=6.8, verticalalignment="center", linespacing=1.15,
        )  # fmt: skip


def spread_out(places: Sequence[float], texts: Sequence[str], line_height: float) -> list[float]:
    """Heights in an axis of length one, moved up and then down until no texts touch."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    half = [0.5 * line_height * (texts[i].count("\n") + 1) for i in order]
    found = [places[i] for i in order]
    for rank in range(1, len(found)):
        found[rank] = max(found[rank], found[rank - 1] + half[rank - 1] + half[rank])
    ceiling = 1.0 + line_height
    for rank in range(len(found) - 1, -1, -1):
        found[rank] = min(found[rank], ceiling - half[rank])
        ceiling = found[rank] - half[rank]
    placed = dict(zip(order, found, strict=True))
    return [placed[i] for i in range(len(places))]


def bound_handle() -> Line2D:
    """Entry of a legend for S4's bound."""
    label = "S4's bound at \N{GREEK SMALL LETTER MU}(p*), worst case"
    return Line2D([], [], color=INK, linewidth=0.9, linestyle=BOUND, label=label)


def legend_below(figure: Figure, handles: Sequence[Artist]) -> None:
    """Put a legend of one row at the foot of a figure."""
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.0, 0.0), ncols=len(handles), fontsize=6.8,
        columnspacing=1.1, handlelength=2.2, handletextpad=0.5, borderaxespad=0.3,
    )  # fmt: skip


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as SVG and PNG, each complete or not at all.

    Parameters
    ----------
    figure : Figure
        Drawn inside :func:`settings`.
    folder : Path
        An existing folder.
    name : str
        File name without its ending.

    Returns
    -------
    list of Path
        The SVG, then the PNG.
    """
    written = []
    for ending, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
        path = folder / f"{name}.{ending}"
        write_atomically(path, functools.partial(figure.savefig, format=ending, metadata=metadata))
        written.append(path)
    return written
