"""Which rules of an experiment are one rule at several settings, and which setting is tuned.

Variants of one rule agree in kind, in every parameter that is no number, and in how late prices come: that is
part of what the rule is, not a setting. The untuned one has the class's defaults for all other numbers (a
step size counts in its unit, whatever that is). The tuned one is chosen on seeds of its own, the first
quarter of them, by the least MaxVio, averaged over all batches of the run: it counts the way to balance, the
noise that is left and what a shift costs. What is reported comes from the other seeds alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from balancesim import balancers
from balancesim.numbers import is_number
from balancesim.sweep.delays import NO_DELAYS
from balancesim.sweep.parameters import Parameters, defaults

TUNING_SHARE = 0.25
"""The part of the seeds that settings are chosen on."""

ONLY, DEFAULT, TUNED, BOTH = "", "default", "tuned", "default, tuned"
"""What a row of the race is: the rule has one setting; its default; the best; or the best is the default."""

_APART = ("kind", "step_unit", "run")


@dataclass(frozen=True)
class Variant:
    """One rule at one setting.

    Attributes
    ----------
    rule : str
        Its label in the run.
    family : str
        What it is called without the numbers; the same for all variants of a rule.
    setting : str
        The numbers that the experiment varies or that are no defaults: ``x0.3``, ``strength 2``.
    is_default : bool
        Whether all numbers are the class's defaults.
    """

    rule: str
    family: str
    setting: str
    is_default: bool


def variants(rules: Mapping[str, Parameters]) -> list[Variant]:
    """Sort the rules of an experiment into families.

    Parameters
    ----------
    rules : mapping of str to mapping
        The resolved parameters of each rule, by its label.

    Returns
    -------
    list of Variant
        In order.
    """
    found = []
    for label, rule in rules.items():
        alike = [other for other in rules.values() if other["kind"] == rule["kind"]]
        numbers = [
            key
            for key in rule
            if key not in (*_APART, *NO_DELAYS) and any(is_number(one.get(key)) for one in alike)
        ]
        standard = defaults(balancers.registry()[rule["kind"]])
        changed = {key for key in numbers if rule[key] != standard.get(key)}
        varied = {key for key in numbers if any(one.get(key) != rule[key] for one in alike)}
        words = [
            _word(key, value)
            for key, value in rule.items()
            if key not in (*_APART, *numbers)
            and (value != standard.get(key) or any(one.get(key) != value for one in alike))
        ]
        settings = [_setting(key, rule) for key in numbers if key in changed | varied]
        found.append(Variant(label, " ".join([rule["kind"], *words]), ", ".join(settings), not changed))
    return found


def tuning_seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    """The seeds that settings are chosen on: the first quarter, at least one, never all of them."""
    ordered = sorted(set(seeds))
    return tuple(ordered[: max(1, round(TUNING_SHARE * len(ordered)))]) if len(ordered) > 1 else ()


def chosen(own: Sequence[Variant], overall: Mapping[str, float]) -> list[tuple[Variant, str]]:
    """The variants of one family that are reported, each with what it is.

    Parameters
    ----------
    own : sequence of Variant
        All of the family.
    overall : mapping of str to float
        For each rule that can be judged, the mean over the tuning seeds of the whole run's MaxVio; the
        earliest of equal ones is taken. Empty where there are too few seeds to tune.

    Returns
    -------
    list of (Variant, str)
        The default first. All of them where nothing is tuned.
    """
    if len(own) == 1:
        return [(own[0], ONLY)]
    judged = [one for one in own if one.rule in overall]
    if not judged:
        return [(one, DEFAULT if one.is_default else one.setting) for one in own]
    best = min(judged, key=lambda one: overall[one.rule])
    if best.is_default:
        return [(best, BOTH)]
    return [*((one, DEFAULT) for one in own if one.is_default), (best, TUNED)]


def _word(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return key if value else f"no {key}"
    return str(value) if isinstance(value, str) else f"{key}={value}"


def _setting(key: str, rule: Parameters) -> str:
    value = rule[key]
    text = f"{value:g}" if is_number(value) else str(value)
    if key != "step_size":
        return f"{key} {text}"
    return text if rule.get("step_unit", "score") == "score" else f"x{text}"
