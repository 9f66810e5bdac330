"""Shell completion: the script a shell loads, and what it offers for experiments, keys and values."""

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem, get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def completion_command(shell: str) -> None:
    r"""Print the completion script of SHELL.

    \b
    bash:  balancesim completion bash > ~/.local/share/bash-completion/completions/balancesim
    zsh:   balancesim completion zsh > "${fpath[1]}/_balancesim"
    fish:  balancesim completion fish > ~/.config/fish/completions/balancesim.fish
    """
    from balancesim.cli.group import main

    found = get_completion_class(shell)
    if found is None:  # the choice above allows only shells that click knows
        raise click.UsageError(f"no completion for {shell}")
    click.echo(found(main, {}, "balancesim", "_BALANCESIM_COMPLETE").source())


def complete_experiments(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the named experiments."""
    del ctx, param
    from balancesim.sweep.experiment import experiment_files

    return _items(experiment_files(), incomplete)


def complete_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer experiments, rules, sources and statements."""
    del ctx, param
    from balancesim import balancers, sources
    from balancesim.plugins import names
    from balancesim.sweep.experiment import experiment_files

    everything = [
        *experiment_files(),
        *balancers.registry(),
        *sources.registry(),
        *names("balancesim.checks"),
    ]
    return _items(everything, incomplete)


def complete_statements(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the statements that can be checked."""
    del ctx, param
    from balancesim.plugins import names

    return _items(names("balancesim.checks"), incomplete.upper())


def complete_figures(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the statements and the experiments that have figures."""
    from balancesim.report.gallery import EXHIBITS

    experiments = _items([exhibit.experiment for exhibit in EXHIBITS], incomplete)
    return [*experiments, *complete_statements(ctx, param, incomplete)]


def complete_overrides(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the keys of ``--set`` and, after ``source=`` and ``rule=``, the kinds there are."""
    del ctx, param
    from balancesim import balancers, sources
    from balancesim.sweep.overrides import override_keys

    key, equals, value = incomplete.partition("=")
    kinds: dict[str, Callable[[], Iterable[str]]] = {
        "source": sources.registry,
        "rule": balancers.registry,
    }
    if not equals:
        return _items([f"{name}=" for name in override_keys()], incomplete)
    if key not in kinds:
        return []
    before = value.rpartition(",")[0]
    start = f"{key}={before}," if before else f"{key}="
    return _items([start + kind for kind in kinds[key]()], incomplete)


def _items(values: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(value) for value in values if value.startswith(incomplete)]
