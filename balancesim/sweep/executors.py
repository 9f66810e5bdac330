"""How tasks are spread over cores: on threads, over processes, or one after the other.

Every executor yields one result per task, in the order of completion; an exception inside a task is a result.
"""

import multiprocessing
import multiprocessing.connection
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from typing import Literal, NamedTuple, Protocol

from balancesim.errors import RunDirectoryError
from balancesim.sweep.child import follow_parent
from balancesim.sweep.work import Assignment, StoppedError, note_failure, perform

ExecutorName = Literal["thread", "process", "serial"]
EXECUTORS: tuple[ExecutorName, ...] = ("thread", "process", "serial")

_POLL_SECONDS = 0.5


class Result(NamedTuple):
    """What became of one task: ``error`` is None where its part was written."""

    assignment: Assignment
    error: str | None
    lost: bool = False


class _Flag(Protocol):
    """What thread and process events share."""

    def is_set(self) -> bool: ...

    def set(self) -> None: ...


def execute(
    assignments: Sequence[Assignment],
    *,
    executor: ExecutorName,
    jobs: int,
    progress: Callable[[Assignment, float], None],
) -> Generator[Result]:
    """Run every task and yield what became of it.

    Parameters
    ----------
    assignments : sequence of Assignment
        The tasks, started in this order.
    executor : {"thread", "process", "serial"}
        Threads share memory and the kernels release the GIL; processes are spawned.
    jobs : int
        Tasks at a time; ignored by ``serial``.
    progress : callable
        Called with a task and the share of it that is done; not by ``process``.

    Raises
    ------
    RunDirectoryError
        If results cannot be written; tasks under way are stopped.
    KeyboardInterrupt
        On Ctrl-C, after the tasks under way have stopped.
    """
    if executor == "serial":
        for assignment in assignments:
            yield _attempt(assignment, lambda share, one=assignment: progress(one, share))  # type: ignore[misc]
    elif executor == "thread":
        yield from _on_threads(assignments, jobs, progress)
    else:
        yield from _over_processes(assignments, jobs)


def _attempt(assignment: Assignment, progress: Callable[[float], None]) -> Result:
    """Do one task; only what concerns all tasks (a full disk, a stop) passes."""
    try:
        perform(assignment, progress)
    except (RunDirectoryError, StoppedError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a third party's source or rule raises
        message = "; ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
        note_failure(assignment, message)
        return Result(assignment, message)
    return Result(assignment, None)


def _on_threads(
    assignments: Sequence[Assignment], jobs: int, progress: Callable[[Assignment, float], None]
) -> Iterator[Result]:
    stop = threading.Event()

    def work(assignment: Assignment) -> Result:
        def report(share: float) -> None:
            if stop.is_set():
                raise StoppedError
            progress(assignment, share)

        report(0.0)
        return _attempt(assignment, report)

    pool = ThreadPoolExecutor(jobs, thread_name_prefix="balancesim")
    try:
        yield from _as_completed({pool.submit(work, one): one for one in assignments})
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _over_processes(assignments: Sequence[Assignment], jobs: int) -> Iterator[Result]:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker, initargs=(stop,))
    try:
        yield from _as_completed({pool.submit(_work_in_process, one): one for one in assignments})
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _as_completed(futures: dict[Future[Result], Assignment]) -> Iterator[Result]:
    waiting = set(futures)
    while waiting:
        # A wait without end cannot be interrupted everywhere.
        done, waiting = wait(waiting, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
        for future in sorted(done, key=lambda one: futures[one].task.key):
            try:
                yield future.result()
            except BrokenProcessPool:
                yield Result(futures[future], "the worker process was killed", lost=True)


class _Worker:
    """The stop flag of a worker process; set once, by the pool's initializer."""

    stop: _Flag = threading.Event()


def _start_worker(stop: Event) -> None:
    follow_parent()
    _Worker.stop = stop


def _work_in_process(assignment: Assignment) -> Result:
    def report(_: float) -> None:
        if _Worker.stop.is_set():
            raise StoppedError

    report(0.0)
    return _attempt(assignment, report)
