"""A statement of a paper, and the function that tries it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from balancesim.checks.case import Case, Verdict
from balancesim.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_T = TypeVar("_T")


class Depth(StrEnum):
    """How much work a check does."""

    DEFAULT = "default"
    DEEP = "deep"

    def pick(self, default: _T, deep: _T) -> _T:
        """Return the first value at default depth, else the second."""
        return deep if self is Depth.DEEP else default


@dataclass(frozen=True)
class Findings:
    """What a check found.

    Attributes
    ----------
    cases : sequence of Case
        Trials of the statement and of its negative controls.
    data : mapping
        What the figure shows: arrays, numbers and texts by name.
    remarks : sequence of str
        Sentences that a reader of the table should know.
    """

    cases: Sequence[Case]
    data: Mapping[str, Any] = field(default_factory=dict)
    remarks: Sequence[str] = ()

    @property
    def verdict(self) -> Verdict:
        """Fails if one trial does; holds if at least one does, and none is inconclusive."""
        found = {case.verdict for case in self.trials}
        for verdict in (Verdict.FAILS, Verdict.INCONCLUSIVE, Verdict.HOLDS):
            if verdict in found:
                return verdict
        return Verdict.UNMET

    @property
    def trials(self) -> list[Case]:
        """The trials of the statement itself."""
        return [case for case in self.cases if case.control is None]

    @property
    def controls(self) -> list[Case]:
        """The negative controls."""
        return [case for case in self.cases if case.control is not None]

    @property
    def controls_fail(self) -> bool:
        """Whether there is a negative control and all of them fail, as they must."""
        return bool(self.controls) and all(case.verdict is Verdict.FAILS for case in self.controls)


@dataclass(frozen=True)
class Statement:
    """A statement and its check, as an entry point of the group ``balancesim.checks`` names it.

    Attributes
    ----------
    label : str
        Its name in docs/theory.md, such as ``"D1"``.
    paper : str
        Where it comes from.
    title : str
        A few words for tables.
    claim : str
        The statement in our words.
    hypotheses : tuple of str
        What it assumes.
    statistic : str
        What is measured.
    control : str
        What the negative controls take away or turn round.
    run : callable
        From a `Depth` to `Findings`; the same on every call.
    figure : callable or None
        From findings to a matplotlib figure, called inside `balancesim.report.style.settings`.
    caption : str
        What the figure shows.
    """

    label: str
    paper: str
    title: str
    claim: str
    hypotheses: tuple[str, ...]
    statistic: str
    control: str
    run: Callable[[Depth], Findings]
    figure: "Callable[[Findings], Figure] | None" = None
    caption: str = ""

    def __post_init__(self) -> None:
        if self.figure is not None and not self.caption:
            raise InputError(f"{self.label}: a figure needs a `caption`")


def statement(
    *,
    label: str,
    paper: str,
    title: str,
    claim: str,
    hypotheses: tuple[str, ...],
    statistic: str,
    control: str,
    figure: "Callable[[Findings], Figure] | None" = None,
    caption: str = "",
) -> Callable[[Callable[[Depth], Findings]], Statement]:
    """Turn a check function into a `Statement`, whose attributes the parameters are.

    Raises
    ------
    InputError
        If there is a figure without a caption.
    """

    def decorate(run: Callable[[Depth], Findings]) -> Statement:
        return Statement(label, paper, title, claim, hypotheses, statistic, control, run, figure, caption)

    return decorate
