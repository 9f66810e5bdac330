"""balancesim: theory and simulation of online load balancing in sparse mixture-of-experts layers.

The names below load on first use, so that ``import balancesim`` compiles and imports next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from balancesim import balancers, exact, potentials, router, sources, theory
    from balancesim.batches import BlockedScores, blocked
    from balancesim.exact import solve
    from balancesim.groups import GroupLimit
    from balancesim.problem import coefficient_of_variation, dead_experts, max_violation
    from balancesim.router import train_router
    from balancesim.routing import dual_value, route
    from balancesim.simulation import simulate

__version__ = "0.1.0"

__all__ = [
    "BlockedScores",
    "GroupLimit",
    "__version__",
    "balancers",
    "blocked",
    "coefficient_of_variation",
    "dead_experts",
    "dual_value",
    "exact",
    "max_violation",
    "potentials",
    "route",
    "router",
    "simulate",
    "solve",
    "sources",
    "theory",
    "train_router",
]

_HOMES = {
    "BlockedScores": "balancesim.batches",
    "blocked": "balancesim.batches",
    "GroupLimit": "balancesim.groups",
    "coefficient_of_variation": "balancesim.problem",
    "dead_experts": "balancesim.problem",
    "dual_value": "balancesim.routing",
    "max_violation": "balancesim.problem",
    "route": "balancesim.routing",
    "simulate": "balancesim.simulation",
    "solve": "balancesim.exact",
    "train_router": "balancesim.router.training",
}
_MODULES = ("balancers", "exact", "potentials", "router", "sources", "theory")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"balancesim.{name}")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'balancesim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
