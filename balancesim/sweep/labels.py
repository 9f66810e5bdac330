"""Names of sources and rules for tables and figures: short, and different where the things are."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from balancesim import balancers
from balancesim.numbers import is_number
from balancesim.sweep.configuration import Configuration, Group, build_source, rule_defaults
from balancesim.sweep.parameters import Parameters

_LONGEST_LIST = 40
_NAMED = ("kind", "schedule", "step_size", "step_unit", "run")


def group_labels(configuration: Configuration) -> tuple[str, ...]:
    """One label per group: the source's own line, with the run parameters where that is not enough."""
    groups = configuration.groups
    labels = [build_source(group.source).describe() for group in groups]
    labels = _told_apart(labels, [_limit_text(group) for group in groups])
    labels = _told_apart(labels, [_run_text(group) for group in groups])
    labels = _told_apart(labels, [_text(group.source, ("kind",)) for group in groups])
    return tuple(_told_apart(labels, [f"source {group.index}" for group in groups]))


def rule_labels(configuration: Configuration) -> tuple[str, ...]:
    """One label per rule: "no balancing", "sign x0.3", "harmonic auto, recentre=True"."""
    rules = configuration.rules
    labels = [_rule_label(rule) for rule in rules]
    labels = _told_apart(labels, [str(rule.get("step_unit", "")) for rule in rules])
    labels = _told_apart(labels, [_text(rule, _NAMED) for rule in rules])
    return tuple(_told_apart(labels, [_text(rule.get("run", {}), ()) for rule in rules]))


def _rule_label(rule: Parameters) -> str:
    if rule["kind"] == "none":
        return "no balancing"
    is_plain = rule["kind"] == "alf-lb"
    label = str(rule["schedule"] if is_plain else rule["kind"])
    step = rule.get("step_size")
    if isinstance(step, str):
        label += f" {step}"
    elif step is not None:
        label += f" {step:g}" if rule["step_unit"] == "score" else f" x{step:g}"
    standard = rule_defaults(balancers.registry()[rule["kind"]])
    extra = {key: value for key, value in rule.items() if standard.get(key, value) != value}
    text = _text(extra, _NAMED if is_plain else [name for name in _NAMED if name != "schedule"])
    return f"{label}, {text}" if text else label


def _run_text(group: Group) -> str:
    run = group.run
    text = f"T={run.n_tokens}, K={run.k}, E={group.source.get('n_experts', '?')}, N={run.horizon}"
    return f"{text}, against {run.comparator}, {run.n_records} records, {run.n_exact} exact"


def _limit_text(group: Group) -> str:
    run = group.run
    return f"{run.n_chosen_groups} of {run.n_groups} groups ({run.group_score})" if run.n_groups else ""


def _text(parameters: Parameters | dict[str, Any], left_out: Sequence[str]) -> str:
    return ", ".join(f"{key}={_brief(value)}" for key, value in parameters.items() if key not in left_out)


def _brief(value: Any) -> str:
    """A value, or the range of a long list of numbers."""
    long = isinstance(value, list | tuple) and len(str(value)) > _LONGEST_LIST
    return f"{min(value):.4g}..{max(value):.4g}" if long and all(map(is_number, value)) else str(value)


def _told_apart(labels: Sequence[str], details: Sequence[str]) -> list[str]:
    """Add a label's detail wherever the label occurs more than once, with more than one detail."""
    different = Counter(label for label, _ in set(zip(labels, details, strict=True)))
    return [
        f"{label}, {detail}" if different[label] > 1 and detail else label
        for label, detail in zip(labels, details, strict=True)
    ]
