"""A run directory: which files it has, whose they are, and what state each task is in."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from balancesim.errors import ConfigurationError, RunDirectoryError
from balancesim.sweep.atomic import TEMPORARY, storage_error, write_json, write_text
from balancesim.sweep.cells import ENGINE_VERSION, Task
from balancesim.sweep.configuration import Configuration, differences, resolve
from balancesim.sweep.experiment import read_draft
from balancesim.sweep.machine import manifest
from balancesim.sweep.parts import DamagedPartError, check_rows, read_facts
from balancesim.sweep.toml_text import toml_text

_MOST_NAMED = 3


@dataclass(frozen=True)
class RunDirectory:
    """Where a sweep keeps its results.

    Attributes
    ----------
    path : Path
        The folder; it need not exist yet.
    """

    path: Path

    @property
    def cells(self) -> Path:
        """Folder of the Parquet parts and of the marks of failed and unfinished tasks."""
        return self.path / "cells"

    @property
    def figures(self) -> Path:
        """Folder of the figures."""
        return self.path / "figures"

    @property
    def configuration_file(self) -> Path:
        """The resolved experiment, an experiment file of its own."""
        return self.path / "config.toml"

    @property
    def manifest_file(self) -> Path:
        """Versions, machine and engine version."""
        return self.path / "manifest.json"

    @property
    def summary_file(self) -> Path:
        """One row per finished cell."""
        return self.path / "summary.parquet"

    def part_file(self, task: Task) -> Path:
        """The part of a finished task."""
        return self.cells / f"part-{task.key}.parquet"

    def failed_file(self, task: Task) -> Path:
        """The message of a task that raised an exception."""
        return self.cells / f"failed-{task.key}.json"

    def claim_file(self, task: Task) -> Path:
        """The mark of a task that is being worked on; one left behind means it was killed."""
        return self.cells / f"claim-{task.key}.json"


@dataclass(frozen=True)
class States:
    """The state of every task of a run directory.

    Attributes
    ----------
    done : frozenset of str
        Keys of the tasks with a usable part.
    failed : dict of str to str
        Message of each task that raised an exception.
    lost : frozenset of str
        Tasks that were killed half-way.
    damaged : dict of Path to str
        Parts that cannot be used, and why.
    """

    done: frozenset[str]
    failed: dict[str, str]
    lost: frozenset[str]
    damaged: dict[Path, str]


NOTHING_DONE = States(frozenset(), {}, frozenset(), {})
"""The states in a new directory."""


def read_configuration(run: RunDirectory) -> Configuration:
    """The configuration a run directory holds.

    Raises
    ------
    RunDirectoryError
        If it is not a run directory, or its ``config.toml`` cannot be used.
    """
    if not run.path.exists():
        raise RunDirectoryError(f"there is no run directory {run.path}")
    if not run.configuration_file.is_file():
        raise RunDirectoryError(f"{run.path} is not a run directory: it has no config.toml")
    try:
        return resolve(read_draft(run.configuration_file))
    except ConfigurationError as error:
        raise RunDirectoryError(
            f"{run.path} holds a configuration that cannot be used ({error}); "
            "give another --out DIR, or --fresh"
        ) from error


def conflict(run: RunDirectory, configuration: Configuration) -> str | None:
    """Why the directory cannot continue with this configuration, or None where it can (or is new).

    Raises
    ------
    RunDirectoryError
        If the directory cannot be read.
    """
    try:
        if run.path.exists() and not run.path.is_dir():
            return f"{run.path} is a file, not a directory; give another --out DIR"
        if not run.configuration_file.exists():
            taken = [run.summary_file, run.manifest_file, *run.cells.glob("*")]
            names = [str(path.relative_to(run.path)) for path in taken if path.exists()]
            if names:
                return (
                    f"{run.path} has {names[0]} but no config.toml, so it is not a run directory; "
                    "give another --out DIR"
                )
            return None
    except OSError as error:
        raise storage_error(run.path, error) from error
    found = differences(configuration.identity(), read_configuration(run).identity())
    engine = read_manifest(run).get("engine_version", ENGINE_VERSION)
    if engine != ENGINE_VERSION:
        found.append(f"engine version ({engine} there, {ENGINE_VERSION} here)")
    if not found:
        return None
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return (
        f"{run.path} holds another configuration: {', '.join(found[:_MOST_NAMED])}{more}; "
        "give another --out DIR, or --fresh to replace it"
    )


def with_stored_seeds(run: RunDirectory, configuration: Configuration) -> Configuration:
    """The configuration with the directory's seeds added to its own."""
    if not run.configuration_file.exists():
        return configuration
    stored = read_configuration(run).seeds
    return replace(configuration, seeds=tuple(sorted({*stored, *configuration.seeds})))


