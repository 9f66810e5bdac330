"""The table of a race: per source a block of causal rules and one of current-batch rules."""

import math
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from balancesim.report.race.measures import AFTER_SHIFT, GOAL
from balancesim.report.race.variants import TUNING_SHARE
from balancesim.report.rows import CURRENT_BATCH
from balancesim.report.tables import blocks_of, number, range_text, with_error

if TYPE_CHECKING:
    import pandas as pd

_NOTES = f"""\
lost: score per token and batch given up against no balancing, in score units; mean and half its 95 % interval
  over the seeds that were not tuned on; over the last tenth of the steps (current-batch rules: over all)
MaxVio: of a batch, mean over the same; /floor: in sampling floors (a perfectly balanced random router has 1)
#: 1 + the number of other rules of the block, each at whichever setting, that are better by a paired 95 %
  interval over seeds; equal: a tie (so are differences in score of less than 0.00001 spreads, which rounding
  alone can make)
*: on the Pareto front of the means of lost and MaxVio, of all rows that fill all T K places
reach: steps until MaxVio, smoothed over the records' windows, is within {GOAL:g} floors and stays so (median)
recover: the same from the shift on; after shift: MaxVio/floor over the first {AFTER_SHIFT:.0%} of the rest
dropped: places that stay empty, of T K; an empty place scores zero, so lost then depends on the scores' zero:
  such a rule has no rank in lost, beats no other one there and is not on the front
tuned: the setting with the least MaxVio, mean over all batches, on the first {TUNING_SHARE:.0%} of the seeds
default: the class's own numbers; a step size counts in its unit, x, which is 1/mu(p*) for harmonic steps, a
  hundredth of the spread for sign, the spread for constant and sqrt"""


def race_table(frame: "pd.DataFrame") -> Group:
    """Lay out a race as text.

    Parameters
    ----------
    frame : DataFrame
        What `race_rows` returns.

    Returns
    -------
    Group
        For ``rich.console.Console.print``.
    """
    width = max((len(family) for family in frame["family"]), default=0)
    return blocks_of(frame, "group", lambda rows: _source(rows, width), _NOTES)


def _source(rows: list[dict[Any, Any]], width: int) -> Iterator[Table | Text]:
    first = rows[0]
    sizes = f"E={first['n_experts']}, K={first['k']}, T={first['n_tokens']}"
    yield Text(f"{first['source']}: {sizes}", style="bold")
    floor = f"sampling floor of MaxVio {first['max_violation_floor']:.3g}"
    yield Text(f"{floor}; spread of scores at the K-th place {first['spread']:.3g}")
    for causal, members in groupby(rows, key=lambda row: row["causal"]):
        block = list(members)
        yield Text(_block_title(causal, block), style="italic")
        yield _table(block, width)
    for row in rows:
        if row["n_early"]:
            remark = f"{row['n_early']} seeds left out: {row['reason']}"
            yield Text(f"{row['family']} {row['setting']}: {remark}", style="yellow")
    yield Text("")


def _block_title(causal: bool, rows: list[dict[Any, Any]]) -> str:
    horizons = sorted({row["horizon"] for row in rows})
    steps = " and ".join(f"{horizon:,}" for horizon in horizons)
    shift = next((row["shift"] for row in rows if row["shift"]), 0)
    told = f"{steps} steps, {range_text(row['n_seeds'] for row in rows)} seeds"
    told += f", sudden shift after step {shift:,}" if shift else ""
    return f"{'causal rules' if causal else CURRENT_BATCH}: {told}"


def _table(rows: list[dict[Any, Any]], width: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("rule", min_width=width, overflow="fold")
    table.add_column("setting", overflow="fold")
    shifted = any(row["shift"] for row in rows)
    drops = any(row["drop_rate"] > 0.0 for row in rows)
    titles = ["lost", "#", "MaxVio", "/floor", "#", "", "reach"]
    titles += ["after shift", "recover"] if shifted else []
    titles += ["dropped"] if drops else []
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        floor = row["max_violation_floor"]
        cells = [
            row["family"],
            _setting(row),
            with_error(row["lost"], row["lost_high"] - row["lost"]),
            number(row["lost_rank"], 0),
            with_error(row["max_violation"], row["max_violation_high"] - row["max_violation"]),
            number(row["max_violation"] / floor, 2),
            number(row["max_violation_rank"], 0),
            "*" if row["on_front"] else "",
            _steps(row["reach"]),
        ]
        cells += [number(row["after_shift"] / floor, 2), _steps(row["recover"])] if shifted else []
        cells += [f"{row['drop_rate']:.2%}" if row["drop_rate"] > 0.0 else "-"] if drops else []
        table.add_row(*cells)
    return table


def _setting(row: dict[Any, Any]) -> str:
    role, setting = row["role"], row["setting"]
    if not role or role == setting:
        return setting or "-"
    return f"{setting} ({role})" if setting else str(role)


def _steps(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if math.isfinite(value) else "never"
