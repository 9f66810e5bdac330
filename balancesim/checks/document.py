"""What `balancesim check` prints: a table for people, one JSON document for programs."""

from collections.abc import Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from balancesim.checks.case import Case, Verdict
from balancesim.checks.runner import Outcome
from balancesim.checks.statement import Depth
from balancesim.checks.store import plain_case, verdicts

_STYLES = {
    Verdict.HOLDS: "green",
    Verdict.FAILS: "bold red",
    Verdict.UNMET: "yellow",
    Verdict.INCONCLUSIVE: "yellow",
}


def document(outcomes: Sequence[Outcome], depth: Depth) -> dict[str, Any]:
    """Return every statement with all that was found; nothing in it depends on time or machine load."""
    return {
        "depth": str(depth),
        "passed": all(outcome.passed for outcome in outcomes),
        "statements": [_statement(outcome) for outcome in outcomes],
    }


def _statement(outcome: Outcome) -> dict[str, Any]:
    about = outcome.statement
    found = outcome.findings
    return {
        "label": about.label,
        "paper": about.paper,
        "title": about.title,
        "claim": about.claim,
        "hypotheses": list(about.hypotheses),
        "statistic": about.statistic,
        "control": about.control,
        "passed": outcome.passed,
        "error": outcome.error,
        **(verdicts(found) if found else {}),
        "cases": [plain_case(case) for case in found.cases] if found else [],
        "remarks": list(found.remarks) if found else [],
    }


def table(outcomes: Sequence[Outcome]) -> Group:
    """Lay the outcomes out: a line a statement, then what needs more words."""
    lines = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "statement", "verdict", "tightest case", "found", "allowed", "margin"):
        lines.add_column(heading, overflow="fold")
    lines.add_column("trials", justify="right")
    lines.add_column("controls that fail", justify="right")
    for outcome in outcomes:
        lines.add_row(*_row(outcome))
    notes = [Text(line) for outcome in outcomes for line in _notes(outcome)]
    n_passed = sum(outcome.passed for outcome in outcomes)
    summary = Text(f"{n_passed} of {len(outcomes)} statements pass")
    return Group(lines, *notes, summary)


def _row(outcome: Outcome) -> list[Text | str]:
    about, found = outcome.statement, outcome.findings
    if found is None:
        return [about.label, about.title, Text("broke off", "bold red"), "", "", "", "", "", ""]
    verdict = Text(str(found.verdict), _STYLES[found.verdict])
    met = [case for case in found.trials if case.verdict is not Verdict.UNMET]
    n_failing = sum(case.verdict is Verdict.FAILS for case in found.controls)
    counts = [f"{len(met)}", f"{n_failing} of {len(found.controls)}"]
    if not met:
        return [about.label, about.title, verdict, "", "", "", "", *counts]
    tightest = min(met, key=lambda case: case.margin)
    return [
        about.label,
        about.title,
        verdict,
        f"{tightest.instance}: {tightest.quantity}",
        _found(tightest),
        _allowed(tightest),
        f"{tightest.margin:.3g}",
        *counts,
    ]


def _notes(outcome: Outcome) -> list[str]:
    label, found = outcome.statement.label, outcome.findings
    if found is None:
        return [f"{label} broke off: {outcome.error}"]
    lines = [
        f"{label} {case.verdict}: {_measured(case)}, allowed {_allowed(case)}"
        + (
            f"; more would be known by {case.decide}"
            if case.decide and case.verdict is not Verdict.FAILS
            else ""
        )
        for case in found.trials
        if case.verdict in (Verdict.FAILS, Verdict.INCONCLUSIVE)
    ]
    unmet: dict[str, list[str]] = {}
    for case in found.trials:
        if case.unmet is not None:
            unmet.setdefault(case.unmet, []).append(case.instance)
    lines += [f"{label} {Verdict.UNMET} ({why}): {', '.join(where)}" for why, where in unmet.items()]
    lines += [
        f"{label} negative control does not fail ({case.control}): {_measured(case)}, the statement allows "
        f"{_allowed(case)}"
        for case in found.controls
        if case.verdict is not Verdict.FAILS
    ]
    if not found.controls:
        lines.append(f"{label} has no negative control: nothing says that its check can fail")
    return [*lines, *(f"{label}: {remark}" for remark in found.remarks)]


def _measured(case: Case) -> str:
    return f"{case.instance}: {case.quantity} is {_found(case)}"


def _found(case: Case) -> str:
    if case.low == case.high:
        return f"{case.value:.4g}"
    return f"{case.value:.4g} [{case.low:.4g}, {case.high:.4g}]"


def _allowed(case: Case) -> str:
    if case.least == -float("inf"):
        return f"at most {case.most:.4g}"
    if case.most == float("inf"):
        return f"at least {case.least:.4g}"
    return f"{case.least:.4g} to {case.most:.4g}"
