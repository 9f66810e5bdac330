"""What `balancesim bench` prints: a table for people, one JSON document for programs."""

import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from balancesim.batches import n_cores
from balancesim.bench.against import Change
from balancesim.bench.rows import SECONDS, Row
from balancesim.bench.timing import LEVEL, Estimate
from balancesim.sweep.machine import memory_bytes, processor, version

_PACKAGES = (
    "balancesim", "numpy", "numba", "llvmlite", "scipy", "ortools", "POT", "highspy", "cvxpy", "clarabel",
    "torch",
)  # fmt: skip
_INTERVALS = (
    f"{LEVEL:.0%} interval of the median by order statistics; the range where rounds are fewer than 6, which "
    "holds the median with probability 1 - 2^(1 - rounds)"
)
_NOTES = (
    "ratio: median over rounds of neighbours in time [interval]; ours: the whole call; peer: its solve alone",
    f"intervals: {_INTERVALS}",
)
_PREFIXES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))


def document(
    rows: Sequence[Row],
    *,
    rounds: int,
    budget: float | None = None,
    complete: bool = True,
    changes: Sequence[Change | None] = (),
) -> dict[str, Any]:
    """Return all that was measured, what it was measured on, and what was asked for.

    Parameters
    ----------
    rows : sequence of Row
        The comparisons.
    rounds : int
        Rounds asked for.
    budget : float or None
        Seconds asked for per area; None: the areas' own.
    complete : bool
        Whether all areas were measured to their end.
    changes : sequence of Change or None, optional
        What became of each row's ratio since an earlier run.

    Returns
    -------
    dict
        Numbers, texts, lists and None only; infinite and NaN become None. Times are in seconds.
    """
    memory = memory_bytes()
    found = {
        "machine": {
            "system": platform.system(),
            "architecture": platform.machine(),
            "processor": processor(),
            "cores": n_cores(),
            "memory_gib": None if memory is None else round(memory / 2**30, 1),
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "rounds": rounds,
        "budget_seconds": budget,
        "intervals": _INTERVALS,
        "complete": complete,
        "goals": _counts(rows),
        "rows": [row.document() for row in rows],
        "changes": [change and change.document() for change in changes],
    }
    plain: dict[str, Any] = _finite(found)
    return plain


def table(rows: Sequence[Row], changes: Sequence[Change | None] = ()) -> Group:
    """Lay out comparisons as text, one block an area.

    Parameters
    ----------
    rows : sequence of Row
        The comparisons, area by area.
    changes : sequence of Change or None, optional
        What became of each row's ratio since an earlier run; a column more.

    Returns
    -------
    Group
        For ``rich.console.Console.print``.
    """
    blocks: list[Table | Text] = []
    known = dict(zip(map(id, rows), changes, strict=False))
    for area, members in groupby(rows, key=lambda row: row.area):
        blocks += [Text(area, style="bold"), _block(list(members), known), Text("")]
    counts = _counts(rows)
    words = {"reached": "reached", "missed": "missed", "not_measured": "not measured"}
    said = ", ".join(f"{counts[key]} {word}" for key, word in words.items())
    return Group(*blocks, *(Text(note, style="dim") for note in _NOTES), Text(f"goals: {said}"))


def _block(rows: Sequence[Row], changes: Mapping[int, Change | None]) -> Table:
    lay = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    with_solver = any(row.ours_solve is not None for row in rows)
    with_build = any(row.peer_build is not None for row in rows)
    lay.add_column("case")
    lay.add_column("ours", justify="right", no_wrap=True)
    if with_solver:
        lay.add_column("of it\nsolving", justify="right", no_wrap=True, vertical="bottom")
    lay.add_column("peer is")
    if with_build:
        lay.add_column("build", justify="right", no_wrap=True)
    lay.add_column("peer", justify="right", no_wrap=True)
    lay.add_column("ratio", justify="right", no_wrap=True)
    if with_build:
        lay.add_column("with\nbuild", justify="right", no_wrap=True, vertical="bottom")
    if changes:
        lay.add_column("before", justify="right", no_wrap=True)
    lay.add_column("rounds", justify="right", no_wrap=True)
    lay.add_column("goal")
    lay.add_column("")
    last = ""
    for row in rows:
        solver = (_figure(row.ours_solve, row.unit),) if with_solver else ()
        build = (_figure(row.peer_build, row.unit),) if with_build else ()
        ratio_with_build = (_ratio(row.ratio_with_build),) if with_build else ()
        lay.add_row(
            "" if row.case == last else row.case,
            _figure(row.ours, row.unit),
            *solver,
            row.peer_name,
            *build,
            _figure(row.peer, row.unit),
            _with_interval(row.ratio),
            *ratio_with_build,
            *((_before(changes[id(row)]),) if changes else ()),
            str(row.ours.rounds) if row.ours is not None else "",
            row.goal.text() if row.peer_name or row.goal.bound is not None else "",
            Text("; ".join(_remarks(row)), style="red" if row.met is False else ""),
        )
        last = row.case
    return lay


def _before(change: Change | None) -> str:
    return "" if change is None else f"{_with_interval(change.before)} {change.verdict}"


def _remarks(row: Row) -> Iterator[str]:
    """Say whether the goal is reached, and what else there is to say, such as why nothing was measured."""
    if row.verdict and not (row.met is None and row.note):
        yield row.verdict
    if row.note:
        yield row.note


def _figure(value: Estimate | None, unit: str) -> str:
    if value is None:
        return ""
    if unit.split(" ")[0] != SECONDS:
        return f"{value.median:.3g} {unit}".rstrip()
    factor, prefix = next((pair for pair in _PREFIXES if value.median >= pair[0]), _PREFIXES[-1])
    return f"{value.median / factor:.3g} {prefix}{unit.removeprefix(SECONDS)}"


def _ratio(value: Estimate | None) -> str:
    return "" if value is None else f"{value.median:.3g}"


def _with_interval(value: Estimate | None) -> str:
    return "" if value is None else f"{value.median:.3g} [{value.low:.3g}, {value.high:.3g}]"


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    verdicts = [row.met for row in rows if row.goal.bound is not None]
    return {
        "reached": verdicts.count(True),
        "missed": verdicts.count(False),
        "not_measured": verdicts.count(None),
    }


def _finite(value: Any) -> Any:
    """Replace what JSON has no word for."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
