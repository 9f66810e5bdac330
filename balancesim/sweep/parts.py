"""Parquet parts: one per finished task, its trajectories as rows, what its cells came to as metadata."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from balancesim.sweep.atomic import write_atomically
from balancesim.sweep.cells import ENGINE_VERSION, Task

if TYPE_CHECKING:
    from balancesim.runs import Run

SCHEMA_VERSION = 3
"""Raised when the columns or the metadata change; parts of another version are run again."""

CURVES = ("regret", "score_lost", "top_score", "max_violation", "mean_max_violation", "drop_rate")
VECTORS = ("loads", "window_loads", "bias")
_METADATA = b"balancesim"


class DamagedPartError(Exception):
    """A part that cannot be used; the message says what is wrong with it."""


def write_part(path: Path, task: Task, runs: "Sequence[Run]", facts: Sequence[dict[str, Any]]) -> None:
    """Write a task's runs, one row per (cell, record), with one dictionary of facts per cell.

    Raises
    ------
    RunDirectoryError
        If it cannot be written.
    """
    document = {"schema": SCHEMA_VERSION, "engine": ENGINE_VERSION, "task": task.key, "cells": list(facts)}
    tables = [_table(cell.key, cell.seed, run) for cell, run in zip(task.cells, runs, strict=True)]
    table = pa.concat_tables(tables).replace_schema_metadata(
        {_METADATA: json.dumps(document).encode("utf-8")}
    )
    write_table(path, table)


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file atomically, with fixed options, so that equal tables give equal bytes."""
    write_atomically(
        path,
        lambda temporary: pq.write_table(
            table,
            temporary,
            compression="zstd",
            version="2.6",
            write_page_checksum=True,
            row_group_size=1 << 20,
        ),
    )


def read_facts(path: Path) -> dict[str, Any]:
    """The metadata of a part.

    Raises
    ------
    DamagedPartError
        If the file is truncated, is no Parquet file, or is not a part of this engine and schema version.
    """
    document = read_document(path, _METADATA)
    if (document.get("schema"), document.get("engine")) != (SCHEMA_VERSION, ENGINE_VERSION):
        raise DamagedPartError("it is of another version of the engine")
    return document


def read_document(path: Path, name: bytes) -> dict[str, Any]:
    """The JSON document in a Parquet file's metadata, without reading the columns.

    Raises
    ------
    DamagedPartError
        If the file is no whole Parquet file or has no such document.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedPartError(f"it is truncated or no Parquet file ({_first_line(error)})") from error
    try:
        document = json.loads(metadata[name])
    except (KeyError, ValueError) as error:
        raise DamagedPartError("it was not written by a sweep") from error
    if not isinstance(document, dict):
        raise DamagedPartError("it was not written by a sweep")
    return document


def read_rows(path: Path, columns: Sequence[str]) -> pa.Table:
    """Columns of a part, the pages' checksums verified.

    Raises
    ------
    DamagedPartError
        If a column is missing or its bytes are damaged.
    """
    try:
        return pq.read_table(path, columns=list(columns), page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedPartError(f"its rows cannot be read ({_first_line(error)})") from error


def check_rows(path: Path) -> None:
    """Raise `DamagedPartError` unless every page of a part has the bytes that were written."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for _ in file.iter_batches():
                pass
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedPartError(f"its rows cannot be read ({_first_line(error)})") from error


def _table(key: str, seed: int, run: "Run") -> pa.Table:
    n_records = len(run.steps)
    columns: dict[str, Any] = {
        "cell": pa.array([key] * n_records, pa.string()),
        "seed": pa.array([seed] * n_records, pa.int64()),
        "step": pa.array(run.steps, pa.int64()),
    }
    columns |= {name: pa.array(getattr(run, name), pa.float64()) for name in CURVES}
    columns |= {name: _lists(getattr(run, name)) for name in VECTORS}
    return pa.table(columns)


def _lists(array: Any) -> pa.Array:
    n_records, n_experts = array.shape
    offsets = pa.array(range(0, n_records * n_experts + 1, n_experts), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(array.ravel()))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
