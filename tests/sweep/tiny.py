"""A sweep small enough for a test, and what tests of sweeps share."""

from pathlib import Path
from typing import Any

from balancesim.sweep.configuration import Configuration, resolve
from balancesim.sweep.experiment import read_draft
from balancesim.sweep.session import Outcome, run_sweep
from balancesim.sweep.store import RunDirectory

TINY = """
name = "tiny"
description = "Small enough for a test."
reference = { schedule = "harmonic" }

[run]
n_tokens = 16
horizon = 50
n_records = 10
seeds = "0:2"

[source_defaults]
n_experts = 6
offsets = "iqr"

[[source]]
kind = "normal"

[[source]]
kind = "pareto"
tail_index = 0.8

[[rule]]
kind = "none"

[[rule]]
kind = "alf-lb"
schedule = ["sign", "harmonic"]
step_size = 1
step_unit = "default"
"""
N_CELLS = 12
N_TASKS = 4


class Silent:
    """A reporter that only keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.remarks: list[str] = []
        self.n_cells = 0
        self.cells = 0.0
        self.failed = 0

    def note(self, text: str) -> None:
        self.notes.append(text)

    def remark(self, text: str) -> None:
        self.remarks.append(text)

    def start(self, n_cells: int) -> None:
        self.n_cells = n_cells

    def advance(self, cells: float, *, failed: int = 0) -> None:
        self.cells += cells
        self.failed += failed

    def stop(self) -> None:
        pass


def write(folder: Path, text: str = TINY, name: str = "tiny.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def configuration(folder: Path, text: str = TINY) -> Configuration:
    return resolve(read_draft(write(folder, text)))


def sweep(folder: Path, config: Configuration, **options: Any) -> tuple[Outcome, Silent]:
    reporter = Silent()
    outcome = run_sweep(
        RunDirectory(folder), config, **{"executor": "serial", "reporter": reporter, **options}
    )
    return outcome, reporter


def summary_bytes(folder: Path) -> bytes:
    return (folder / "summary.parquet").read_bytes()


def parts(folder: Path) -> list[Path]:
    return sorted((folder / "cells").glob("part-*.parquet"))
