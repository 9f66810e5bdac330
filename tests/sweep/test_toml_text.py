import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancesim.sweep.toml_text import toml_text

# TOML has 64-bit integers and no surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = TEXT | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.lists(st.lists(SCALARS, max_size=2), max_size=2)
TABLES = st.dictionaries(TEXT, VALUES | st.dictionaries(TEXT, SCALARS, max_size=2), max_size=3)
DOCUMENTS = st.dictionaries(TEXT, VALUES | TABLES | st.lists(TABLES, min_size=1, max_size=3), max_size=4)


@given(DOCUMENTS)
def test_reads_back(document: dict[str, object]) -> None:
    assert tomllib.loads(toml_text(document)) == document


def test_what_toml_cannot_hold() -> None:
    with pytest.raises(TypeError, match="no TOML form"):
        toml_text({"a": None})
