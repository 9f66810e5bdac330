"""Rows of the grouped summary with types and words: what the table and every figure read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

CONTROL = "none"
"""The family of no balancing."""

_COMPARATORS = {
    "population": "the population minimiser p*",
    "hindsight": "the best fixed bias in hindsight",
    "given": "the bias given",
    "rule": "the minimiser of the rule's own objective",
    "none": "nothing",
}
_UNITS = {
    "inverse-modulus": "1/\N{GREEK SMALL LETTER MU}",
    "spread": "spread",
    "percent-of-spread": "1 % spread",
}
_TIMES = "\N{MULTIPLICATION SIGN}"
_MU = "\N{GREEK SMALL LETTER MU}"


@dataclass(frozen=True)
class RuleRow:
    """One rule on one source, over the seeds done; the columns are those of ``sweep.group_summary``."""

    group: int
    source: str
    n_tokens: int
    k: int
    n_experts: int
    horizon: int
    n_groups: int
    n_chosen_groups: int
    comparator: str
    modulus: float
    modulus_low: float
    modulus_high: float
    modulus_method: str
    spread: float
    rule: str
    rule_kind: str
    causal: bool
    schedule: str | None
    step_multiple: float
    step_unit: str | None
    step_size: float
    mu_times_step: float
    n_seeds: int
    n_early: int
    reason: str
    regret: float
    regret_low: float
    regret_high: float
    slope: float
    slope_low: float
    slope_high: float
    exponent: float
    exponent_low: float
    exponent_high: float
    verdict: str
    predicted_slope: float
    predicted_exponent: float
    bound: float
    kept_of_exact: float
    score_over_exact: float
    exact_reason: str
    max_violation: float
    max_violation_low: float
    max_violation_high: float
    max_violation_floor: float
    drop_rate: float

    @property
    def family(self) -> str:
        """What shares a panel or a line: a schedule of ALF-LB itself, or another rule by its kind."""
        return self.schedule if self.schedule and self.rule_kind == "alf-lb" else self.rule_kind

    @property
    def variant(self) -> str:
        """The rule's label without its family: "×0.3" for "sign x0.3"."""
        rest = self.rule.removeprefix(self.family).strip(" ,")
        if rest.startswith("x") and math.isfinite(self.step_multiple):
            return _TIMES + rest[1:]
        return rest or self.rule

    @property
    def setting(self) -> str:
        """Sizes of the run in the field's letters: "E=16, K=2, T=256, N=10,000", and a limit on groups."""
        limit = f", {self.n_chosen_groups} of {self.n_groups} groups" if self.n_groups else ""
        return f"E={self.n_experts}, K={self.k}, T={self.n_tokens}, N={self.horizon:,}{limit}"

    @property
    def comparator_text(self) -> str:
        """What the regret is measured against."""
        if self.n_chosen_groups < self.n_groups:
            return "nothing: it is not defined under a limit on groups"
        return _COMPARATORS.get(self.comparator, self.comparator)

    @property
    def modulus_text(self) -> str:
        """The modulus at p*, with its interval where it is an estimate, and how it was found."""
        if not math.isfinite(self.modulus):
            return f"{_MU}(p*) not known"
        text = f"{_MU}(p*) = {self.modulus:.3g}"
        if self.modulus_high - self.modulus_low > 5e-4 * self.modulus:
            text += f" [{self.modulus_low:.3g}, {self.modulus_high:.3g}]"
        method, _, _ = self.modulus_method.partition(":")
        return f"{text} per score unit, {method}"


CURRENT_BATCH = "current-batch rules: they see the batch they assign, and are not ranked with the others"
"""What is said wherever rules that are not causal are shown."""


def rule_rows(frame: "pd.DataFrame") -> list[RuleRow]:
    """Rows of a grouped summary, in its order.

    Parameters
    ----------
    frame : DataFrame
        What ``sweep.group_summary`` returns, or some of its rows.

    Returns
    -------
    list of RuleRow
        A missing schedule or unit is None, a missing reason an empty string.
    """
    names = [field.name for field in fields(RuleRow)]
    records = frame[names].itertuples(index=False, name=None)
    return [RuleRow(*(_cell(name, value) for name, value in zip(names, r, strict=True))) for r in records]


def _cell(name: str, value: Any) -> Any:
    """A value as it is; None for the missing text that pandas gives as NaN."""
    return value if isinstance(value, str) or name not in ("schedule", "step_unit") else None


def unit_text(rows: Sequence[RuleRow]) -> str:
    """What the multiples of a family are multiples of, if all share it.

    Parameters
    ----------
    rows : sequence of RuleRow
        The rules of one family on one source.

    Returns
    -------
    str
        For example "×1: 1/μ = 0.94", the number in score units; empty where the rules have no common unit.
    """
    found = {
        (row.step_unit, f"{row.step_size / row.step_multiple:.3g}")
        for row in rows
        if row.step_unit in _UNITS and row.step_multiple > 0.0
    }
    if len(found) != 1:
        return ""
    unit, size = found.pop()
    return f"{_TIMES}1: {_UNITS[unit or '']} = {size}"
