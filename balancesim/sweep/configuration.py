"""A resolved experiment: every source, rule and run parameter a plain value, ready to become cells."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from balancesim import balancers, sources
from balancesim.errors import ConfigurationError, InputError, unknown_name
from balancesim.groups import GroupLimit
from balancesim.sweep.delays import NO_DELAYS, delay_keys
from balancesim.sweep.experiment import Draft, Entry, Setting
from balancesim.sweep.parameters import (
    Parameters,
    axis,
    build,
    combinations,
    defaults,
    parameter_names,
    parameter_types,
    plain,
    unique,
)
from balancesim.sweep.run_parameters import RULE_RUN_KEYS, RUN_TYPES, RunParameters
from balancesim.sweep.seeds import parse_seeds, seeds_text

StepUnit = Literal["score", "inverse-modulus", "spread", "percent-of-spread", "default"]
DEFAULT_STEP_UNIT: StepUnit = "score"

DEFAULT_REPORT = "regret"
"""The report of an experiment that names none; ``balancesim.report`` knows which there are."""

_DEFAULT_UNITS = {
    "harmonic": "inverse-modulus",
    "sign": "percent-of-spread",
    "constant": "spread",
    "sqrt": "spread",
}
_SOURCE_OVERRIDES = {"n_tokens": int, "k": int}


@dataclass(frozen=True)
class Choice:
    """A source's parameters and the run parameters that it overrides for its own cells."""

    parameters: Parameters
    overrides: Mapping[str, Any]


@dataclass(frozen=True)
class Group:
    """One source at one setting of the run parameters: what one figure shows."""

    index: int
    source: Parameters
    run: RunParameters


@dataclass(frozen=True)
class Configuration:
    """A resolved experiment.

    Attributes
    ----------
    name, description, report : str
        What it is called, what it is for, and the name of the report that shows what it found.
    reference : mapping
        Keys that single out the rule that others are compared with; the first rule where none fits.
    seeds : tuple of int
        One cell of each group and rule per seed.
    run : mapping
        For each run parameter its values; more than one make a grid axis.
    choices : tuple of Choice
        The sources.
    rules : tuple of mapping
        The rules: ``kind``, the class's fields, for a rule with a step size ``step_unit``, what there is of
        `NO_DELAYS`' keys with another value, and ``run`` where the rule sets run parameters of its own.
    """

    name: str
    description: str
    seeds: tuple[int, ...]
    run: Mapping[str, tuple[Any, ...]]
    choices: tuple[Choice, ...]
    rules: tuple[Parameters, ...]
    reference: Mapping[str, Any] = field(default_factory=dict)
    report: str = DEFAULT_REPORT

    @property
    def groups(self) -> tuple[Group, ...]:
        """Every source at every setting of the run parameters, without repeats."""
        found: list[tuple[Parameters, RunParameters]] = []
        for choice in self.choices:
            for values in itertools.product(*self.run.values()):
                run = RunParameters(**dict(zip(self.run, values, strict=True)))
                if run.n_groups == 0:  # then the score of a group decides nothing
                    run = replace(run, group_score=RunParameters.group_score)
                pair = (choice.parameters, replace(run, **choice.overrides))
                if pair not in found:
                    found.append(pair)
        return tuple(Group(index, source, run) for index, (source, run) in enumerate(found))

    def identity(self) -> dict[str, Any]:
        """What makes the cells what they are, seeds aside: directories that differ in it cannot be mixed."""
        document = self.document()
        run = {key: value for key, value in document["run"].items() if key != "seeds"}
        return {"run": run, "source": document["source"], "rule": document["rule"]}

    def document(self) -> dict[str, Any]:
        """The experiment file, resolved: reading it back gives this configuration."""
        run = {key: plain(values[0] if len(values) == 1 else values) for key, values in self.run.items()}
        reference = {"reference": dict(self.reference)} if self.reference else {}
        return {
            "name": self.name,
            "description": self.description,
            "report": self.report,
            "run": {**run, "seeds": seeds_text(self.seeds)},
            **reference,
            "source": [
                {**_written(choice.parameters, sources.registry()), **choice.overrides}
                for choice in self.choices
            ],
            "rule": [_written(rule, balancers.registry()) for rule in self.rules],
        }


