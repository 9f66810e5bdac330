"""What an experiment sweeps: one numeric key of its rules, and the families of rules along it."""

from collections.abc import Mapping

from balancesim import balancers
from balancesim.errors import ConfigurationError
from balancesim.numbers import is_number
from balancesim.sweep.parameters import Parameters, defaults

_APART = ("kind", "step_unit", "run")


def swept_key(rules: Mapping[str, Parameters]) -> str:
    """The numeric key that takes the most values in a run; the first of several in the rules' order.

    Raises
    ------
    ConfigurationError
        If no key takes two values.
    """
    values: dict[str, set[float]] = {}
    for rule in rules.values():
        for key, value in rule.items():
            if key not in _APART and is_number(value):
                values.setdefault(key, set()).add(value)
    best = max(values, key=lambda key: len(values[key]), default="")
    if not best or len(values[best]) < 2:
        raise ConfigurationError(
            'report: "trade-off" draws against a key of the rules that is a list of numbers, and there is '
            "none in this experiment; write one, such as strength = [0.1, 1.0, 10.0]"
        )
    return best


def family_without(rule: Parameters, key: str) -> str:
    """What a rule is called apart from one key: its kind, and what is not the class's default."""
    standard = defaults(balancers.registry()[rule["kind"]])
    words = [
        str(value) if isinstance(value, str) else f"{name}={value}"
        for name, value in rule.items()
        if name not in (*_APART, key) and value != standard.get(name)
    ]
    return " ".join([rule["kind"], *words])
