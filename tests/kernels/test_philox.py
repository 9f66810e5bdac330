"""Philox4x32-10 against published vectors and against big-integer arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancesim.kernels.jit import kernel
from balancesim.kernels.philox import philox
from tests import naive

words = st.integers(0, 2**32 - 1)


@kernel
def four_words(c0, c1, c2, c3, k0, k1):
    return philox(c0, c1, c2, c3, k0, k1)


def run(counter, key):
    return tuple(int(word) for word in four_words(*(np.uint64(x) for x in (*counter, *key))))


# The known-answer vectors of the Random123 distribution.
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers(counter, key, expected):
    assert run(counter, key) == expected


@given(st.tuples(words, words, words, words), st.tuples(words, words))
def test_equals_big_integers(counter, key):
    assert run(counter, key) == naive.philox(counter, key)
