"""What every installed statement says of itself; to try the statements is `balancesim check`'s task."""

import re
from pathlib import Path

import pytest

from balancesim.checks import Statement, find_statements

ROOT = Path(__file__).parent.parent.parent
PAGES = ("docs/theory.md", "docs/heavy_tails.md")


@pytest.fixture(scope="module")
def pages() -> str:
    return "\n".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES if (ROOT / page).exists())


@pytest.mark.parametrize("statement", find_statements(), ids=lambda statement: statement.label)
def test_a_statement_says_all_it_should(statement: Statement, pages: str) -> None:
    assert re.search(rf"\*\*{statement.label}\b|^#+ {statement.label}\b", pages, re.MULTILINE), "not in docs"
    for text in (statement.paper, statement.title, statement.claim, statement.statistic, statement.control):
        assert text.strip() == text
        assert text
    assert all(statement.hypotheses)
    assert len(statement.title) <= 60


def test_every_label_of_the_theory_has_its_check() -> None:
    expected = {f"{letter}{i}" for letter, n in (("D", 5), ("S", 8), ("P", 7)) for i in range(1, n + 1)}
    assert expected <= {statement.label for statement in find_statements()}
