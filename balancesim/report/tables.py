"""The table of a run, for a terminal or a file: one block per source, one line per rule."""

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.console import Group, JustifyMethod
from rich.table import Table
from rich.text import Text

from balancesim.report.rows import CURRENT_BATCH, RuleRow, rule_rows

if TYPE_CHECKING:
    import pandas as pd

_WIDEST_LABEL = 40
_VERDICTS = {"logarithmic": "log", "inconclusive": "unclear"}
_NOTES = (
    "R(N): regret per token, summed over N steps, in score units; mean over seeds and half its 95 % interval",
    "mu*step: the step in units of 1/mu(p*); exponent: 0 is a logarithm, above 0 a power of N (S6)",
    "of exact: score of late batches over that of their exact optimum; with a sign: minus that, per token",
    "MaxVio/floor: of a batch, mean over the last tenth, as a multiple of the sampling floor",
)


def summary_table(frame: "pd.DataFrame") -> Group:
    """Lay out a grouped summary as text.

    Parameters
    ----------
    frame : DataFrame
        What ``sweep.group_summary`` returns.

    Returns
    -------
    Group
        For ``rich.console.Console.print``. It fits 80 columns unless labels of rules are long; those wrap.
    """
    rows = rule_rows(frame)
    label_width = min(max((len(row.rule) for row in rows), default=0), _WIDEST_LABEL)
    blocks = [
        line
        for _, members in groupby(rows, key=lambda row: row.group)
        for line in _block(list(members), label_width)
    ]
    return Group(*blocks, *(Text(note, style="dim") for note in _NOTES))


def blocks_of(
    frame: "pd.DataFrame",
    by: str,
    block: Callable[[list[dict[Any, Any]]], Iterable[Table | Text]],
    notes: str,
) -> Group:
    """What other reports print: what ``block`` makes of each run of rows alike in ``by``, then the notes."""
    rows = [dict(row) for row in frame.to_dict("records")]
    lines = [line for _, members in groupby(rows, key=lambda row: row[by]) for line in block(list(members))]
    return Group(*lines, Text(notes, style="dim"))


def _block(rows: list[RuleRow], label_width: int) -> Iterator[Table | Text]:
    """Title, table and remarks of one source."""
    first = rows[0]
    n_seeds = range_text(row.n_seeds for row in rows)
    yield Text(f"{first.source}: {first.setting}, seeds: {n_seeds}", style="bold")
    against = " or ".join(dict.fromkeys(row.comparator_text for row in rows))
    yield Text(f"regret against {against}; {first.modulus_text}")
    causal, others = [row for row in rows if row.causal], [row for row in rows if not row.causal]
    if causal:
        yield _table(causal, label_width, with_growth=True)
    if others:
        yield Text(CURRENT_BATCH, style="italic")
        yield _table(others, label_width, with_growth=False)
    floor, spread = f"{first.max_violation_floor:.3g}", f"{first.spread:.3g}"
    yield Text(f"sampling floor of MaxVio {floor}; spread of scores at the K-th place {spread}")
    for row in rows:
        if row.horizon != first.horizon:
            yield Text(f"{row.rule}: N={row.horizon:,} for this rule", style="yellow")
        if row.n_early:
            yield Text(
                f"{row.rule}: {row.n_early} of {row.n_seeds} seeds left out: {row.reason}", style="yellow"
            )
        if row.drop_rate > 0.0:
            yield Text(f"{row.rule}: {row.drop_rate:.2%} of the tokens' K places stay empty")
    missing = next((row.exact_reason for row in rows if row.exact_reason), "")
    if missing:
        yield Text(f"no exact optimum {missing}", style="yellow")
    yield Text("")


def _table(rows: list[RuleRow], label_width: int, *, with_growth: bool) -> Table:
    """One line per rule; the columns on growth only for rules that learn."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("rule", min_width=label_width, overflow="fold")
    titles = {"R(N)": 14, **({"mu*step": 7, "exponent [95 %]": 19, "growth": 7} if with_growth else {})}
    for title, width in titles.items():
        justify: JustifyMethod = "left" if title == "growth" else "right"
        table.add_column(title, justify=justify, no_wrap=True, min_width=width)
    for title in ("of\nexact", "MaxVio\n/floor"):
        table.add_column(title, justify="right", vertical="bottom", no_wrap=True, min_width=6)
    for row in rows:
        growth = (
            f"{row.mu_times_step:.2g}" if math.isfinite(row.mu_times_step) else "-",
            f"{number(row.exponent, 2)} [{number(row.exponent_low, 2)}, {number(row.exponent_high, 2)}]",
            _VERDICTS.get(row.verdict, row.verdict),
        )
        table.add_row(
            row.rule,
            with_error(row.regret, row.regret_high - row.regret),
            *(growth if with_growth else ()),
            _of_exact(row),
            number(row.max_violation / row.max_violation_floor, 2),
        )
    return table


def _of_exact(row: RuleRow) -> str:
    """The ratio, or the difference where a ratio means nothing."""
    if math.isfinite(row.kept_of_exact) or not math.isfinite(row.score_over_exact):
        return number(row.kept_of_exact, 4)
    return f"{row.score_over_exact:+.2g}"


def range_text(counts: Iterable[int]) -> str:
    """The least and the most of some counts: "8", or "6 to 8"."""
    found = sorted(set(counts))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def number(value: float, digits: int) -> str:
    """A value to so many places, a dash where there is none."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def with_error(value: float, error: float) -> str:
    """A value to the second digit of its error, or to four digits where there is none."""
    if not math.isfinite(value):
        return "-"
    if not (math.isfinite(error) and error > 0.0):
        return f"{value:.4g}"
    digits = 1 - math.floor(math.log10(error))
    if digits > 6 or max(abs(value), error) >= 1e7:
        return f"{value:.3g} ±{error:.1g}"
    return f"{value:.{max(0, digits)}f} ±{error:.{max(0, digits)}f}"
