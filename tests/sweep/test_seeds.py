import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancesim.errors import ConfigurationError
from balancesim.sweep.seeds import parse_seeds, seeds_text


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0:4", (0, 1, 2, 3)),
        ("7", (7,)),
        (7, (7,)),
        ("0:2,10,3:5", (0, 1, 3, 4, 10)),
        (["4:6", 1, 1], (1, 4, 5)),
        (" 1 : 3 ", (1, 2)),
    ],
)
def test_forms(text: object, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text, "--seeds") == seeds


@pytest.mark.parametrize("text", ["", "a", "1:2:3", "-1:3", "1.5", 1.5, True, None, "3:3", "5:2", [], "0:"])
def test_what_is_no_seed_is_refused(text: object) -> None:
    with pytest.raises(ConfigurationError, match="--seeds"):
        parse_seeds(text, "--seeds")


def test_too_many_or_too_large() -> None:
    with pytest.raises(ConfigurationError, match="at most 1,000,000"):
        parse_seeds("0:1000000000000", "--seeds")
    with pytest.raises(ConfigurationError, match="below 2\\*\\*63"):
        parse_seeds(str(2**63), "--seeds")


@given(st.sets(st.integers(0, 60), min_size=1))
def test_text_reads_back(seeds: set[int]) -> None:
    ascending = tuple(sorted(seeds))
    assert parse_seeds(seeds_text(ascending), "seeds") == ascending
