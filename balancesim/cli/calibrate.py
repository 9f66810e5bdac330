"""``balancesim calibrate``: offsets with which a family of scores reproduces recorded loads."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from balancesim.sources import LoadError, RecordedLoads, Source

MISSED = 1
ALLOWED = 2.0
"""Largest root mean square error, in units of the recording's sampling noise, that counts as reproduced."""

_SET_BY_THE_COMMAND = ("n_experts", "offsets")


@dataclass(frozen=True)
class Fit:
    """One recording and the source that was calibrated to it.

    Attributes
    ----------
    recording : RecordedLoads
        The loads and what they are of.
    source : Source
        The family with its offsets.
    error : LoadError
        How well new draws reproduce the loads.
    """

    recording: "RecordedLoads"
    source: "Source"
    error: "LoadError"

    @property
    def label(self) -> str:
        """What was recorded, as ``--where`` takes it."""
        return ",".join(f"{key}={value}" for key, value in self.recording.labels.items()) or "loads"

    @property
    def offsets(self) -> list[float]:
        """The offsets, as numbers."""
        return list(getattr(self.source, "offsets", ()))


@click.command("calibrate")
@click.argument("loads")
@click.option("--k", type=click.IntRange(min=1), required=True, help="Experts per token in the recording.")
@click.option(
    "--where",
    multiple=True,
    metavar="COLUMN=VALUE,...",
    help="Keep only rows with these values. May be repeated.",
)
@click.option("--family", default="normal", show_default=True, help="The source to calibrate.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Set a key of the family. May be repeated."
)
@click.option(
    "--tokens",
    type=click.IntRange(min=1),
    help="Tokens to calibrate on.  [default: four times the recorded, within 2^24 scores]",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write an experiment with these sources (.toml)."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, offsets included.")