def resolve(draft: Draft) -> Configuration:
    """Check every key and value of a draft, fill in defaults and expand the grid of each source and rule.

    Raises
    ------
    ConfigurationError
        For an unknown key, kind or value (the nearest match is named), a value that its class refuses, an
        empty list of sources or rules, or a `k` that a source has too few experts for.
    """
    settings = dict(draft.run)
    seeds = parse_seeds(*settings.pop("seeds", Setting("0:16", "run.seeds")))
    run = _run_axes(settings)
    choices = _choices(draft)
    rules = unique(
        itertools.chain.from_iterable(_rules(index, entry) for index, entry in enumerate(draft.rules))
    )
    for what, found in (("source", choices), ("rule", rules)):
        if not found:
            raise ConfigurationError(f"the experiment {draft.name} has no {what}; add a [[{what}]] table")
    configuration = Configuration(
        draft.name, draft.description, seeds, run, choices, rules, dict(draft.reference),
        draft.report or DEFAULT_REPORT,
    )  # fmt: skip
    _check_reference(configuration)
    for group in configuration.groups:
        n_experts = build_source(group.source).n_experts
        if group.run.k >= n_experts:
            raise ConfigurationError(
                f"k must be below the source's number of experts; {group.source['kind']} has {n_experts}, "
                f"k is {group.run.k}"
            )
        _check_groups(group, n_experts, rules)
        _check_backend(group, rules)
        for rule in rules:
            if rule.get("n_ranks", 1) > group.run.n_tokens:
                raise ConfigurationError(
                    f"n_ranks of rule {rule['kind']} must be at most n_tokens = {group.run.n_tokens}, "
                    f"got {rule['n_ranks']}"
                )
    return configuration


def python_rules(configuration: Configuration) -> tuple[str, ...]:
    """The kinds of rule that are called in Python at every step, and slow down all that share their draws."""
    kinds = dict.fromkeys(rule["kind"] for rule in configuration.rules)
    return tuple(kind for kind in kinds if not balancers.registry()[kind].in_kernel())


def build_source(parameters: Parameters) -> Any:
    """The source that resolved parameters describe, with the class's own seed."""
    cls = sources.registry()[parameters["kind"]]
    return cls(**{key: value for key, value in parameters.items() if key != "kind"})


def _check_groups(group: Group, n_experts: int, rules: tuple[Parameters, ...]) -> None:
    """Refuse a limit on groups that a group's source, K or a rule cannot have."""
    limit = _limit_of(group.run)
    if limit is None:
        return
    try:
        limit.check(n_experts, group.run.k)
    except InputError as error:
        raise ConfigurationError(_in_run_keys(f"groups on source {group.source['kind']}: {error}")) from error
    for rule in rules:
        cls = balancers.registry()[rule["kind"]]
        if not issubclass(cls, balancers.PriceRule):
            raise ConfigurationError(
                f"n_groups limits what a price chooses, and rule {rule['kind']} assigns without one; "
                "leave it out, as with --set rule=NAME"
            )
        if not cls.allows_groups:
            raise ConfigurationError(
                f"n_groups makes tokens choose among few experts, and rule {rule['kind']} balances a choice "
                "among all; leave it out, as with --set rule=NAME"
            )


