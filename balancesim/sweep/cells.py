"""Cells and tasks: one cell is one (source, rule, run parameters, seed); one task shares a seed's draws."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from balancesim.sweep.configuration import Configuration, Group
from balancesim.sweep.parameters import Parameters

ENGINE_VERSION = 2
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
    rule : mapping
        The rule's resolved parameters.
    rule_index, seed : int
        The rule's place in the experiment, and the seed.
    """

    key: str
    group: Group
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
        """The source and the run parameters that the cells share."""
        return self.cells[0].group

    @property
    def seed(self) -> int:
        """The seed that the cells share."""
        return self.cells[0].seed

    @property
    def cost(self) -> int:
        """A rough measure of the work, to start long tasks first; a larger K makes the top K longer."""
        run = self.group.run
        scores = run.horizon * run.n_tokens * int(self.group.source.get("n_experts", 64))
        return scores * len(self.cells) * (run.k + 2)


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: keys sorted, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=dict)


def tasks_of(configuration: Configuration) -> tuple[Task, ...]:
    """Every task of an experiment, in its order: groups, then seeds; within a task, rules."""
    found = []
    for group in configuration.groups:
        shared = {"source": group.source, "files": _digests(group.source), "run": group.run.deciding()}
        for seed in configuration.seeds:
            cells = tuple(
                Cell(_hash({**shared, "rule": rule, "seed": seed}), group, rule, index, seed)
                for index, rule in enumerate(configuration.rules)
            )
            found.append(Task(_hash([cell.key for cell in cells]), cells))
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