@click.pass_context
def calibrate_command(
    ctx: click.Context,
    loads: str,
    k: int,
    where: tuple[str, ...],
    family: str,
    settings: tuple[str, ...],
    tokens: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Find offsets with which a family's unbalanced loads are those recorded in LOADS.

    LOADS is a .csv with the columns expert and count (one calibration for each combination of its other
    columns), a .csv of one column, a .npy of (E,) or (recordings, E), or the name of a bundled table:
    expert-loads. The exit code is 1 if new draws miss a recording by more than twice its sampling noise.
    """
    from balancesim.cli.output import print_json, print_table
    from balancesim.cli.progress import working
    from balancesim.errors import ConfigurationError
    from balancesim.sources import calibrated, calibration_error, read_loads
    from balancesim.sources.calibration import default_sample, recorded_tokens, token_shares

    if out is not None and not out.parent.is_dir():
        raise ConfigurationError(f"--out: there is no folder {str(out.parent)!r}; make it first")
    found = read_loads(loads, _conditions(where))
    prepared = [(one, _source(family, settings, one.loads.size)) for one in found]
    for one in found:
        with _naming(one):
            token_shares(one.loads, one.loads.size, k)
    fits = []
    for number, (one, source) in enumerate(prepared):
        with working(f"calibrating {number + 1} of {len(found)}", quiet=as_json), _naming(one):
            size = tokens or default_sample(one.loads, k)
            fitted = calibrated(source, one.loads, k=k, n_tokens=size)
            # A sample smaller than the recording cannot be more precise than its own noise.
            n_tokens = recorded_tokens(one.loads, k)
            n_recorded = min(n_tokens or size, size)
            fits.append(Fit(one, fitted, calibration_error(fitted, one.loads, k=k, n_recorded=n_recorded)))
        if n_tokens is not None and n_tokens * k != one.loads.sum():
            click.echo(
                f"note: {fits[-1].label}: counts sum to {one.loads.sum():.0f}, no multiple of k = {k}",
                err=True,
            )
    if as_json:
        print_json({"family": family, "k": k, "calibrations": [_record(fit) for fit in fits]})
    else:
        print_table(_table(fits))
    if out is not None:
        _write(out, loads, family, settings, k, fits)
    missed = [fit.label for fit in fits if fit.error.rms > ALLOWED]
    if missed:
        click.echo(
            f"missed by more than {ALLOWED:g} times the sampling noise: {'; '.join(missed)}; "
            "try more --tokens",
            err=True,
        )
    ctx.exit(MISSED if missed else 0)


@contextmanager
def _naming(recording: "RecordedLoads") -> Iterator[None]:
    """Say which recording an error is about."""
    from balancesim.errors import InputError

    try:
        yield
    except InputError as error:
        label = ", ".join(f"{key}={value}" for key, value in recording.labels.items())
        raise InputError(f"{label}: {error}" if label else str(error)) from error


def _conditions(where: Iterable[str]) -> dict[str, str]:
    """What ``--where`` texts ask for."""
    from balancesim.errors import ConfigurationError

    wanted: dict[str, str] = {}
    for text in where:
        for piece in text.split(","):
            key, equals, value = (part.strip() for part in piece.partition("="))
            if not equals or not key or not value:
                raise ConfigurationError(f"--where wants COLUMN=VALUE,..., got {text!r}")
            if wanted.setdefault(key, value) != value:
                raise ConfigurationError(
                    f"--where gives {key} twice, {wanted[key]!r} and {value!r}; no row has both"
                )
    return wanted


def _source(family: str, settings: Sequence[str], n_experts: int) -> Any:
    """The family with its settings, for that many experts."""
    from balancesim.errors import ConfigurationError, unknown_name
    from balancesim.sources import registry
    from balancesim.sweep.experiment import Setting
    from balancesim.sweep.overrides import parse_override
    from balancesim.sweep.parameters import build, combinations, parameter_types

    known = registry()
    if family not in known:
        raise ConfigurationError(f"--family: {unknown_name('source', family, known)}")
    cls = known[family]
    types = parameter_types(cls)
    own = {}
    for text in settings:
        key, value = parse_override(text)
        key = key.removeprefix("source.")
        if key in _SET_BY_THE_COMMAND:
            raise ConfigurationError(f"--set {key}: the command finds it from the loads")
        own[key] = Setting(value, f"--set {key}")
    found = list(
        combinations(own, {key: types[key] for key in types if key not in _SET_BY_THE_COMMAND}, family)
    )
    if len(found) > 1:
        raise ConfigurationError(f"--set takes one value for a key here, got {len(found)} combinations")
    given = {"n_experts": n_experts} if "n_experts" in types else {}
    origins = {key: setting.origin for key, setting in own.items()}
    return build(cls, {**given, **found[0]}, origins, f"--family {family}")


def _record(fit: Fit) -> dict[str, Any]:
    """Everything about one fit, as JSON holds it."""
    from balancesim.problem import max_violation

    error = fit.error
    return {
        "labels": dict(fit.recording.labels),
        "source": fit.source.describe(),
        "n_experts": fit.source.n_experts,
        "loads": fit.recording.loads.tolist(),
        "max_violation": max_violation(fit.recording.loads),
        "offsets": fit.offsets,
        "noise_of_tokens": error.n_recorded,
        "rms_over_noise": error.rms,
        "largest_over_noise": error.largest,
        "typical_largest_over_noise": error.typical_largest,
        "recorded_share": error.recorded.tolist(),
        "found_share": error.found.tolist(),
    }


def _table(fits: Sequence[Fit]) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from balancesim.problem import max_violation

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    labels = list(fits[0].recording.labels)
    for title in labels:
        table.add_column(title, overflow="fold")
    for title in ("experts", "MaxVio", "offsets", "noise of", "error/noise", "largest", "typical"):
        table.add_column(title, justify="right", no_wrap=True)
    for fit in fits:
        error, offsets = fit.error, fit.offsets
        table.add_row(
            *(fit.recording.labels[title] for title in labels),
            str(fit.source.n_experts),
            f"{max_violation(fit.recording.loads):.3f}",
            f"{min(offsets):.3g} to {max(offsets):.3g}",
            f"{error.n_recorded} tokens",
            f"{error.rms:.2f}",
            f"{error.largest:.2f}",
            f"{error.typical_largest:.2f}",
        )
    notes = (
        "error/noise: root mean square over experts of (load on new draws - recorded load) / sampling noise",
        "largest: of the experts, beside what is typical of normal errors with that root mean square",
    )
    heading = Text(f"{fits[0].source.describe()}, calibrated to {len(fits)} recordings", style="bold")
    return Group(heading, table, *(Text(note, style="dim") for note in notes))


def _write(out: Path, loads: str, family: str, settings: Sequence[str], k: int, fits: Sequence[Fit]) -> None:
    """Write an experiment: these sources, unbalanced and balanced by ALF-LB."""
    from balancesim.sweep.atomic import write_text
    from balancesim.sweep.overrides import parse_override
    from balancesim.sweep.toml_text import toml_text

    given = {key.removeprefix("source."): value for key, value in map(parse_override, settings)}
    lines = [f"source[{i}]: {fit.label}" for i, fit in enumerate(fits)]
    document = {
        "name": "calibrated",
        "description": "\n".join([f"Scores calibrated to the loads of {loads}; not router logits.", *lines]),
        "source": [
            {"kind": family, "n_experts": fit.source.n_experts, **given, "k": k, "offsets": fit.offsets}
            for fit in fits
        ],
        "rule": [
            {"kind": "none"},
            {"kind": "alf-lb", "schedule": "sign", "step_size": 1.0, "step_unit": "default"},
        ],
    }
    write_text(out, toml_text(document))
