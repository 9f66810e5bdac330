"""Progress on stderr: a bar where stderr is a terminal, single lines for what must be said."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress, Task


class ProgressBar:
    """A sweep's reporter that draws cells done, their rate, the time left and failures.

    Parameters
    ----------
    quiet : bool
        Whether to draw no bar and say no notes.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Progress | None = None
        self._advance: Callable[[float, int], None] | None = None

    def note(self, text: str) -> None:
        """Say something once, above the bar."""
        if not self._quiet:
            click.echo(f"note: {text}", err=True)

    def remark(self, text: str) -> None:
        """Say something once, where a bar is drawn."""
        if self._bar is not None:
            self.note(text)

    def start(self, n_cells: int) -> None:
        """Show the bar."""
        from rich.console import Console

        console = Console(stderr=True)
        if self._quiet or not console.is_terminal or n_cells == 0:
            return
        bar = _bar(console)
        task = bar.add_task("cells", total=n_cells, failures=0)
        failures = 0

        def advance(cells: float, failed: int) -> None:
            nonlocal failures
            failures += failed
            bar.update(task, advance=cells, failures=failures)

        self._bar, self._advance = bar, advance
        bar.start()

    def advance(self, cells: float, *, failed: int = 0) -> None:
        """Move the bar; called from any thread."""
        if self._advance is not None:
            self._advance(cells, failed)

    def stop(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._advance = None


def working(text: str, *, quiet: bool) -> AbstractContextManager[object]:
    """Show on a terminal's stderr that something without steps is being done."""
    from rich.console import Console

    console = Console(stderr=True)
    return nullcontext() if quiet or not console.is_terminal else console.status(text)


def _bar(console: object) -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Counts(ProgressColumn):
        """Cells done, their rate, failures."""

        def render(self, task: "Task") -> Text:
            """Write the counts."""
            rate = f"{task.speed:.1f} cells/s" if task.speed else "compiling"
            text = Text(f"{int(task.completed)}/{int(task.total or 0)}  {rate}")
            if task.fields["failures"]:
                text.append(f"  {task.fields['failures']} failed", style="red")
            return text

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        Counts(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console if isinstance(console, Console) else None,
        transient=True,
        speed_estimate_period=10.0,
    )
