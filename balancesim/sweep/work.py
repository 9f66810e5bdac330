"""One task from its description to its part: simulate, measure, write."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from balancesim.balancers import Delayed
from balancesim.problem import balanced_load, coefficient_of_variation
from balancesim.sweep.atomic import write_json
from balancesim.sweep.cells import Task
from balancesim.sweep.configuration import build_source
from balancesim.sweep.parts import write_part
from balancesim.sweep.scales import Scale, build_rule, step_in_score_units
from balancesim.sweep.store import RunDirectory

if TYPE_CHECKING:
    from balancesim.runs import Run
    from balancesim.types import Float64Array

_WINDOW_SHARE = 0.1
"""Part of a run, at its end, that stationary measures are taken over."""


class StoppedError(Exception):
    """Raised inside a task that was told to stop; its unfinished work is dropped."""


@dataclass(frozen=True)
class Assignment:
    """All that a worker needs for one task."""

    run: RunDirectory
    task: Task
    scale: Scale


def perform(assignment: Assignment, progress: Callable[[float], None]) -> None:
    """Run a task and write its part.

    Parameters
    ----------
    assignment : Assignment
        The task and where its part goes.
    progress : callable
        Called now and then with the share of the task that is done; what it raises ends the task.

    Raises
    ------
    RunDirectoryError
        If the part cannot be written.
    """
    task, run = assignment.task, assignment.run
    claim = run.claim_file(task)
    write_json(claim, {"pid": os.getpid(), "cells": [cell.key for cell in task.cells]})
    try:
        runs = _simulate(assignment, progress)
        facts = [{**_identity(assignment, index), **_measures(result)} for index, result in enumerate(runs)]
        run.failed_file(task).unlink(missing_ok=True)
        write_part(run.part_file(task), task, runs, facts)
    finally:
        claim.unlink(missing_ok=True)


def note_failure(assignment: Assignment, message: str) -> None:
    """Keep the message of a task that raised an exception."""
    task = assignment.task
    document = {"message": message, "seed": task.seed, "cells": [cell.key for cell in task.cells]}
    write_json(assignment.run.failed_file(task), document)


def step_sizes(task: Task, scale: Scale) -> list[float | str | None]:
    """The step of each of the task's rules, in score units.

    Raises
    ------
    ConfigurationError
        If a step is a multiple of something that is not known for this source.
    """
    kind = task.group.source["kind"]
    return [
        step_in_score_units(cell.rule, scale, f"rule {cell.rule['kind']} on source {kind}")
        for cell in task.cells
    ]


def _simulate(assignment: Assignment, progress: Callable[[float], None]) -> "Sequence[Run]":
    from balancesim.simulation import simulate

    task = assignment.task
    parameters = task.run
    rules = [
        build_rule(cell.rule, step)
        for cell, step in zip(task.cells, step_sizes(task, assignment.scale), strict=True)
    ]
    return simulate(
        rules,
        build_source(task.group.source).with_seed(task.seed),
        n_tokens=parameters.n_tokens,
        k=parameters.k,
        horizon=parameters.horizon,
        n_records=parameters.n_records,
        n_exact=parameters.n_exact,
        comparator=parameters.comparator,
        groups=parameters.groups,
        backend=parameters.backend,
        progress=lambda steps: progress(steps / parameters.horizon),
    )


def _identity(assignment: Assignment, index: int) -> dict[str, Any]:
    cell = assignment.task.cells[index]
    scale = assignment.scale
    return {
        "cell": cell.key,
        "seed": cell.seed,
        "modulus": scale.modulus,
        "modulus_low": scale.modulus_low,
        "modulus_high": scale.modulus_high,
        "modulus_method": scale.modulus_method,
        "exchangeable": scale.exchangeable,
        "spread": scale.spread,
    }


def _measures(run: "Run") -> dict[str, Any]:
    """What one cell came to."""
    rule = run.rule.rule if isinstance(run.rule, Delayed) else run.rule
    step = getattr(rule, "step_size", np.nan)
    return {
        "causal": run.rule.causal,
        "step_size": step if isinstance(step, float | int) else np.nan,
        "n_experts": run.loads.shape[1],
        "comparator": run.comparator.kind,
        "comparator_gain": run.comparator.gain,
        "final_step": int(run.steps[-1]) if run.steps.size else 0,
        "outcome": run.status.outcome.name.lower(),
        "reason": run.status.reason,
        "regret": _last(run.regret),
        "score_lost": _last(run.score_lost),
        "top_score": _last(run.top_score),
        "score_kept": _last(run.score_kept),
        "n_exact": run.exact_steps.size,
        "kept_of_exact": run.kept_of_exact,
        "score_over_exact": float(run.score_over_exact.mean()) if run.exact_steps.size else np.nan,
        "exact_reason": run.exact_reason,
        **_stationary(run),
    }


def _last(curve: "Float64Array") -> float:
    return float(curve[-1]) if curve.size else np.nan


def _stationary(run: "Run") -> dict[str, Any]:
    """Measures of balance over the shortest run of whole records that covers the last tenth.

    The window's MaxVio, as a batch's, is against T K / E, whether or not loads sum to T K.
    """
    if not run.steps.size:
        unknown = ("max_violation", "window_max_violation", "coefficient_of_variation", "drop_rate")
        return {"window_steps": 0, "dead_experts": 0, **dict.fromkeys(unknown, np.nan)}
    last = int(run.steps[-1])
    first_record = int(np.searchsorted(run.steps, last * (1.0 - _WINDOW_SHARE), side="right"))
    before = int(run.steps[first_record - 1]) if first_record > 0 else 0
    lengths = np.diff(run.steps[first_record:], prepend=before)
    window = run.window_loads[first_record:].sum(axis=0)
    balanced = balanced_load(run.n_tokens * (last - before), window.size, run.k)
    return {
        "window_steps": last - before,
        "max_violation": float(np.average(run.mean_max_violation[first_record:], weights=lengths)),
        "window_max_violation": float(window.max() / balanced - 1.0),
        "coefficient_of_variation": float(coefficient_of_variation(window)) if window.any() else np.nan,
        "dead_experts": int((window == 0).sum()),
        "drop_rate": float(np.average(run.drop_rate[first_record:], weights=lengths)),
    }
