"""A sweep from its configuration to its summary: what is done is kept, the rest is run."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Protocol

from balancesim.errors import BalanceSimError, ConfigurationError, RunDirectoryError
from balancesim.sweep import ahead
from balancesim.sweep.cells import Task, tasks_of
from balancesim.sweep.configuration import Configuration
from balancesim.sweep.executors import ExecutorName, Result, execute
from balancesim.sweep.labels import group_labels
from balancesim.sweep.scales import Scale, scale_of
from balancesim.sweep.store import (
    NOTHING_DONE,
    RunDirectory,
    States,
    changed_versions,
    clear,
    conflict,
    locked,
    make_folders,
    prepare,
    scan,
    set_aside,
    with_stored_seeds,
    write_configuration,
)
from balancesim.sweep.summary import is_current, write_summary
from balancesim.sweep.work import Assignment, step_sizes


class Reporter(Protocol):
    """Whoever shows how far a sweep is."""

    def note(self, text: str) -> None:
        """Say something once."""

    def remark(self, text: str) -> None:
        """Say what only somebody who waits wants to know."""

    def start(self, n_cells: int) -> None:
        """Begin to count: so many cells are to do."""

    def advance(self, cells: float, *, failed: int = 0) -> None:
        """Count cells, or parts of a cell, that are done."""

    def stop(self) -> None:
        """Stop showing progress."""


class Silent:
    """A reporter that shows nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def remark(self, text: str) -> None:
        """Say nothing."""

    def start(self, n_cells: int) -> None:
        """Show nothing."""

    def advance(self, cells: float, *, failed: int = 0) -> None:
        """Show nothing."""

    def stop(self) -> None:
        """Show nothing."""


