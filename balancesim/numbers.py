"""Checks of single numbers, so that a wrong one meets one clear error wherever it is given."""

import math
import operator
from typing import Any

import numpy as np

from balancesim.errors import InputError


def check_int(name: str, value: Any, least: int) -> int:
    """Return an integer argument; raise `InputError` if it is none or below ``least``."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise InputError(f"`{name}` must be an integer, got {value!r}")
    if number < least:
        raise InputError(f"`{name}` must be at least {least}, got {number}")
    return number


def is_number(value: object) -> bool:
    """Whether a value is a real number and not a truth value."""
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def check_positive(name: str, value: Any, *, otherwise: str = "") -> None:
    """Raise `InputError` unless the argument is a finite number above zero; ``otherwise`` ends the rule."""
    if not (is_number(value) and 0.0 < value < math.inf):
        raise InputError(f"`{name}` must be a positive finite number{otherwise}, got {value!r}")


def check_rate(name: str, value: Any) -> None:
    """Raise `InputError` unless the argument is a number above zero and at most one."""
    if not (is_number(value) and 0.0 < value <= 1.0):
        raise InputError(f"`{name}` must be above 0 and at most 1, got {value!r}")


def check_not_negative(name: str, value: Any) -> None:
    """Raise `InputError` unless the argument is a finite number of at least zero."""
    if not (is_number(value) and 0.0 <= value < math.inf):
        raise InputError(f"`{name}` must be a finite number of at least 0, got {value!r}")
