"""The keys of `balancers.Delayed`, which every rule with a price of its own takes beside its own."""

from collections.abc import Mapping
from types import MappingProxyType

from balancesim import balancers
from balancesim.sweep.parameters import Parameters, parameter_names

NO_DELAYS: Mapping[str, int] = MappingProxyType({"every": 1, "lag": 0, "n_ranks": 1})
"""The keys, and what they are if omitted; resolved parameters hold those with another value."""


def delay_keys(cls: type) -> tuple[str, ...]:
    """The keys that a rule takes and does not define itself; a price that never changes has none."""
    if not issubclass(cls, balancers.PriceRule) or cls is balancers.NoBalance:
        return ()
    return tuple(key for key in NO_DELAYS if key not in parameter_names(cls))


def delays_of(rule: Parameters) -> dict[str, int]:
    """A resolved rule's delays other than none."""
    return {key: rule[key] for key in delay_keys(balancers.registry()[rule["kind"]]) if key in rule}
