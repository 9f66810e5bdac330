"""Where the findings of checks lie on disk: one file a statement, read again while the code is the same."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from balancesim.checks.case import Case
from balancesim.checks.statement import Depth, Findings, Statement
from balancesim.sweep.atomic import write_json


def write_findings(folder: Path, statement: Statement, depth: Depth, findings: Findings) -> None:
    """Write what a check found, with the numbers behind its figure, as ``LABEL.json``."""
    document = {
        "digest": digest(statement),
        "depth": str(depth),
        "label": statement.label,
        **verdicts(findings),
        "cases": [_plain(asdict(case)) for case in findings.cases],
        "remarks": list(findings.remarks),
        "data": _plain(findings.data),
    }
    write_json(folder / f"{statement.label}.json", document)


def read_findings(folder: Path, statement: Statement, depth: Depth) -> Findings | None:
    """Return what an earlier run found, less the figure's data; None where there is none of this code."""
    try:
        document = json.loads((folder / f"{statement.label}.json").read_text(encoding="utf-8"))
        if document["digest"] != digest(statement) or document["depth"] != str(depth):
            return None
        cases = [Case(**{name: _number(value) for name, value in case.items()}) for case in document["cases"]]
        return Findings(cases, {}, document["remarks"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def verdicts(findings: Findings) -> dict[str, Any]:
    """Return what all cases together say."""
    return {"verdict": str(findings.verdict), "controls_fail": findings.controls_fail}


def plain_case(case: Case) -> dict[str, Any]:
    """Return a case with its verdict and margin as JSON takes it."""
    found: dict[str, Any] = _plain({**asdict(case), "verdict": str(case.verdict), "margin": case.margin})
    return found


def digest(statement: Statement) -> str:
    """Hash the sources of this package and of the one that brings the statement."""
    packages = {"balancesim", statement.run.__module__.partition(".")[0]}
    return hashlib.blake2b(
        b"".join(_package_digest(name) for name in sorted(packages)), digest_size=8
    ).hexdigest()


@cache
def _package_digest(name: str) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    spec = find_spec(name)
    places = list(spec.submodule_search_locations or []) if spec else []
    files = [path for place in places for path in Path(place).rglob("*.py")]
    if spec and spec.origin and not places:
        files = [Path(spec.origin)]
    for path in sorted(files):
        found.update(path.read_bytes())
    return found.digest()


def _plain(value: Any) -> Any:
    """Arrays as lists; numbers that JSON does not have as texts."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _number(value: Any) -> Any:
    return float(value) if value in ("inf", "-inf", "nan") else value
