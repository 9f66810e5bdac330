"""A run of the benchmark held against an earlier one: ratios, never seconds."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from balancesim.bench.rows import Ratio, Row
from balancesim.bench.timing import Estimate
from balancesim.errors import ConfigurationError

_Key = tuple[str, str, str]


class Change(NamedTuple):
    """What became of a ratio.

    Attributes
    ----------
    before : Estimate
        The earlier run's.
    factor : float
        By how much ours is better now: above 1, better; below, worse.
    verdict : str
        "better" or "worse" where the two intervals have no number in common, else "same".
    """

    before: Estimate
    factor: float
    verdict: str

    def document(self) -> dict[str, Any]:
        """The change as JSON takes it."""
        return {"before": dict(vars(self.before)), "factor": self.factor, "verdict": self.verdict}


def read_ratios(path: Path) -> Mapping[_Key, Estimate]:
    """Read the ratios of an earlier run.

    Parameters
    ----------
    path : Path
        What ``balancesim bench --json`` printed.

    Returns
    -------
    mapping
        From area, case and peer to ratio.

    Raises
    ------
    ConfigurationError
        If the file cannot be read, or is no such document.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {
            (row["area"], row["case"], row["peer_name"]): Estimate(**row["ratio"])
            for row in document["rows"]
            if row["ratio"] is not None
        }
    except OSError as error:
        raise ConfigurationError(f"`--against` {path} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError):
        raise ConfigurationError(
            f"`--against` must be what `balancesim bench --json` printed, got {path}"
        ) from None


def changes(rows: Sequence[Row], before: Mapping[_Key, Estimate]) -> list[Change | None]:
    """Compare ratios row by row.

    Parameters
    ----------
    rows : sequence of Row
        This run's.
    before : mapping
        As `read_ratios` gives it.

    Returns
    -------
    list of Change or None
        None where either run has no ratio.
    """
    return [_change(row, before.get((row.area, row.case, row.peer_name))) for row in rows]


def _change(row: Row, before: Estimate | None) -> Change | None:
    if row.ratio is None or before is None:
        return None
    grown = row.ratio.median / before.median
    factor = grown if row.goal.ratio is Ratio.PEER_OVER_OURS else 1.0 / grown
    apart = row.ratio.low > before.high or row.ratio.high < before.low
    verdict = ("better" if factor > 1.0 else "worse") if apart else "same"
    return Change(before, factor, verdict)