def _check_backend(group: Group, rules: tuple[Parameters, ...]) -> None:
    """Refuse what the card's loop does not run, before the first cell."""
    if group.run.backend != "cupy":
        return
    if group.run.groups is not None:
        raise ConfigurationError(
            'backend = "cupy" has no limit on groups; leave n_groups out, or use "numba"'
        )
    for rule in rules:
        cls = balancers.registry()[rule["kind"]]
        if not issubclass(cls, balancers.AlfLB | balancers.NoBalance):
            raise ConfigurationError(
                f'backend = "cupy" runs ALF-LB and "none" only, and rule {rule["kind"]} is neither; '
                'leave it out, as with --set rule=alf-lb, or use "numba"'
            )
        if any(rule.get(key, value) != value for key, value in NO_DELAYS.items()):
            raise ConfigurationError(
                f'backend = "cupy" updates a price once a batch, at once; rule {rule["kind"]} has '
                f'{", ".join(NO_DELAYS)} of its own: leave them out, or use "numba"'
            )


def _limit_of(run: RunParameters) -> GroupLimit | None:
    try:
        return run.groups
    except InputError as error:
        raise ConfigurationError(_in_run_keys(f"run: {error}")) from error


def _in_run_keys(message: str) -> str:
    """Name `GroupLimit`'s arguments as the experiment's keys."""
    return message.replace("`n_chosen`", "`n_chosen_groups`").replace('score="max"', 'group_score = "max"')


def differences(here: Any, there: Any, path: str = "") -> list[str]:
    """Where two identities differ: ``"source[0].tail_index (1.5 there, 0.8 here)"``."""
    if isinstance(here, dict) and isinstance(there, dict):
        keys = [*here, *(key for key in there if key not in here)]
        parts = [
            differences(here.get(key, "unset"), there.get(key, "unset"), f"{path}.{key}" if path else key)
            for key in keys
        ]
        return list(itertools.chain.from_iterable(parts))
    tables = isinstance(here, list) and isinstance(there, list)
    if tables and all(isinstance(item, dict) for item in (*here, *there)):
        if len(here) != len(there):
            return [f"{path} ({len(there)} there, {len(here)} here)"]
        pairs = enumerate(zip(here, there, strict=True))
        return list(itertools.chain.from_iterable(differences(a, b, f"{path}[{i}]") for i, (a, b) in pairs))
    return [] if here == there else [f"{path} ({there!r} there, {here!r} here)"]


def _run_axes(settings: Mapping[str, Setting]) -> dict[str, tuple[Any, ...]]:
    for key, setting in settings.items():
        if key not in RUN_TYPES:
            raise ConfigurationError(f"{setting.origin}: {unknown_name('key', key, (*RUN_TYPES, 'seeds'))}")
    axes = {}
    for item in fields(RunParameters):
        setting = settings.get(item.name, Setting(item.default, f"run.{item.name}"))
        axes[item.name] = tuple(axis(setting, RUN_TYPES[item.name]))
        for value in axes[item.name]:
            build(RunParameters, {item.name: value}, {item.name: setting.origin}, "run")
    return axes


def _choices(draft: Draft) -> tuple[Choice, ...]:
    known = sources.registry()
    every_key = sorted({key for cls in known.values() for key in parameter_types(cls)})
    for key, setting in draft.source_defaults.items():
        if key not in every_key:
            raise ConfigurationError(f"{setting.origin}: {unknown_name('key', key, every_key)}")
    found: list[Choice] = []
    for index, entry in enumerate(draft.sources):
        cls = _class_of("source", entry, known)
        types = parameter_types(cls)
        shared = {key: value for key, value in draft.source_defaults.items() if key in types}
        settings = {**shared, **entry.settings}
        where = f"source[{index}]"
        for values in combinations(settings, {**types, **_SOURCE_OVERRIDES}, entry.kind.value):
            own = {key: values.pop(key) for key in _SOURCE_OVERRIDES if key in values}
            origins = {key: setting.origin for key, setting in settings.items()}
            build(RunParameters, own, origins, where)
            build(cls, values, origins, where)
            parameters = _resolved(entry, cls, values)
            choice = Choice(parameters, own)
            if choice not in found:
                found.append(choice)
    return tuple(found)


