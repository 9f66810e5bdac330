"""``balancesim list`` and ``balancesim describe``: what there is to run."""

import inspect
import types
import typing
from collections.abc import Mapping
from typing import Any

import click

from balancesim.cli.completion import complete_names

_KINDS = ("experiments", "rules", "sources", "checks")
_IN_PYTHON = "in Python at every step (slower)"
_DELAYS = "every, lag and n_ranks delay the rule's updates: see `balancesim.balancers.Delayed`."


@click.command("list")
@click.argument("kind", type=click.Choice(_KINDS), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def list_command(kind: str | None, as_json: bool) -> None:
    """List what there is of KIND; without it, everything."""
    from balancesim.cli.output import print_json

    found = {name: _entries(name) for name in ([kind] if kind else _KINDS)}
    if as_json:
        print_json(found)
        return
    for name, entries in found.items():
        if kind is None:
            click.echo(f"{name}:")
        indent = "" if kind else "  "
        width = max(map(len, entries), default=0)
        for entry, about in entries.items():
            first, *others = [about] if isinstance(about, str) else _lines(about)
            click.echo(f"{indent}{entry:<{width}}  {first}")
            for line in others:
                click.echo(f"{indent}{'':<{width}}  {line}")
        if not entries:
            click.echo(f"{indent}none is installed")


@click.command("describe")
@click.argument("name", shell_complete=complete_names)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def describe_command(name: str, as_json: bool) -> None:
    """Say what the experiment, rule, source or statement NAME is, and which keys it takes."""
    from balancesim import balancers, sources
    from balancesim.cli.output import print_json
    from balancesim.errors import ConfigurationError, unknown_name
    from balancesim.plugins import names
    from balancesim.sweep.configuration import rule_types
    from balancesim.sweep.experiment import experiment_files
    from balancesim.sweep.parameters import parameter_types

    known: dict[str, Mapping[str, type]] = {"rule": balancers.registry(), "source": sources.registry()}
    for what, classes in known.items():
        if name in classes:
            cls = classes[name]
            hints = rule_types(cls) if what == "rule" else parameter_types(cls)
            facts = _rule_facts(cls) if what == "rule" else {}
            document = {"name": name, "is": what, **facts, **_class(cls, hints)}
            break
    else:
        if name in experiment_files():
            document = {"name": name, "is": "experiment", **_experiment(name)}
        elif name.upper() in names("balancesim.checks"):
            document = _statement(name.upper())
        else:
            everything = [*experiment_files(), *known["rule"], *known["source"], *names("balancesim.checks")]
            raise ConfigurationError(unknown_name("name", name, everything))
    if as_json:
        print_json(document)
    else:
        _print_description(document)


def _entries(kind: str) -> dict[str, Any]:
    if kind == "experiments":
        from balancesim.sweep.experiment import experiment_files, read_draft

        files = experiment_files().items()
        return {name: _first_sentence(read_draft(path).description) for name, path in files}
    from balancesim import balancers, sources

    if kind == "checks":
        from balancesim.checks import find_statements

        return {found.label: f"{found.title} ({found.paper})" for found in find_statements()}
    loaded: Mapping[str, Any] = balancers.registry() if kind == "rules" else sources.registry()
    lines = {name: _first_line(inspect.getdoc(item) or "") for name, item in loaded.items()}
    if kind == "rules":
        return {name: _rule(loaded[name], line) for name, line in lines.items()}
    return lines


def _rule(rule: Any, line: str) -> dict[str, Any]:
    """What the list says of a rule: its first line, how it acts, where it comes from, what it takes."""
    from balancesim.sweep.configuration import rule_types

    return {"text": line, **_rule_facts(rule), "keys": _class(rule, rule_types(rule))["keys"]}


def _rule_facts(rule: Any) -> dict[str, str]:
    return {
        "timing": "causal" if rule.causal else "current-batch",
        "acts": _acts(rule),
        "runs": "in the compiled loop" if rule.in_kernel() else _IN_PYTHON,
        "reference": rule.reference,
    }


def _acts(rule: Any) -> str:
    """How a rule moves tokens (docs/theory.md, "Two ways a price acts")."""
    from balancesim.balancers import BatchRule, PenaltyRule, PriceRule

    if issubclass(rule, BatchRule):
        return "assigns the batch"
    acts = {"selection": PriceRule, "gradient": PenaltyRule}
    return " or ".join(word for word, protocol in acts.items() if issubclass(rule, protocol))


def _lines(rule: Mapping[str, Any]) -> list[str]:
    """A rule of the list as text."""
    source = f"; from: {rule['reference']}" if rule["reference"] else ""
    keys = ", ".join(
        f"{key}={_value_text(about['default'])}" if "default" in about else key
        for key, about in rule["keys"].items()
    )
    return [
        rule["text"],
        f"{rule['timing']}, {rule['acts']}, {rule['runs']}{source}",
        *([f"keys: {keys}"] if keys else []),
    ]


def _first_line(text: str) -> str:
    return text.partition("\n")[0].rstrip(".").replace("``", "")


def _first_sentence(text: str) -> str:
    line = " ".join(text.strip().split("\n\n")[0].split())
    return line.partition(". ")[0].rstrip(".")


def _class(cls: type, hints: dict[str, Any]) -> dict[str, Any]:
    from balancesim.sweep.configuration import rule_defaults
    from balancesim.sweep.parameters import defaults, plain

    standard = rule_defaults(cls) if hasattr(cls, "causal") else defaults(cls)
    keys = {
        key: {
            "type": _type_text(hint),
            **({"default": plain(standard[key])} if key in standard else {}),
        }
        for key, hint in hints.items()
    }
    return {"class": f"{cls.__module__}.{cls.__qualname__}", "text": inspect.getdoc(cls) or "", "keys": keys}


def _type_text(hint: Any) -> str:
    """A type as an experiment's author writes its values: ``float | 'auto'``."""
    if hint is type(None):
        return "none"
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(map(repr, typing.get_args(hint)))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " | ".join(map(_type_text, typing.get_args(hint)))
    return inspect.formatannotation(hint).removeprefix("collections.abc.").removeprefix("typing.")


def _experiment(name: str) -> dict[str, Any]:
    from balancesim.sweep.cells import tasks_of
    from balancesim.sweep.configuration import resolve
    from balancesim.sweep.experiment import find_experiment, read_draft
    from balancesim.sweep.labels import group_labels, rule_labels

    configuration = resolve(read_draft(find_experiment(name)))
    return {
        "file": str(find_experiment(name)),
        "text": configuration.description.strip(),
        "report": configuration.report,
        "run": configuration.document()["run"],
        "sources": list(group_labels(configuration)),
        "rules": list(rule_labels(configuration)),
        "cells": sum(len(task.cells) for task in tasks_of(configuration)),
    }


def _statement(label: str) -> dict[str, Any]:
    from balancesim.checks import find_statements

    found = next(statement for statement in find_statements([label]) if statement.label == label)
    return {
        "name": label,
        "is": "statement",
        "title": found.title,
        "paper": found.paper,
        "text": found.claim,
        "hypotheses": list(found.hypotheses),
        "measured": found.statistic,
        "negative control": found.control,
        "figure": found.caption,
        "command": f"balancesim check {label}",
    }


def _print_statement(document: dict[str, Any]) -> None:
    click.echo(f"{document['name']} (statement, {document['paper']}): {document['title']}\n")
    click.echo(document["text"])
    if document["hypotheses"]:
        click.echo("\nhypotheses:")
        for hypothesis in document["hypotheses"]:
            click.echo(f"  - {hypothesis}")
    for title in ("measured", "negative control", "figure", "command"):
        if document[title]:
            click.echo(f"\n{title}: {document[title]}")


def _print_description(document: dict[str, Any]) -> None:
    if document["is"] == "statement":
        _print_statement(document)
        return
    place = document.get("file") or document["class"]
    facts = [document[fact] for fact in ("timing", "acts", "runs") if fact in document]
    click.echo(f"{document['name']} ({', '.join([document['is'], *facts, place])})\n")
    click.echo(document["text"])
    if document.get("reference"):
        click.echo(f"\nfrom: {document['reference']}")
    if document.get("keys") == {}:
        click.echo("\nIt takes no keys.")
    if "report" in document:
        click.echo(f"\nreport: {document['report']}")
    for title in ("run", "keys"):
        if document.get(title):
            click.echo(f"\n{title}:")
            for key, value in document[title].items():
                click.echo(f"  {key} = {_key_text(value)}")
    if document["is"] == "rule" and "n_ranks" in document["keys"]:
        click.echo(f"\n{_DELAYS}")
    for title in ("sources", "rules"):
        if title in document:
            click.echo(f"\n{title}: {'; '.join(document[title])}")
    if "cells" in document:
        click.echo(f"\n{document['cells']} cells")


def _value_text(value: Any) -> str:
    return "none" if value is None else repr(value)


def _key_text(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    given = _value_text(value["default"]) if "default" in value else "required"
    return f"{given}  ({value['type']})"
