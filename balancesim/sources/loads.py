"""Recorded loads: tokens per expert, from a table with one row per expert or from an array."""

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from balancesim.errors import InputError, unknown_name
from balancesim.sources.files import as_number, read_array, read_text
from balancesim.types import Float64Array

BUNDLED_LOADS: Mapping[str, Path] = MappingProxyType(
    {"expert-loads": Path(__file__).parent / "data" / "olmoe" / "expert_loads.csv"}
)
"""Tables that come with the package (their origin and licence: sources/data/olmoe/README.md)."""


class RecordedLoads(NamedTuple):
    """Tokens per expert, as one layer of a model was recorded.

    Attributes
    ----------
    labels : mapping of str to str
        The table's other columns, such as model and layer; empty for plain arrays.
    loads : (E,) ndarray of float64
        Recorded tokens per expert, or shares.
    """

    labels: Mapping[str, str]
    loads: Float64Array


def read_loads(
    source: str | Path, where: Mapping[str, str | int] = MappingProxyType({})
) -> tuple[RecordedLoads, ...]:
    """Read recorded loads.

    Parameters
    ----------
    source : str or path
        A bundled name ("expert-loads": OLMoE and Mixtral on three domains); a .csv with the columns
        ``expert`` and ``count``, whose other columns say what was recorded; a .csv of one column; or a .npy
        or .npz of shape (E,) or (recordings, E).
    where : mapping of str to str or int, optional
        Values that a table's other columns must have, such as ``{"model": "olmoe", "layer": 7}``.

    Returns
    -------
    tuple of RecordedLoads
        One for each combination of the other columns, in the table's order.

    Raises
    ------
    InputError
        If the file cannot be read, a row is wrong (it is named), or nothing is left by ``where``.
    """
    path = BUNDLED_LOADS.get(str(source)) or Path(source)
    if not path.is_file():
        known = unknown_name("name", str(source), BUNDLED_LOADS)
        raise InputError(f"`loads` must be a file or a bundled name: {known}")
    found = _read_csv(path) if path.suffix.lower() == ".csv" else _read_arrays(path)
    wanted = {key: str(value) for key, value in where.items()}
    columns = list(found[0].labels)
    for key in wanted:
        if key not in columns:
            raise InputError(f"`where`: {unknown_name(f'column of {str(source)!r}', key, columns)}")
    kept = tuple(one for one in found if wanted.items() <= one.labels.items())
    if not kept:
        present = "; ".join(f"{key}: {_listed(one.labels[key] for one in found)}" for key in wanted)
        raise InputError(f"`where` leaves nothing of {str(source)!r}, which has {present}")
    return kept


def _listed(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def _read_arrays(path: Path) -> list[RecordedLoads]:
    array = read_array(path, None, "loads")
    if array.ndim not in (1, 2) or array.size == 0 or array.dtype.kind not in "iuf":
        raise InputError(
            f"{str(path)!r} must hold numbers of shape (E,) or (recordings, E), "
            f"got {array.dtype} {array.shape}"
        )
    if array.ndim == 1:
        return [RecordedLoads({}, array.astype(np.float64))]
    return [RecordedLoads({"row": str(i)}, row.astype(np.float64)) for i, row in enumerate(array)]


def _read_csv(path: Path) -> list[RecordedLoads]:
    reader = csv.reader(read_text(path).splitlines())
    rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row)]
    if not rows:
        raise InputError(f"{str(path)!r} is empty; expected the columns expert and count")
    header = rows[0][1]
    if "expert" in header and "count" in header:
        return _table(path, header, rows[1:])
    if len(header) == 1:
        first = 0 if as_number(header[0]) is not None else 1
        return [RecordedLoads({}, np.array([_count(path, line, row, 0) for line, row in rows[first:]]))]
    raise InputError(
        f"{str(path)!r} must have the columns expert and count, or one column of loads, got "
        f"{', '.join(header)}; name the columns in its first row"
    )


def _table(path: Path, header: list[str], rows: list[tuple[int, list[str]]]) -> list[RecordedLoads]:
    groups: dict[tuple[str, ...], dict[int, float]] = {}
    expert_at, count_at = header.index("expert"), header.index("count")
    others = [i for i in range(len(header)) if i not in (expert_at, count_at)]
    for line, row in rows:
        if len(row) != len(header):
            raise InputError(f"{path}, line {line}: expected {len(header)} columns, got {len(row)}")
        if not row[expert_at].isdecimal():
            raise InputError(
                f"{path}, line {line}: expert must be an index from 0 on, got {row[expert_at]!r}"
            )
        group = groups.setdefault(tuple(row[i] for i in others), {})
        expert = int(row[expert_at])
        if expert in group:
            raise InputError(
                f"{path}, line {line}: expert {expert} occurs twice; "
                "what tells its rows apart must be in other columns"
            )
        group[expert] = _count(path, line, row, count_at)
    if not groups:
        raise InputError(f"{str(path)!r} has no rows below its header; give one for each expert")
    return [
        RecordedLoads(labels, _complete(path, labels, group))
        for key, group in groups.items()
        for labels in [{header[i]: value for i, value in zip(others, key, strict=True)}]
    ]


def _complete(path: Path, labels: Mapping[str, str], group: Mapping[int, float]) -> Float64Array:
    missing = next(expert for expert in range(len(group) + 1) if expert not in group)
    if missing < max(group):
        where = ", ".join(f"{key}={value}" for key, value in labels.items())
        raise InputError(
            f"{path}{': ' if where else ''}{where} has no row for expert {missing}, but one for "
            f"expert {max(group)}; write a count of 0 for an expert without tokens"
        )
    return np.array([group[expert] for expert in range(len(group))], np.float64)


def _count(path: Path, line: int, row: list[str], column: int) -> float:
    number = as_number(row[column]) if len(row) > column else None
    if number is None or number < 0.0 or not math.isfinite(number):
        found = row[column] if len(row) > column else ""
        raise InputError(f"{path}, line {line}: a load must be a number of at least 0, got {found!r}")
    return number