def _rules(index: int, entry: Entry) -> Iterator[Parameters]:
    cls = _class_of("rule", entry, balancers.registry())
    types = rule_types(cls)
    for values in combinations(entry.settings, {**types, "run": dict[str, Any]}, entry.kind.value):
        own = _rule_run(values.pop("run", {}), f"rule[{index}].run")
        unit = values.pop("step_unit", DEFAULT_STEP_UNIT)
        delays = {key: values.pop(key) for key in delay_keys(cls) if key in values}
        origins = {key: setting.origin for key, setting in entry.settings.items()}
        rule = build(cls, values, origins, f"rule[{index}]")
        if rule.needs_probabilities or not isinstance(rule, balancers.PriceRule | balancers.BatchRule):
            raise ConfigurationError(
                f"rule[{index}]: {rule.describe()} acts in the loss of a router that learns, and an "
                "experiment's sources have none; use balancesim.train_router"
            )
        if delays:
            build(balancers.Delayed, {"rule": rule, **delays}, origins, f"rule[{index}]")
        resolved = _resolved(entry, cls, values)
        resolved.update({key: value for key, value in delays.items() if value != NO_DELAYS[key]})
        if "step_unit" in types:
            if isinstance(resolved["step_size"], str):
                unit = "score"
            elif unit == "default":
                unit = _DEFAULT_UNITS.get(resolved.get("schedule", ""), "score")
            resolved["step_unit"] = unit
        yield {**resolved, **({"run": own} if own else {})}


def _rule_run(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The run parameters that a rule sets for its own cells, checked."""
    settings = {key: Setting(value, f"{where}.{key}") for key, value in given.items()}
    values = list(combinations(settings, {key: RUN_TYPES[key] for key in RULE_RUN_KEYS}, "a rule's run"))
    if len(values) != 1:
        raise ConfigurationError(f"{where}: a list makes no axis here; give one value a key")
    build(RunParameters, values[0], {key: setting.origin for key, setting in settings.items()}, where)
    return values[0]


def rule_types(cls: type) -> dict[str, Any]:
    """The keys of a rule: its class's fields, the unit of its step size if it has one, a price's delays."""
    types = parameter_types(cls)
    if "step_size" in types:
        types["step_unit"] = StepUnit
    return {**types, **dict.fromkeys(delay_keys(cls), int)}


def rule_defaults(cls: type) -> dict[str, Any]:
    """What the keys of `rule_types` are if omitted; a key without a default is absent."""
    standard = {**NO_DELAYS, "step_unit": DEFAULT_STEP_UNIT, **defaults(cls)}
    return {key: standard[key] for key in rule_types(cls) if key in standard}


def _class_of(what: str, entry: Entry, known: Mapping[str, type]) -> type:
    if not isinstance(entry.kind.value, str) or entry.kind.value not in known:
        raise ConfigurationError(f"{entry.kind.origin}: {unknown_name(what, str(entry.kind.value), known)}")
    return known[entry.kind.value]


def _resolved(entry: Entry, cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**defaults(cls), **values}
    return {"kind": entry.kind.value, **{name: plain(merged[name]) for name in parameter_names(cls)}}


def _written(parameters: Parameters, known: Mapping[str, type]) -> dict[str, Any]:
    standard = defaults(known[parameters["kind"]])
    absent = {key for key, value in parameters.items() if value is None and standard.get(key) is None}
    return {key: "none" if value is None else value for key, value in parameters.items() if key not in absent}


def _check_reference(configuration: Configuration) -> None:
    known = {key for rule in configuration.rules for key in rule}
    for key in configuration.reference:
        every = {"kind", *known, *(key for cls in balancers.registry().values() for key in rule_types(cls))}
        if key not in every:
            raise ConfigurationError(f"reference.{key}: {unknown_name('key', key, every)}")


def reference_rule(configuration: Configuration) -> int:
    """The index of the rule that others are compared with: the first that has all of ``reference``'s keys."""
    wanted = configuration.reference.items()
    for index, rule in enumerate(configuration.rules):
        whole = {**rule_defaults(balancers.registry()[rule["kind"]]), **rule}
        if wanted and all(whole.get(key) == value for key, value in wanted):
            return index
    return 0
