"""Sources of token-expert scores: synthetic families, heavy-tailed ones included, and recorded data."""

from collections.abc import Mapping

from balancesim.sources.base import Source
from balancesim.sources.calibration import LoadError, calibrated, calibration_error
from balancesim.sources.custom import FromFunction, FromScipy
from balancesim.sources.families import (
    Cauchy,
    Exponential,
    Gumbel,
    Logistic,
    LogNormal,
    Normal,
    Pareto,
    StudentT,
    Uniform,
)
from balancesim.sources.loads import RecordedLoads, read_loads
from balancesim.sources.recorded import Recorded
from balancesim.sources.structured import Clustered, Drifting, Factor
from balancesim.sources.token_stream import TokenStream

__all__ = [
    "Cauchy",
    "Clustered",
    "Drifting",
    "Exponential",
    "Factor",
    "FromFunction",
    "FromScipy",
    "Gumbel",
    "LoadError",
    "LogNormal",
    "Logistic",
    "Normal",
    "Pareto",
    "Recorded",
    "RecordedLoads",
    "Source",
    "StudentT",
    "TokenStream",
    "Uniform",
    "calibrated",
    "calibration_error",
    "read_loads",
    "registry",
]


def registry() -> Mapping[str, type[Source]]:
    """Return every source that a configuration can name, the installed packages' own included.

    Returns
    -------
    mapping of str to type
        From the entry points of group ``balancesim.sources``, sorted by name.
    """
    from balancesim.plugins import load_group

    return load_group("balancesim.sources")
