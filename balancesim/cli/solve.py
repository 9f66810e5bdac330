"""``balancesim solve``: the exact optimum of a batch of recorded scores, with its certificate."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from balancesim.exact import ExactSolution
    from balancesim.types import Float64Array, FloatArray, IntArray

NOT_CERTIFIED = 1
_ROWS_AT_MOST = 16


@click.command("solve")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--k", type=click.IntRange(min=1), required=True, help="Experts per token.")
@click.option(
    "--capacity",
    default="balanced",
    show_default=True,
    metavar="WHAT",
    help="balanced; a factor such as 1.25, the most an expert may have in units of T K / E; loads N,N,...; "
    "or a .npy, .npz or .csv file of (E,) loads or (E, 2) least and largest loads.",
)
@click.option(
    "--method",
    type=click.Choice(["dual", "highs", "cvxpy", "cvxpy-clarabel"]),
    default="dual",
    show_default=True,
    help="Ours, or an independent witness, hundreds of times slower.",
)
@click.option("--array", metavar="NAME", help="Which array of an .npz file, if it holds several.")
@click.option(
    "--warm-start",
    type=click.Path(path_type=Path),
    help="A bias to start from: a .npy file of (E,), or what an earlier --out wrote.",
)
@click.option("--time-limit", type=float, metavar="SECONDS", help="When to give up.")
@click.option("--out", type=click.Path(path_type=Path), help="Write experts, loads, bias, ... to this .npz.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def solve_command(
    ctx: click.Context,
    file: Path,
    k: int,
    capacity: str,
    method: str,
    array: str | None,
    warm_start: Path | None,
    time_limit: float | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Solve the balanced assignment of the (tokens, experts) scores in FILE exactly, and prove it.

    FILE is a .npy, .npz or .csv; minus infinity masks an expert for a token. The exit code is 0 if the
    certificate closes, 1 if there is no proven optimum.
    """
    from balancesim.cli.output import print_json, print_table
    from balancesim.cli.progress import working
    from balancesim.exact import SolveOutcome, solve
    from balancesim.sources.files import read_array

    _check_out(out)
    scores = _read(file, array, "scores")
    limits = _capacity(capacity, scores, k)
    bias = None
    if warm_start is not None:
        inside = "bias" if warm_start.suffix.lower() == ".npz" else None
        bias = read_array(warm_start, inside, "warm-start")
    with working("solving", quiet=as_json):
        solution = solve(
            scores,
            k=k,
            capacity=limits,
            method=method,  # type: ignore[arg-type]  # the option's choices are the methods
            bias=bias,
            time_limit=time_limit,
        )
    before = _unbalanced(scores, k)
    if as_json:
        print_json(_document(scores.shape, k, solution, before))
    else:
        click.echo(f"{file}: {scores.shape[0]} tokens, {scores.shape[1]} experts, K = {k}")
        for name, text in _lines(solution, before):
            click.echo(f"{name:<12}{text}")
        if solution.bias is not None:
            print_table(_prices(solution, before))
    proven = solution.status.outcome is SolveOutcome.OPTIMAL
    if out is not None and proven:
        _write(out, solution)
    elif out is not None:
        click.echo(f"nothing is written to {out}: there is no proven optimum", err=True)
    ctx.exit(0 if proven else NOT_CERTIFIED)


def _check_out(out: Path | None) -> None:
    """Say before the work, not after it, that its result has no place."""
    from balancesim.errors import ConfigurationError

    if out is not None and out.suffix.lower() != ".npz":
        raise ConfigurationError(f"--out must name an .npz file, got {str(out)!r}")
    if out is not None and not out.parent.is_dir():
        raise ConfigurationError(f"--out: there is no folder {str(out.parent)!r}; make it first")


def _read(path: Path, array: str | None, argument: str) -> Any:
    from balancesim.sources.files import read_array, read_csv_rows

    if path.suffix.lower() == ".csv" and path.is_file():
        return read_csv_rows(path)
    return read_array(path, array, argument)


def _capacity(text: str, scores: "FloatArray", k: int) -> "IntArray | None":
    """What ``--capacity`` stands for, as `solve` takes it."""
    import math

    import numpy as np

    from balancesim.errors import ConfigurationError
    from balancesim.problem import balanced_load, check_sizes

    if text == "balanced":
        return None
    number = _number(text)
    if number is None and "," not in text:
        if not Path(text).is_file():
            raise ConfigurationError(
                f"--capacity must be balanced, a factor, loads N,N,... or a file, got {text!r}"
            )
        return _whole(text, _read(Path(text), None, "capacity"))
    if number is None:
        cells = [_number(cell) for cell in text.split(",")]
        wrong = next((i for i, cell in enumerate(cells) if cell is None), None)
        if wrong is not None:
            raise ConfigurationError(f"--capacity: entry {wrong} must be a number, got {text!r}")
        return _whole(text, np.array(cells, np.float64))
    if scores.ndim != 2:
        return None
    n_tokens, n_experts = scores.shape
    check_sizes(n_experts, k, n_tokens)
    if not 1.0 <= number < math.inf:
        raise ConfigurationError(f"--capacity: a factor must be at least 1, got {text}")
    # 1.1 * 30 is 33.000000000000004: rounding is no reason for one more token.
    most = min(n_tokens, math.ceil(number * balanced_load(n_tokens, n_experts, k) * (1.0 - 1e-12)))
    return np.tile(np.array([0, most], np.int64), (n_experts, 1))


