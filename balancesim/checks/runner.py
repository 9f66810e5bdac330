"""Run checks side by side, keep what is done, and say how it came out."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from balancesim.checks.case import Verdict
from balancesim.checks.registry import find_statements
from balancesim.checks.statement import Depth, Findings, Statement
from balancesim.checks.store import read_findings, write_findings
from balancesim.sweep.atomic import storage_error

FIGURES = "figures"


@dataclass(frozen=True)
class Outcome:
    """How the check of one statement came out.

    Attributes
    ----------
    statement : Statement
        What was checked.
    findings : Findings or None
        What was found; None where the check broke off.
    error : str
        Why it broke off; empty where it did not.
    seconds : float
        How long it took; 0 where an earlier run's findings were read.
    """

    statement: Statement
    findings: Findings | None
    error: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether nothing that should hold fails and every negative control does."""
        return (
            self.findings is not None
            and self.findings.verdict is not Verdict.FAILS
            and self.findings.controls_fail
        )


def run_checks(
    statements: Sequence[Statement],
    folder: Path,
    *,
    depth: Depth = Depth.DEFAULT,
    jobs: int = 1,
    fresh: bool = False,
    report: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Check statements and draw their figures.

    Parameters
    ----------
    statements : sequence of Statement
        As `find_statements` gives them.
    folder : Path
        Gets ``LABEL.json`` for each statement, and ``figures/LABEL.svg`` and ``.png``. What an earlier run
        with the same sources and depth left there is not computed again.
    depth : Depth
        How much work each check does.
    jobs : int
        Processes; with 1, everything runs in this one.
    fresh : bool
        Whether to run checks that are done.
    report : callable
        Called with each outcome as it comes.

    Returns
    -------
    list of Outcome
        In the order of ``statements``, whatever the number of jobs.

    Raises
    ------
    RunDirectoryError
        If the folder cannot be written.
    """
    say = report or _silent
    try:
        (folder / FIGURES).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    done: dict[str, Outcome] = {}
    for statement in statements:
        found = None if fresh else read_findings(folder, statement, depth)
        if found is not None and (statement.figure is None or _drawn(folder, statement)):
            done[statement.label] = Outcome(statement, found)
            say(done[statement.label])
    waiting = [statement for statement in statements if statement.label not in done]
    for outcome in _outcomes(waiting, folder, depth, jobs):
        done[outcome.statement.label] = outcome
        say(outcome)
    return [done[statement.label] for statement in statements]


def _silent(outcome: Outcome) -> None:
    """Say nothing of an outcome."""
    del outcome


def _drawn(folder: Path, statement: Statement) -> bool:
    return all((folder / FIGURES / f"{statement.label}.{ending}").is_file() for ending in ("svg", "png"))


def _outcomes(waiting: Sequence[Statement], folder: Path, depth: Depth, jobs: int) -> Iterator[Outcome]:
    if jobs == 1 or len(waiting) < 2:
        for statement in waiting:
            yield _outcome(statement, lambda s=statement: _check(s, folder, depth))  # type: ignore[misc]
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(waiting)), mp_context=context) as pool:
        futures: dict[Future[tuple[Findings, float]], Statement] = {
            pool.submit(_check_label, statement.label, folder, depth): statement for statement in waiting
        }
        try:
            for future in as_completed(futures):
                yield _outcome(futures[future], future.result)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _outcome(statement: Statement, result: Callable[[], tuple[Findings, float]]) -> Outcome:
    """One check's exception is its own outcome: the others go on."""
    try:
        findings, seconds = result()
    except BrokenProcessPool:
        return Outcome(statement, None, "its process was killed; run the same command again")
    except Exception as error:  # noqa: BLE001 - a check is anybody's code
        return Outcome(statement, None, f"{type(error).__name__}: {error}")
    return Outcome(statement, findings, seconds=seconds)


def _check_label(label: str, folder: Path, depth: Depth) -> tuple[Findings, float]:
    found = next(statement for statement in find_statements([label]) if statement.label == label)
    return _check(found, folder, depth)


def _check(statement: Statement, folder: Path, depth: Depth) -> tuple[Findings, float]:
    """Try a statement, draw its figure, and only then write what says that both are done."""
    started = perf_counter()
    findings = statement.run(depth)
    if statement.figure is not None:
        from balancesim.report import style

        with style.settings():
            style.save(statement.figure(findings), folder / FIGURES, statement.label)
    write_findings(folder, statement, depth, findings)
    return findings, perf_counter() - started
