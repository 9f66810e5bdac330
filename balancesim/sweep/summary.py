"""The summary: one row per finished cell, the same bytes however and in whatever order the cells were run."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from balancesim.errors import RunDirectoryError
from balancesim.sweep.atomic import write_json
from balancesim.sweep.cells import Task, canonical_json, tasks_of
from balancesim.sweep.configuration import DEFAULT_REPORT, Configuration
from balancesim.sweep.delays import NO_DELAYS
from balancesim.sweep.labels import group_labels, rule_labels
from balancesim.sweep.parts import (
    CURVES,
    SCHEMA_VERSION,
    DamagedPartError,
    read_document,
    read_facts,
    read_rows,
    write_table,
)
from balancesim.sweep.store import (
    RunDirectory,
    States,
    read_configuration,
    read_manifest,
    recorded_figures,
    scan,
)

if TYPE_CHECKING:
    import pandas as pd

_METADATA = b"balancesim"
_SCHEMA = pa.schema(
    [
        ("cell", pa.string()),
        ("group", pa.int64()),
        ("source", pa.string()),
        ("source_kind", pa.string()),
        ("source_parameters", pa.string()),
        ("rule", pa.string()),
        ("rule_kind", pa.string()),
        ("rule_parameters", pa.string()),
        ("causal", pa.bool_()),
        ("schedule", pa.string()),
        ("step_multiple", pa.float64()),
        ("step_unit", pa.string()),
        ("step_size", pa.float64()),
        ("every", pa.int64()),
        ("lag", pa.int64()),
        ("n_ranks", pa.int64()),
        ("n_tokens", pa.int64()),
        ("k", pa.int64()),
        ("n_experts", pa.int64()),
        ("horizon", pa.int64()),
        ("n_groups", pa.int64()),
        ("n_chosen_groups", pa.int64()),
        ("group_score", pa.string()),
        ("seed", pa.int64()),
        ("comparator", pa.string()),
        ("comparator_gain", pa.float64()),
        ("final_step", pa.int64()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("regret", pa.float64()),
        ("score_lost", pa.float64()),
        ("top_score", pa.float64()),
        ("score_kept", pa.float64()),
        ("n_exact", pa.int64()),
        ("kept_of_exact", pa.float64()),
        ("score_over_exact", pa.float64()),
        ("exact_reason", pa.string()),
        ("window_steps", pa.int64()),
        ("max_violation", pa.float64()),
        ("max_violation_floor", pa.float64()),
        ("window_max_violation", pa.float64()),
        ("window_max_violation_floor", pa.float64()),
        ("coefficient_of_variation", pa.float64()),
        ("dead_experts", pa.int64()),
        ("drop_rate", pa.float64()),
        ("modulus", pa.float64()),
        ("modulus_low", pa.float64()),
        ("modulus_high", pa.float64()),
        ("modulus_method", pa.string()),
        ("exchangeable", pa.bool_()),
        ("spread", pa.float64()),
        ("mu_times_step", pa.float64()),
    ]
)


def write_summary(run: RunDirectory, configuration: Configuration) -> None:
    """Write ``summary.parquet`` from the parts that are there.

    Raises
    ------
    RunDirectoryError
        If it cannot be written.
    """
    write_table(run.summary_file, _summary(run, configuration))


def is_current(run: RunDirectory, configuration: Configuration, states: States) -> bool:
    """Whether ``summary.parquet`` is there, whole, and of just the cells that are done."""
    try:
        document = read_document(run.summary_file, _METADATA)
    except DamagedPartError:
        return False
    return document == _identity(task for task in tasks_of(configuration) if task.key in states.done)


def record_figures(run: RunDirectory, paths: Sequence[Path], report: str = DEFAULT_REPORT) -> None:
    """Note in the manifest which figures are ours, of which report and which cells.

    Raises
    ------
    RunDirectoryError
        If the manifest cannot be written.
    """
    document = read_manifest(run)
    names = sorted({*document.get("figures", []), *(path.name for path in paths)})
    shown = {"figures_show": _shown(run), "figures_report": report}
    write_json(run.manifest_file, {**document, "figures": names, **shown})


def figures_are_current(run: RunDirectory, report: str = DEFAULT_REPORT) -> bool:
    """Whether all figures of a report are there and show the cells that the summary holds."""
    paths = recorded_figures(run)
    if not paths or not all(path.exists() for path in paths):
        return False
    document = read_manifest(run)
    same_report = document.get("figures_report", DEFAULT_REPORT) == report
    return same_report and bool(document.get("figures_show") == _shown(run))


def _shown(run: RunDirectory) -> str | None:
    try:
        return str(read_document(run.summary_file, _METADATA).get("tasks"))
    except DamagedPartError:
        return None


def load_summary(run: RunDirectory) -> "pd.DataFrame":
    """One row per finished cell, in the order of the experiment file: sources, rules, seeds.

    Raises
    ------
    RunDirectoryError
        If the directory is no run directory.
    """
    configuration = read_configuration(run)
    if is_current(run, configuration, scan(run, tasks_of(configuration))):
        return _frame(pq.read_table(run.summary_file))
    return _frame(_summary(run, configuration))


def load_trajectories(run: RunDirectory, columns: Sequence[str] | None = None) -> "pd.DataFrame":
    """One row per finished cell and recorded step.

    Parameters
    ----------
    run : RunDirectory
        The directory.
    columns : sequence of str, optional
        Of ``cell``, ``seed``, ``step``, the curves and the vectors ``loads``, ``window_loads`` and ``bias``;
        by default all but the vectors.

    Raises
    ------
    RunDirectoryError
        If the directory is no run directory, or the rows of a part are damaged.
    """
    wanted = list(columns) if columns is not None else ["cell", "seed", "step", *CURVES]
    tasks = tasks_of(read_configuration(run))
    done = scan(run, tasks).done
    tables = []
    for path in (run.part_file(task) for task in tasks if task.key in done):
        try:
            tables.append(read_rows(path, wanted))
        except DamagedPartError as error:
            raise RunDirectoryError(
                f"{path} is damaged: {error}; delete it and run the sweep again"
            ) from error
    if not tables:
        raise RunDirectoryError(f"{run.path} has no finished cell")
    return _frame(pa.concat_tables(tables))


def _frame(table: pa.Table) -> "pd.DataFrame":
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _summary(run: RunDirectory, configuration: Configuration) -> pa.Table:
    from balancesim.theory import max_violation_floor

    tasks = tasks_of(configuration)
    done = scan(run, tasks).done
    finished = [task for task in tasks if task.key in done]
    sources, rules = group_labels(configuration), rule_labels(configuration)
    rows = []
    for task in finished:
        facts = read_facts(run.part_file(task))["cells"]
        parameters = task.run
        for cell, fact in zip(task.cells, facts, strict=True):
            n_experts = fact["n_experts"]
            step = cell.rule.get("step_size")
            row = {
                **fact,
                "group": task.group.index,
                "source": sources[task.group.index],
                "source_kind": task.group.source["kind"],
                "source_parameters": canonical_json(task.group.source),
                "rule": rules[cell.rule_index],
                "rule_kind": cell.rule["kind"],
                "rule_parameters": canonical_json(cell.rule),
                "schedule": cell.rule.get("schedule"),
                "step_multiple": step if isinstance(step, int | float) else math.nan,
                "step_unit": cell.rule.get("step_unit"),
                **{name: cell.rule.get(name, none) for name, none in NO_DELAYS.items()},
                "n_groups": parameters.n_groups,
                "n_chosen_groups": parameters.n_chosen_groups,
                "group_score": parameters.group_score if parameters.n_groups else None,
                "n_tokens": parameters.n_tokens,
                "k": parameters.k,
                "horizon": parameters.horizon,
                "max_violation_floor": max_violation_floor(
                    parameters.n_tokens, n_experts, parameters.k
                ).value,
                "window_max_violation_floor": max_violation_floor(
                    parameters.n_tokens * max(1, fact["window_steps"]), n_experts, parameters.k
                ).value,
                "mu_times_step": fact["modulus"] * fact["step_size"],
            }
            rows.append((task.group.index, cell.rule_index, cell.seed, row))
    rows.sort(key=lambda item: item[:3])
    table = pa.Table.from_pylist([row for *_, row in rows], schema=_SCHEMA)
    metadata = canonical_json(_identity(finished)).encode("ascii")
    return table.replace_schema_metadata({_METADATA: metadata})


def _identity(tasks: Iterable[Task]) -> dict[str, Any]:
    keys = " ".join(sorted(task.key for task in tasks))
    return {
        "schema": SCHEMA_VERSION,
        "tasks": hashlib.blake2b(keys.encode("ascii"), digest_size=16).hexdigest(),
    }
