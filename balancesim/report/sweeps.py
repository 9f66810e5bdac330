"""What an experiment sweeps: one numeric key of its rules, and the families of rules along it."""

import math
from collections.abc import Iterable
from typing import Any

from balancesim import balancers
from balancesim.errors import ConfigurationError
from balancesim.numbers import is_number
from balancesim.sweep.configuration import rule_defaults
from balancesim.sweep.parameters import Parameters, defaults

_APART = ("kind", "step_unit", "run")


def swept_key(rules: Iterable[Parameters]) -> str:
    """The numeric key that takes the most values in a run; the first of several in the rules' order.

    Keys that a rule leaves out count with their defaults, as in `value_of`.

    Raises
    ------
    ConfigurationError
        If no key takes two values.
    """
    values: dict[str, set[float]] = {}
    for rule in rules:
        for key, value in _whole(rule).items():
            if key not in _APART and is_number(value):
                values.setdefault(key, set()).add(value)
    best = max(values, key=lambda key: len(values[key]), default="")
    if not best or len(values[best]) < 2:
        raise ConfigurationError(
            'report: "trade-off" draws against a key of the rules that is a list of numbers, and there is '
            "none in this experiment; write one, such as strength = [0.1, 1.0, 10.0]"
        )
    return best


def value_of(rule: Parameters, key: str) -> float:
    """A rule's value of the swept key; NaN where it has none, or a word such as ``"auto"``."""
    value: Any = _whole(rule).get(key)
    return float(value) if is_number(value) else math.nan


def family_without(rule: Parameters, key: str) -> str:
    """What a rule is called apart from a number for one key: its kind, and what is no default of the class.

    A word in the place of the number is part of the name, even the default: it has no place along the key.
    """
    standard = defaults(balancers.registry()[rule["kind"]])
    words = [
        str(value) if isinstance(value, str) else f"{name}={value}"
        for name, value in rule.items()
        if name not in _APART and (isinstance(value, str) if name == key else value != standard.get(name))
    ]
    return " ".join([rule["kind"], *words])


def _whole(rule: Parameters) -> Parameters:
    return {**rule_defaults(balancers.registry()[rule["kind"]]), **rule}