def make_folders(run: RunDirectory) -> None:
    """Make the directory and the folder of its parts.

    Raises
    ------
    RunDirectoryError
        If they cannot be made.
    """
    try:
        run.cells.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(run.path, error) from error


def prepare(run: RunDirectory, configuration: Configuration) -> None:
    """Write the configuration and the manifest, and sweep up what a killed run left.

    Raises
    ------
    RunDirectoryError
        If the directory cannot be written.
    """
    try:
        leftovers = [*run.path.glob(f"{TEMPORARY}*"), *run.cells.glob(f"{TEMPORARY}*")]
        for path in [*leftovers, *run.cells.glob("claim-*.json")]:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(run.path, error) from error
    write_configuration(run, configuration)
    if not run.manifest_file.exists():
        write_json(run.manifest_file, {"engine_version": ENGINE_VERSION, "figures": [], **manifest()})


def write_configuration(run: RunDirectory, configuration: Configuration) -> None:
    """Write the resolved experiment, unless the very same is there.

    Raises
    ------
    RunDirectoryError
        If it cannot be written.
    """
    text = toml_text(configuration.document())
    if not run.configuration_file.exists() or run.configuration_file.read_text(encoding="utf-8") != text:
        write_text(run.configuration_file, text)


def clear(run: RunDirectory) -> None:
    """Remove what a sweep wrote, and nothing else.

    Raises
    ------
    RunDirectoryError
        If a file cannot be removed.
    """
    figures = read_manifest(run).get("figures", [])
    patterns = ("part-*.parquet", "damaged-*", "failed-*.json", "claim-*.json", f"{TEMPORARY}*")
    try:
        for pattern in patterns:
            for path in run.cells.glob(pattern):
                path.unlink()
        for name in figures:
            if Path(name).name == name:
                (run.figures / name).unlink(missing_ok=True)
        for path in (
            run.summary_file,
            run.manifest_file,
            *run.path.glob(f"{TEMPORARY}*"),
            run.configuration_file,
        ):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(run.path, error) from error


def scan(run: RunDirectory, tasks: Sequence[Task]) -> States:
    """Find out the state of every task; nothing is changed."""
    done, damaged = set(), {}
    expected = {run.part_file(task).name: task for task in tasks}
    for path in sorted(run.cells.glob("part-*.parquet")):
        task = expected.get(path.name)
        try:
            keys = [cell.get("cell") for cell in read_facts(path).get("cells", [])]
            check_rows(path)
        except DamagedPartError as error:
            damaged[path] = str(error)
            continue
        if task is None or keys != [cell.key for cell in task.cells]:
            damaged[path] = "it belongs to no task of this run"
        else:
            done.add(task.key)
    waiting = [task for task in tasks if task.key not in done]
    failed = {
        task.key: str(_read_json(run.failed_file(task)).get("message", "unknown"))
        for task in waiting
        if run.failed_file(task).exists()
    }
    lost = frozenset(task.key for task in waiting if run.claim_file(task).exists())
    return States(frozenset(done), failed, lost, damaged)


def set_aside(path: Path) -> Path:
    """Give a damaged part a name that no task looks for, and return it.

    Raises
    ------
    RunDirectoryError
        If it cannot be renamed.
    """
    aside = path.with_name(f"damaged-{path.name}")
    try:
        return path.replace(aside)
    except OSError as error:
        raise storage_error(path.parent, error) from error


def recorded_figures(run: RunDirectory) -> list[Path]:
    """The figures the manifest names."""
    return [run.figures / name for name in read_manifest(run).get("figures", [])]


def read_manifest(run: RunDirectory) -> dict[str, Any]:
    """The manifest, empty where it is missing or damaged."""
    return _read_json(run.manifest_file)


def changed_versions(run: RunDirectory) -> list[str]:
    """What differs between the machine and versions that began this directory and the present ones."""
    stored, present = read_manifest(run), manifest()
    return [
        f"{key} {stored[part].get(key)} (now {value})"
        for part in ("versions", "machine")
        if isinstance(stored.get(part), dict)
        for key, value in present[part].items()
        if stored[part].get(key) != value
    ]


@contextmanager
def locked(run: RunDirectory) -> Iterator[None]:
    """Hold the directory for this process; the lock goes with the process, however that ends.

    Raises
    ------
    RunDirectoryError
        If another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # no such locks on this platform: two runs at once write the same bytes
        yield
        return
    descriptor = os.open(run.cells, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunDirectoryError(
                f"another process is working in {run.path}; wait for it, or give another --out DIR"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