def _whole(text: str, array: "Float64Array") -> "IntArray":
    import numpy as np

    from balancesim.errors import ConfigurationError

    if array.dtype.kind not in "iuf" or not (array == np.floor(array)).all():
        raise ConfigurationError(f"--capacity: loads must be whole numbers, which {text!r} does not hold")
    loads = array.astype(np.int64)
    return loads[:, 0] if loads.ndim == 2 and loads.shape[1] == 1 else loads


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _document(
    shape: tuple[int, ...], k: int, solution: "ExactSolution", before: dict[str, Any]
) -> dict[str, Any]:
    document: dict[str, Any] = _finite(
        {
            "n_tokens": shape[0],
            "n_experts": shape[1],
            "k": k,
            "method": solution.method,
            "status": solution.status.outcome.name.lower(),
            "reason": solution.status.reason,
            "value": solution.value,
            "dual_value": solution.dual_value,
            "certificate": asdict(solution.certificate),
            "unbalanced": before,
            "effort": solution.effort._asdict(),
            **{
                name: None if (found := getattr(solution, name)) is None else found.tolist()
                for name in ("loads", "bias", "interval")
            },
        }
    )
    return document


def _unbalanced(scores: "FloatArray", k: int) -> dict[str, Any]:
    """What top-K without a bias gives."""
    from balancesim.problem import max_violation
    from balancesim.routing import route

    top = route(scores, k=k)
    return {"value": top.score, "max_violation": max_violation(top.loads), "loads": top.loads.tolist()}


def _finite(value: Any) -> Any:
    """The value with null for infinity and NaN, which JSON has not."""
    import math

    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines(solution: "ExactSolution", before: dict[str, Any]) -> list[tuple[str, str]]:
    """The certificate, and what balance costs, as names and texts."""
    from balancesim.problem import max_violation

    proof, effort = solution.certificate, solution.effort
    time = ("time", f"{effort.build_seconds:.3g} s to build, {effort.solve_seconds:.3g} s to solve")
    if solution.experts is None or solution.loads is None:
        return [("status", solution.status.reason), time]
    lost = before["value"] - solution.value
    slack = (
        f"{proof.n_violated} tokens whose choice the prices contradict, by at most "
        f"{proof.slackness_violation:.2g}; the loads cost {proof.price_violation:.2g} more than the cheapest"
    )
    percent = f" ({100.0 * lost / before['value']:.3g} %)" if before["value"] > 0.0 else ""
    loads = solution.loads
    return [
        ("status", solution.status.reason),
        ("value", f"{solution.value:.15g}"),
        ("dual value", f"{solution.dual_value:.15g}"),
        ("gap", f"{proof.gap:.2g} relative"),
        ("rows", f"{proof.row_residual} tokens without K different experts"),
        ("columns", f"{proof.column_residual} tokens outside the limits of the loads"),
        ("integral", "yes" if proof.integral else "no"),
        ("slackness", slack),
        ("loads", f"{loads.min()} to {loads.max()}"),
        ("MaxVio", f"{max_violation(loads):.4g}; {before['max_violation']:.4g} without balancing"),
        ("balance", f"costs {lost / len(solution.experts):.4g} of the top-K score per token{percent}"),
        time,
    ]


def _prices(solution: "ExactSolution", before: dict[str, Any]) -> Any:
    """Bias and interval of every expert, or of the cheapest and the dearest ones."""
    import numpy as np
    from rich.table import Table

    bias, interval, loads = solution.bias, solution.interval, solution.loads
    if bias is None or interval is None or loads is None:  # they come together
        raise TypeError("a solution without prices has no table")
    shown = list(range(bias.size))
    if bias.size > _ROWS_AT_MOST:
        order = np.argsort(bias, kind="stable").tolist()
        shown = [*order[: _ROWS_AT_MOST // 2], -1, *order[-_ROWS_AT_MOST // 2 :]]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for title in ("expert", "load", "top-K load", "bias", "may fall by", "rise by"):
        table.add_column(title, justify="right", no_wrap=True)
    for expert in shown:
        if expert < 0:
            table.add_row(*["..."] * 6)
            continue
        low, high = interval[expert]
        numbers = (f"{bias[expert]:.6g}", f"{bias[expert] - low:.2g}", f"{high - bias[expert]:.2g}")
        table.add_row(str(expert), str(loads[expert]), str(before["loads"][expert]), *numbers)
    return table


def _write(out: Path, solution: "ExactSolution") -> None:
    import numpy as np

    from balancesim.sweep.atomic import write_atomically

    arrays: dict[str, Any] = {
        name: getattr(solution, name)
        for name in ("experts", "loads", "bias", "interval", "value", "dual_value", "gap")
    }

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # a name would get .npz appended
            np.savez(file, **arrays)

    write_atomically(out, write)
