"""Run parameters: what a cell gives to ``simulate`` besides its source and its rule."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal

from balancesim.errors import ConfigurationError
from balancesim.groups import GroupLimit
from balancesim.sweep.parameters import parameter_types

Comparator = Literal["auto", "population", "hindsight", "rule", "none"]
GroupScore = Literal["top2", "max"]
Backend = Literal["numba", "cupy"]

RULE_RUN_KEYS = ("horizon", "n_records")
"""Run parameters that a rule may set for its own cells, as ``run.horizon = 100`` in its table."""


@dataclass(frozen=True)
class RunParameters:
    """What a cell gives to ``simulate`` besides its source and its rule."""

    n_tokens: int = 256
    k: int = 2
    horizon: int = 10_000
    n_records: int = 64
    n_exact: int = 8
    comparator: Comparator = "auto"
    n_groups: int = 0
    n_chosen_groups: int = 0
    group_score: GroupScore = "top2"
    backend: Backend = "numba"

    def __post_init__(self) -> None:
        least_values = (
            ("n_tokens", 1),
            ("k", 1),
            ("horizon", 1),
            ("n_records", 2),
            ("n_exact", 0),
            ("n_groups", 0),
            ("n_chosen_groups", 0),
        )
        for name, least in least_values:
            if getattr(self, name) < least:
                raise ConfigurationError(f"`{name}` must be at least {least}, got {getattr(self, name)}")

    @property
    def groups(self) -> GroupLimit | None:
        """The limit on groups of experts; None where ``n_groups`` is 0."""
        if self.n_groups == 0 and self.n_chosen_groups > 0:
            raise ConfigurationError(
                f"n_chosen_groups = {self.n_chosen_groups} needs n_groups, a divisor of the number of experts"
            )
        if self.n_groups > 0 and self.n_chosen_groups == 0:
            raise ConfigurationError(
                f"n_groups = {self.n_groups} needs n_chosen_groups, how many groups a token may use"
            )
        return GroupLimit(self.n_groups, self.n_chosen_groups, self.group_score) if self.n_groups else None

    def deciding(self) -> dict[str, Any]:
        """What decides a cell's numbers: keys of groups only where there is a limit; the card, not Numba.

        On a card loads have the same bits, sums of scores other last digits.
        """
        chosen = asdict(self)
        if self.backend == "numba":
            del chosen["backend"]
        return chosen if self.n_groups else {key: chosen[key] for key in chosen if "group" not in key}


RUN_TYPES: Mapping[str, Any] = MappingProxyType(parameter_types(RunParameters))
