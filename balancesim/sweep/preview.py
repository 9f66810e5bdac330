"""What a sweep would do: every cell with its state, nothing run and nothing written."""

from dataclasses import dataclass
from typing import Literal

from balancesim.errors import RunDirectoryError
from balancesim.sweep.cells import tasks_of
from balancesim.sweep.configuration import Configuration
from balancesim.sweep.labels import group_labels, rule_labels
from balancesim.sweep.session import plan_sweep
from balancesim.sweep.store import NOTHING_DONE, RunDirectory, States

State = Literal["done", "failed", "lost", "to do"]


@dataclass(frozen=True)
class ListedCell:
    """A cell for reading: its key, its state, and what it runs."""

    key: str
    state: State
    source: str
    rule: str
    seed: int


@dataclass(frozen=True)
class Preview:
    """The cells a command asks for, and why the directory could not take them, if so."""

    cells: tuple[ListedCell, ...]
    conflict: str | None


def preview(run: RunDirectory, configuration: Configuration, *, fresh: bool = False) -> Preview:
    """List the cells of a configuration with their states in a directory.

    A directory that cannot continue with the configuration has none of its cells; so has a fresh start.
    """
    conflict = None
    states = NOTHING_DONE
    if not fresh:
        try:
            states = plan_sweep(run, configuration).states
        except RunDirectoryError as error:
            conflict = str(error)
    sources, rules = group_labels(configuration), rule_labels(configuration)
    cells = []
    for task in tasks_of(configuration):
        state = _state(task.key, states)
        cells += [
            ListedCell(cell.key, state, sources[task.group.index], rules[cell.rule_index], cell.seed)
            for cell in task.cells
        ]
    return Preview(tuple(cells), conflict)


def _state(key: str, states: States) -> State:
    if key in states.done:
        return "done"
    if key in states.failed:
        return "failed"
    return "lost" if key in states.lost else "to do"
