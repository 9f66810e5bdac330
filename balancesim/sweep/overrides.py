"""``--set key=v1,v2``: change an experiment from the command line.

``source=`` and ``rule=`` say which kinds there are: the experiment's own entries of a kind where it has some,
else one with defaults. ``source.KEY=`` and ``rule.KEY=`` give a key to the entries whose kind has it and drop
the others. Any other key is a run parameter, and wins over what a source or a rule set for itself.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from balancesim import balancers, sources
from balancesim.errors import ConfigurationError, unknown_name
from balancesim.sweep.configuration import rule_types
from balancesim.sweep.experiment import Draft, Entry, Setting
from balancesim.sweep.parameters import parameter_types
from balancesim.sweep.run_parameters import RUN_TYPES


def override_keys() -> tuple[str, ...]:
    """Every key that ``--set`` knows."""
    keys = ["source", "rule", *RUN_TYPES, "seeds"]
    for part in ("source", "rule"):
        keys += sorted({f"{part}.{key}" for types in _types(part).values() for key in types})
    return tuple(keys)


def parse_override(text: str) -> tuple[str, Any]:
    """Split ``key=v1,v2`` into the key and its value, a list where there is a comma outside brackets.

    A piece that reads as a TOML value is that value (``2.5``, ``true``, ``[0.0, 1.0]``), else a string.

    Raises
    ------
    ConfigurationError
        If there is no ``=``, no key or no value.
    """
    key, equals, value = text.partition("=")
    key = key.strip().removeprefix("run.")
    if not equals or not key or not value.strip():
        raise ConfigurationError(f"--set wants KEY=VALUE or KEY=V1,V2, got {text!r}")
    pieces = [_scalar(piece.strip()) for piece in _split(value)]
    return key, pieces[0] if len(pieces) == 1 else pieces


def apply_overrides(draft: Draft, overrides: Iterable[str]) -> tuple[Draft, tuple[str, ...]]:
    """Change a draft by ``--set`` texts; also gives notes on what was dropped.

    The order of the texts does not matter, but that of one key given twice the last wins.

    Raises
    ------
    ConfigurationError
        If a text cannot be read, a key is unknown or fits nothing in the experiment.
    """
    parsed = dict(parse_override(text) for text in overrides)
    valid = override_keys()
    for key in parsed:
        if key not in valid:
            raise ConfigurationError(f"--set {key}: {unknown_name('key', key, valid)}")
    notes: list[str] = []
    draft = replace(
        draft,
        sources=_chosen("source", parsed, draft.sources, notes),
        rules=_chosen("rule", parsed, draft.rules, notes),
    )
    for key, value in parsed.items():
        part, _, name = key.partition(".")
        setting = Setting(value, f"--set {key}")
        if part == "source" and name:
            draft = replace(draft, sources=_narrowed("source", name, setting, draft.sources, notes))
        elif part == "rule" and name:
            draft = replace(draft, rules=_narrowed("rule", name, setting, draft.rules, notes))
        elif part not in ("source", "rule"):
            draft = replace(
                draft,
                run={**draft.run, key: setting},
                sources=tuple(_without(entry, key) for entry in draft.sources),
                rules=tuple(_without_own_run(entry, key) for entry in draft.rules),
            )
    return draft, tuple(notes)


def _types(part: str) -> dict[str, dict[str, Any]]:
    if part == "source":
        return {kind: parameter_types(cls) for kind, cls in sources.registry().items()}
    return {kind: rule_types(cls) for kind, cls in balancers.registry().items()}


def _chosen(
    part: str, parsed: Mapping[str, Any], entries: tuple[Entry, ...], notes: list[str]
) -> tuple[Entry, ...]:
    if part not in parsed:
        return entries
    value = parsed[part]
    known = _types(part)
    chosen: list[Entry] = []
    for kind in map(str, value if isinstance(value, list) else [value]):
        if kind not in known:
            raise ConfigurationError(f"--set {part}: {unknown_name(part, kind, known)}")
        own = [entry for entry in entries if entry.kind.value == kind]
        if not own:
            notes.append(f"--set {part}: the experiment has no {part} {kind}, so one with defaults is taken")
        chosen.extend(own or [Entry(Setting(kind, f"--set {part}"))])
    return tuple(chosen)


def _narrowed(
    part: str, name: str, setting: Setting, entries: tuple[Entry, ...], notes: list[str]
) -> tuple[Entry, ...]:
    known = _types(part)
    kept = []
    dropped = []
    for entry in entries:
        # An unknown kind is kept: resolving the experiment names it.
        if name in known.get(str(entry.kind.value), (name,)):
            kept.append(replace(entry, settings={**entry.settings, name: setting}))
        else:
            dropped.append(str(entry.kind.value))
    if not kept:
        owners = ", ".join(sorted(kind for kind, types in known.items() if name in types))
        raise ConfigurationError(
            f"{setting.origin}: no {part} of this experiment has this key "
            f"({', '.join(dict.fromkeys(dropped))}); it belongs to {owners}: add --set {part}=NAME"
        )
    if dropped:
        notes.append(
            f"{setting.origin}: leaves out {', '.join(dict.fromkeys(dropped))}, which have no such key"
        )
    return tuple(kept)


def _without(entry: Entry, key: str) -> Entry:
    return replace(entry, settings={name: value for name, value in entry.settings.items() if name != key})


def _without_own_run(entry: Entry, key: str) -> Entry:
    """The rule's entry without its own value of a run parameter."""
    own = entry.settings.get("run")
    if own is None or not isinstance(own.value, dict):
        return entry
    kept = {name: value for name, value in own.value.items() if name != key}
    return replace(entry, settings={**entry.settings, "run": own._replace(value=kept)})


def _split(text: str) -> list[str]:
    pieces, depth, start = [], 0, 0
    for index, character in enumerate(text):
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            pieces.append(text[start:index])
            start = index + 1
    return [*pieces, text[start:]]


def _scalar(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
