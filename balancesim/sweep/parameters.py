"""The parameters of a source or a rule: which keys its class takes, values checked against their types."""

import dataclasses
import functools
import itertools
import operator
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from balancesim.errors import BalanceSimError, ConfigurationError, unknown_name
from balancesim.sweep.experiment import Setting

Parameters = Mapping[str, Any]
"""Resolved parameters: plain values that JSON and TOML can hold, ``kind`` among them."""


def parameter_names(cls: type) -> tuple[str, ...]:
    """The keys an experiment may give for a class: its fields, but for the seed, which the run sets."""
    return tuple(item.name for item in dataclasses.fields(cls) if item.init and item.name != "seed")


def parameter_types(cls: type) -> dict[str, Any]:
    """The annotated type of each key of :func:`parameter_names`."""
    hints = typing.get_type_hints(cls)
    return {name: hints[name] for name in parameter_names(cls)}


def defaults(cls: type) -> dict[str, Any]:
    """The class's own defaults, in the order of its fields; a field without one is absent."""
    names = set(parameter_names(cls))
    found = {}
    for item in dataclasses.fields(cls):
        if item.name in names and item.default is not dataclasses.MISSING:
            found[item.name] = item.default
        elif item.name in names and item.default_factory is not dataclasses.MISSING:
            found[item.name] = item.default_factory()
    return found


def axis(setting: Setting, hint: Any) -> list[Any]:
    """The values that a setting stands for: one, or a list where the type wants a single value.

    Raises
    ------
    ConfigurationError
        If a value does not have the type; the message names the place, the rule and the value.
    """
    try:
        # Where anything goes, a list of names is a list of files, not one value.
        return [_converted(setting.value, str if hint is Any and _holds_text(setting.value) else hint)]
    except msgspec.ValidationError as error:
        if not isinstance(setting.value, list):
            raise _wrong_type(setting, setting.value, hint, error) from None
    if not setting.value:
        raise ConfigurationError(f"{setting.origin} is an empty list; give at least one value")
    values = []
    for value in setting.value:
        try:
            converted = _converted(value, hint)
        except msgspec.ValidationError as error:
            raise _wrong_type(setting, value, hint, error) from None
        if converted not in values:
            values.append(converted)
    return values


def combinations(
    settings: Mapping[str, Setting], types: Mapping[str, Any], owner: str
) -> Iterator[dict[str, Any]]:
    """Every combination of the settings' values, the first key varying slowest.

    Raises
    ------
    ConfigurationError
        If a key is not among ``types`` (``owner`` names whose key it is) or a value has the wrong type.
    """
    for key, setting in settings.items():
        if key not in types:
            raise ConfigurationError(f"{setting.origin}: {unknown_name(f'key of {owner}', key, types)}")
    axes = [axis(setting, types[key]) for key, setting in settings.items()]
    for values in itertools.product(*axes):
        yield dict(zip(settings, values, strict=True))


def build(cls: type, parameters: Parameters, origins: Mapping[str, str], where: str) -> Any:
    """Make the object, so that its own checks run, and word what they find by the place it was written.

    Raises
    ------
    ConfigurationError
        If a required key is missing or the class refuses a value.
    """
    missing = [name for name in parameter_names(cls) if name not in parameters and name not in defaults(cls)]
    if missing:
        raise ConfigurationError(f"{where} ({cls.__name__}) needs {', '.join(missing)}")
    try:
        return cls(**parameters)
    except BalanceSimError as error:
        message = str(error)
        origin = next((origins[key] for key in origins if f"`{key}`" in message), where)
        raise ConfigurationError(f"{origin}: {message}") from error


def plain(value: Any) -> Any:
    """A value as JSON and TOML hold it: tuples become lists."""
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def unique(items: Iterable[Parameters]) -> tuple[Parameters, ...]:
    """The distinct items, in the order of their first appearance."""
    kept: list[Parameters] = []
    for item in items:
        if item not in kept:
            kept.append(dict(item))
    return tuple(kept)


def _holds_text(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(item, str) for item in value)


def _converted(value: Any, hint: Any) -> Any:
    if value == "none" and type(None) in typing.get_args(hint):
        return None
    try:
        return msgspec.convert(value, type=hint)
    except TypeError:  # a type that msgspec does not know
        known = [part for part in typing.get_args(hint) if not _is_own_class(part)]
        if known:
            return msgspec.convert(value, type=functools.reduce(operator.or_, known))
        return value  # the class checks it


def _is_own_class(hint: Any) -> bool:
    """Whether a type is a class of this project or a package's, which no file can hold a value of."""
    return isinstance(hint, type) and hint.__module__ != "builtins"


def _wrong_type(
    setting: Setting, value: Any, hint: Any, error: msgspec.ValidationError
) -> ConfigurationError:
    choices = [name for name in _literals(hint) if isinstance(name, str)]
    if isinstance(value, str) and choices:
        return ConfigurationError(f"{setting.origin}: {unknown_name('value', value, choices)}")
    rule = str(error)[:1].lower() + str(error)[1:]
    return ConfigurationError(f"{setting.origin}: {rule}; the value is {value!r}")


def _literals(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    return tuple(itertools.chain.from_iterable(_literals(part) for part in typing.get_args(hint)))
