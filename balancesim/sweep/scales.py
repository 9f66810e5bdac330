"""Step sizes in multiples of a source's own scale: its modulus at p*, or its spread at the K-th place."""

import math
from dataclasses import dataclass
from typing import Any

from balancesim import balancers
from balancesim.errors import ConfigurationError, InputError
from balancesim.sweep.configuration import Group, build_source
from balancesim.sweep.delays import delays_of
from balancesim.sweep.parameters import Parameters
from balancesim.types import Estimate

PILOT_SEED = 2**63 - 1
"""Seed of the draws that scales are measured on: one that no run is likely to use, the same for all."""

_PILOT_STEPS = 256


@dataclass(frozen=True)
class Scale:
    """What step sizes of one group are measured in.

    Attributes
    ----------
    modulus, modulus_low, modulus_high : float
        mu(p*) with its 95 % interval, in 1/score; NaN where it is not known.
    modulus_method : str
        How it was found, or why it is not known: a recording of few tokens may have too few near-ties.
    exchangeable : bool
        Whether p* makes all experts alike (S2), so that the curvature is mu in every direction.
    spread : float
        ``theory.boundary_spread``, in score units.
    """

    modulus: float
    modulus_low: float
    modulus_high: float
    modulus_method: str
    exchangeable: bool
    spread: float


def scale_of(group: Group) -> Scale:
    """Measure the scale of a group's source.

    The modulus comes from closed forms or quadrature where the source declares its distribution; else from
    near-ties, counted in draws of a seed of their own at those draws' best fixed bias.

    Raises
    ------
    InputError
        If the source cannot be drawn from.
    """
    from balancesim import theory

    source = build_source(group.source).with_seed(PILOT_SEED)
    spread = theory.boundary_spread(source, group.run.k)
    exchangeable = True
    try:
        estimate = theory.modulus(source, group.run.k)
    except InputError:
        exchangeable = False
        try:
            estimate = _counted(source, group)
        except InputError as error:
            return Scale(math.nan, math.nan, math.nan, f"not known: {error}", False, spread)
    return Scale(estimate.value, estimate.low, estimate.high, estimate.method, exchangeable, spread)


def step_in_score_units(rule: Parameters, scale: Scale, where: str) -> float | str | None:
    """The step size that the rule runs with; None for a rule without one, ``"auto"`` as it is.

    Raises
    ------
    ConfigurationError
        If the step is a multiple of something that is not known for this source.
    """
    step = rule.get("step_size")
    if step is None or isinstance(step, str):
        return step
    unit = rule["step_unit"]
    if unit == "inverse-modulus":
        if not scale.modulus > 0.0:
            raise ConfigurationError(
                f"{where}: a step in multiples of 1/mu needs the modulus, which is {scale.modulus_method}; "
                "choose another step_unit: score, spread or percent-of-spread"
            )
        return float(step) / scale.modulus
    factor = {"score": 1.0, "spread": scale.spread, "percent-of-spread": scale.spread / 100.0}[unit]
    return float(step) * factor


def build_rule(rule: Parameters, step_size: float | str | None) -> Any:
    """The rule that resolved parameters describe, with its step in score units and its delays."""
    cls, delays = balancers.registry()[rule["kind"]], delays_of(rule)
    settings = {key: value for key, value in rule.items() if key not in ("kind", "step_unit", *delays)}
    built: Any = cls(**settings if step_size is None else {**settings, "step_size": step_size})
    return balancers.Delayed(rule=built, **delays) if delays else built


def _counted(source: Any, group: Group) -> Estimate:
    from balancesim import theory
    from balancesim.hindsight import best_fixed_bias

    bias = source.population_bias()
    if bias is None:
        bias = best_fixed_bias(source, n_tokens=group.run.n_tokens, k=group.run.k, n_steps=_PILOT_STEPS).bias
    return theory.modulus(source, group.run.k, bias=bias, method="gap")