@dataclass(frozen=True)
class Plan:
    """What a command asks for and what the directory has of it.

    Attributes
    ----------
    run : RunDirectory
        The directory.
    configuration : Configuration
        The experiment, the directory's own seeds included.
    requested : tuple of Task
        The tasks of the seeds that were asked for.
    states : States
        The state of every task of the directory.
    """

    run: RunDirectory
    configuration: Configuration
    requested: tuple[Task, ...]
    states: States

    @property
    def waiting(self) -> tuple[Task, ...]:
        """The requested tasks that have no usable part."""
        return tuple(task for task in self.requested if task.key not in self.states.done)

    @property
    def n_cells(self) -> int:
        """Number of cells that were asked for."""
        return n_cells(self.requested)

    @property
    def n_done(self) -> int:
        """Number of them that are done."""
        return self.n_cells - n_cells(self.waiting)


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended.

    Attributes
    ----------
    n_cells, n_before, n_done : int
        Cells asked for, done before this command, and done now.
    failures : dict of str to str
        Message of each task that failed or was lost, by its label.
    n_failed, n_lost : int
        Cells of those tasks.
    stopped : bool
        Whether the first failure ended the sweep.
    """

    n_cells: int
    n_before: int
    n_done: int
    failures: Mapping[str, str]
    n_failed: int = 0
    n_lost: int = 0
    stopped: bool = False


def n_cells(tasks: Sequence[Task]) -> int:
    """Number of cells of some tasks."""
    return sum(len(task.cells) for task in tasks)


def plan_sweep(run: RunDirectory, configuration: Configuration) -> Plan:
    """See what a directory has of a configuration; nothing is changed.

    Raises
    ------
    RunDirectoryError
        If the directory cannot be used, or holds another configuration.
    """
    problem = conflict(run, configuration)
    if problem is not None:
        raise RunDirectoryError(problem)
    everything = with_stored_seeds(run, configuration)
    wanted = set(configuration.seeds)
    tasks = tasks_of(everything)
    requested = tuple(task for task in tasks if task.seed in wanted)
    return Plan(run, everything, requested, scan(run, tasks))


def run_sweep(
    run: RunDirectory,
    configuration: Configuration,
    *,
    executor: ExecutorName = "thread",
    jobs: int = 1,
    fresh: bool = False,
    fail_fast: bool = False,
    reporter: Reporter | None = None,
) -> Outcome:
    """Run the cells that are not done and write the summary.

    Parameters
    ----------
    run : RunDirectory
        Where results are and go.
    configuration : Configuration
        The experiment.
    executor : {"thread", "process", "serial"}, optional
        How tasks are spread over cores; results do not depend on it.
    jobs : int, optional
        Tasks at a time.
    fresh : bool, optional
        Whether to remove what earlier sweeps left in the directory first.
    fail_fast : bool, optional
        Whether the first failed task ends the sweep.
    reporter : Reporter, optional
        Told how far the sweep is.

    Raises
    ------
    RunDirectoryError
        If the directory cannot be used or holds another configuration.
    ConfigurationError
        If a step size cannot be found for a source.
    KeyboardInterrupt
        On Ctrl-C; finished tasks are kept and the summary holds them.
    """
    if not fresh or not run.configuration_file.exists():
        problem = conflict(run, configuration)
        if problem is not None:
            raise RunDirectoryError(problem)
    make_folders(run)
    with locked(run):
        plan = _plan_anew(run, configuration) if fresh else plan_sweep(run, configuration)
        if plan.waiting or plan.states.damaged or not is_current(run, plan.configuration, plan.states):
            return _run(plan, executor, jobs, fresh, fail_fast, reporter or Silent())
        write_configuration(run, plan.configuration)  # its words or its report may be others
        return Outcome(plan.n_cells, plan.n_done, 0, {})


def _plan_anew(run: RunDirectory, configuration: Configuration) -> Plan:
    return Plan(run, configuration, tasks_of(configuration), NOTHING_DONE)


def _run(
    plan: Plan, executor: ExecutorName, jobs: int, fresh: bool, fail_fast: bool, reporter: Reporter
) -> Outcome:
    tally = _Tally(reporter)
    reporter.start(n_cells(plan.waiting))
    with ExitStack() as while_running:
        while_running.callback(reporter.stop)
        if ahead.is_worthwhile(plan.waiting, executor):
            reporter.remark(ahead.NOTE)
            while_running.enter_context(ahead.compiling())
        # May refuse the configuration: before anything is removed or written.
        assignments = _assignments(plan)
        if fresh:
            clear(plan.run)
        prepare(plan.run, plan.configuration)
        _report_leftovers(plan, reporter)
        try:
            results = execute(assignments, executor=executor, jobs=jobs, progress=tally.progress)
            with closing(results):
                for result in results:
                    tally.add(result)
                    if fail_fast and result.error is not None:
                        break
        except KeyboardInterrupt:
            write_summary(plan.run, plan.configuration)
            raise
    write_summary(plan.run, plan.configuration)
    labels = group_labels(plan.configuration)
    return Outcome(
        n_cells=plan.n_cells,
        n_before=plan.n_done,
        n_done=tally.n_done,
        failures={
            f"{labels[task.group.index]}, seed {task.seed}": message for task, message in tally.failures
        },
        n_failed=tally.n_failed,
        n_lost=tally.n_lost,
        stopped=fail_fast and bool(tally.failures),
    )


def _report_leftovers(plan: Plan, reporter: Reporter) -> None:
    """Set damaged parts aside and say so; say what was lost, and what has changed since."""
    for path, reason in plan.states.damaged.items():
        aside = set_aside(path)
        reporter.note(f"{path} cannot be used: {reason}; set aside as {aside.name}")
    n_lost = n_cells([task for task in plan.waiting if task.key in plan.states.lost])
    if n_lost:
        reporter.note(f"{n_lost} cells were lost when an earlier run was killed; they are run again")
    if plan.waiting:
        for change in changed_versions(plan.run):
            reporter.note(f"this directory was begun with {change}; numbers may differ in their last bits")


class _Tally:
    """Counts results, and turns shares of tasks into cells for the reporter."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self.n_done = self.n_failed = self.n_lost = 0
        self.failures: list[tuple[Task, str]] = []
        self._reported: dict[str, float] = {}

    def progress(self, assignment: Assignment, share: float) -> None:
        """Count what a task has done since it last said."""
        task = assignment.task
        self.reporter.advance(len(task.cells) * (share - self._reported.get(task.key, 0.0)))
        self._reported[task.key] = share

    def add(self, result: Result) -> None:
        """Count a task that has ended."""
        size = len(result.assignment.task.cells)
        self.progress(result.assignment, 1.0)
        if result.error is None:
            self.n_done += size
            return
        self.failures.append((result.assignment.task, result.error))
        self.reporter.advance(0.0, failed=size)
        if result.lost:
            self.n_lost += size
        else:
            self.n_failed += size


def _assignments(plan: Plan) -> list[Assignment]:
    """The waiting tasks with their scales, long ones first; steps that cannot be found stop it all here."""
    groups = {task.group.index: task.group for task in plan.waiting}
    labels = group_labels(plan.configuration)
    scales: dict[int, Scale] = {}
    for index, group in groups.items():
        try:
            scales[index] = scale_of(group)
        except BalanceSimError as error:
            raise ConfigurationError(f"{labels[index]}: {error}") from error
    assignments = [Assignment(plan.run, task, scales[task.group.index]) for task in plan.waiting]
    for assignment in assignments:
        step_sizes(assignment.task, assignment.scale)
    return sorted(assignments, key=lambda one: -one.task.cost)
