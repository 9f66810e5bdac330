"""Read an experiment: a TOML file becomes a draft whose every value remembers where it was written."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import balancesim
from balancesim.errors import ConfigurationError, unknown_name

_TOP_LEVEL = ("name", "description", "report", "reference", "run", "source_defaults", "source", "rule")


class Setting(NamedTuple):
    """A value and the place the user wrote it, such as ``source[2].tail_index``."""

    value: Any
    origin: str


@dataclass(frozen=True)
class Entry:
    """One ``[[source]]`` or ``[[rule]]`` table: the kind it names and its other keys."""

    kind: Setting
    settings: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True)
class Draft:
    """An experiment as written: nothing is resolved yet, a list may stand for a grid axis."""

    name: str
    description: str = ""
    report: str | None = None
    reference: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Setting] = field(default_factory=dict)
    source_defaults: Mapping[str, Setting] = field(default_factory=dict)
    sources: tuple[Entry, ...] = ()
    rules: tuple[Entry, ...] = ()


def experiments_folder() -> Path:
    """The folder of the named experiments: inside an installed package, else beside it in the checkout."""
    package = Path(balancesim.__file__).parent
    installed = package / "experiments"
    return installed if installed.is_dir() else package.parent / "experiments"


def experiment_files() -> dict[str, Path]:
    """The named experiments, ``regret_sweep.toml`` under the name ``regret-sweep``."""
    return {path.stem.replace("_", "-"): path for path in sorted(experiments_folder().glob("*.toml"))}


def find_experiment(name: str) -> Path:
    """The file of a named experiment.

    Raises
    ------
    ConfigurationError
        If there is no experiment of that name; the message lists the names and the nearest one.
    """
    files = experiment_files()
    if name not in files:
        raise ConfigurationError(
            f"{unknown_name('experiment', name, files)}; a file of your own is given by --config FILE.toml"
        )
    return files[name]


def load_draft(name: str | None, config: Path | None) -> Draft:
    """Read the named experiment, a file, or the file's keys laid over the named experiment's.

    Raises
    ------
    ConfigurationError
        If neither is given, the name is unknown, or a file cannot be used.
    """
    if name is not None:
        base = read_draft(find_experiment(name))
        return base if config is None else _overlay(base, read_draft(config))
    if config is not None:
        return read_draft(config)
    raise ConfigurationError(
        f"an experiment is needed: one of {', '.join(experiment_files())}, or --config FILE.toml"
    )


def read_draft(path: Path) -> Draft:
    """Read one experiment file.

    Raises
    ------
    ConfigurationError
        If the file is missing, is not TOML (the line is named), or has an unknown or misplaced key.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        reason = str(error).replace("end of document", f"the end, line {len(text.splitlines())}")
        raise ConfigurationError(f"{path} is not valid TOML: {reason}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise ConfigurationError(f"cannot read the experiment file {path}: {error.strerror}") from None
    for key in document:
        if key not in _TOP_LEVEL:
            raise ConfigurationError(f"{path}: {unknown_name('key', key, _TOP_LEVEL)}")
    name = _text(path, document, "name", path.stem.replace("_", "-"))
    if re.fullmatch(r"[\w-][\w.-]*", name) is None:
        raise ConfigurationError(f"{path}: name must be letters, digits, '-', '_' and '.', got {name!r}")
    return Draft(
        name=name,
        description=_text(path, document, "description", ""),
        report=_text(path, document, "report", "") or None,
        reference=_table(path, document, "reference"),
        run=_settings("run", _table(path, document, "run")),
        source_defaults=_settings("source_defaults", _table(path, document, "source_defaults")),
        sources=_entries(path, document, "source"),
        rules=_entries(path, document, "rule"),
    )


def _overlay(base: Draft, top: Draft) -> Draft:
    """Lay one draft over another: tables of keys merge, lists of sources and of rules are replaced whole."""
    return replace(
        base,
        description=top.description or base.description,
        report=top.report or base.report,
        reference=top.reference or base.reference,
        run={**base.run, **top.run},
        source_defaults={**base.source_defaults, **top.source_defaults},
        sources=top.sources or base.sources,
        rules=top.rules or base.rules,
    )


def _text(path: Path, document: Mapping[str, Any], key: str, default: str) -> str:
    value = document.get(key, default)
    if not isinstance(value, str):
        raise ConfigurationError(f"{path}: {key} must be a string, got {value!r}")
    return value


def _table(path: Path, document: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key, {})
    if not isinstance(value, dict):
        raise ConfigurationError(f"{path}: {key} must be a table, written [{key}], got {value!r}")
    return value


def _entries(path: Path, document: Mapping[str, Any], key: str) -> tuple[Entry, ...]:
    tables = document.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigurationError(f"{path}: {key} must be a list of tables, each written [[{key}]]")
    entries = []
    for index, table in enumerate(tables):
        settings = _settings(f"{key}[{index}]", table)
        if "kind" not in settings:
            raise ConfigurationError(f'{path}: {key}[{index}] has no kind; add a line such as kind = "NAME"')
        entries.append(Entry(settings.pop("kind"), settings))
    return tuple(entries)


def _settings(where: str, table: Mapping[str, Any]) -> dict[str, Setting]:
    return {key: Setting(value, f"{where}.{key}") for key, value in table.items()}
