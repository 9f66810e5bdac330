"""Cells and tasks: one cell is one (source, rule, run parameters, seed); one task shares a seed's draws."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from balancesim.sweep.configuration import Configuration, Group
from balancesim.sweep.parameters import Parameters
from balancesim.sweep.run_parameters import RunParameters

ENGINE_VERSION = 5
"""Part of every cell's key; raised when a change of code may change a cell's numbers."""


@dataclass(frozen=True)
class Cell:
    """One run of one rule.

    Attributes
    ----------
    key : str
        16 hex digits: a hash of all that decides the cell's numbers, the engine version among it.
    group : Group
        The source and the run parameters.
    run : RunParameters
        The group's, with what the rule sets for its own cells.
    rule : mapping
        The rule's resolved parameters.
    rule_index, seed : int
        The rule's place in the experiment, and the seed.
    """

    key: str
    group: Group
    run: RunParameters
    rule: Parameters
    rule_index: int
    seed: int


@dataclass(frozen=True)
class Task:
    """The cells that differ only in the rule: one call of ``simulate``, one Parquet part."""

    key: str
    cells: tuple[Cell, ...]

    @property
    def group(self) -> Group:
        """The group that the cells belong to."""
        return self.cells[0].group

    @property
    def run(self) -> RunParameters:
        """The run parameters that the cells share."""
        return self.cells[0].run

    @property
    def seed(self) -> int:
        """The seed that the cells share."""
        return self.cells[0].seed

    @property
    def cost(self) -> int:
        """A rough measure of the work, to start long tasks first; a larger K makes the top K longer."""
        run = self.run
        scores = run.horizon * run.n_tokens * int(self.group.source.get("n_experts", 64))
        return scores * len(self.cells) * (run.k + 2)


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: keys sorted, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=dict)


def tasks_of(configuration: Configuration) -> tuple[Task, ...]:
    """Every task of an experiment, in its order: groups, then seeds; within a task, rules.

    Rules that set run parameters for their own cells form tasks apart.
    """
    found = []
    for group in configuration.groups:
        shared = {"source": group.source, "files": _digests(group.source)}
        for seed in configuration.seeds:
            by_run: dict[RunParameters, list[Cell]] = {}
            for index, given in enumerate(configuration.rules):
                rule = {key: value for key, value in given.items() if key != "run"}
                run = replace(group.run, **given.get("run", {}))
                key = _hash({**shared, "run": run.deciding(), "rule": rule, "seed": seed})
                cells = by_run.setdefault(run, [])
                if all(cell.key != key for cell in cells):  # a rule may set the very horizon of the run
                    cells.append(Cell(key, group, run, rule, index, seed))
            found += [Task(_hash([cell.key for cell in cells]), tuple(cells)) for cells in by_run.values()]
    return tuple(found)


def _digests(source: Parameters) -> dict[str, str]:
    """The contents of the files that a source names: other contents make other cells."""
    paths = {key: Path(value) for key, value in source.items() if isinstance(value, str)}
    return {key: _file_digest(path) for key, path in paths.items() if path.is_file()}


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def _hash(value: Any) -> str:
    text = canonical_json({"engine": ENGINE_VERSION, "value": value})
    return hashlib.blake2b(text.encode("ascii"), digest_size=8).hexdigest()
