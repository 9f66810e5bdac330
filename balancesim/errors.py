"""The errors this project raises: one root, and each class is also the built-in one expects."""

import difflib
from collections.abc import Iterable


class BalanceSimError(Exception):
    """Root of every error that balancesim raises on purpose."""


class InputError(BalanceSimError, ValueError):
    """An argument breaks a rule; the message names the argument, the rule, what was found and the way out."""


class ConfigurationError(BalanceSimError, ValueError):
    """A configuration file, key or command line value cannot be used."""


class MissingDependencyError(BalanceSimError, ImportError):
    """An optional package is not installed; the message gives the pip command."""


class RunDirectoryError(BalanceSimError, OSError):
    """A run directory cannot be used: not a directory, not writable, or from another configuration."""


class RangeWarning(UserWarning):
    """Numbers fell outside a range that was given for them; the message says what fraction of them."""


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> str:
    """Say that a name is unknown, what the nearest valid one is, and which names there are."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown {kind} {name!r}{hint} (valid: {', '.join(names)})"
