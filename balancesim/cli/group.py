"""The command group: commands load when they are used, and every expected error becomes one line and a code.

Exit codes: 0 done; 1 some cells or checks failed; 2 usage or configuration; 3 a missing backend or extra;
130 interrupted.
"""

from importlib import import_module
from typing import Any

import click

from balancesim import __version__
from balancesim.errors import BalanceSimError, MissingDependencyError

INTERRUPTED = 130

_COMMANDS = {
    "run": ("balancesim.cli.run", "Run an experiment, or continue it."),
    "solve": ("balancesim.cli.solve", "Solve the balanced assignment of a file of scores exactly."),
    "calibrate": ("balancesim.cli.calibrate", "Fit a source of scores to recorded loads."),
    "list": ("balancesim.cli.catalogue", "List experiments, rules, sources and checks."),
    "describe": ("balancesim.cli.catalogue", "Say what an experiment, rule, source or statement is."),
    "show": ("balancesim.cli.show", "Show what a run directory holds."),
    "check": ("balancesim.cli.check", "Check the statements of the papers, with figures."),
    "figures": ("balancesim.cli.figures", "Remake every figure, with its caption and command."),
    "bench": ("balancesim.cli.bench", "Measure speed and memory against named peers."),
    "doctor": ("balancesim.cli.doctor", "Check the installation and this machine."),
    "completion": ("balancesim.cli.completion", "Print the completion script of a shell."),
}


class Failure(click.ClickException):
    """An expected error, as the command line shows it."""

    exit_code = 2

    def __init__(self, error: BalanceSimError) -> None:
        super().__init__(str(error))


class MissingPackage(Failure):
    """A package that a command needs is not installed."""

    exit_code = 3


class CommandGroup(click.Group):
    """Commands by name; a module is imported only for its own command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(_COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command where there is none of a name."""
        from balancesim.errors import unknown_name

        if args and not args[0].startswith("-") and args[0] not in _COMMANDS:
            raise click.UsageError(unknown_name("command", args[0], _COMMANDS), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; expected errors and Ctrl-C end in one line."""
        try:
            return super().invoke(ctx)
        except BalanceSimError as error:
            kind = MissingPackage if isinstance(error, MissingDependencyError) else Failure
            raise kind(error) from error
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="balancesim")
def main() -> None:
    """Simulate and measure load balancing of sparse mixture-of-experts models."""
