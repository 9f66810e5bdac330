"""Bits to experts and back."""

import numpy as np
import pytest

from balancesim.kernels.jit import kernel
from balancesim.kernels.members import WORD_BITS, lowest, n_words, write_members
from tests.kernels.instances import experts_of, words_of


@kernel
def lowest_of(words, result):
    for i in range(words.size):
        result[i] = lowest(words[i])


@kernel
def write(words, t, row):
    write_members(words, t, row)


def test_lowest_bit_of_every_word():
    bits = np.arange(WORD_BITS)
    rng = np.random.default_rng(0)
    single = [1 << int(b) for b in bits]
    above = [int(rng.integers(0, 1 << 63)) * 2 >> int(b) << int(b) | 1 << int(b) for b in bits]
    for words in (single, above, [(1 << 64) - (1 << int(b)) for b in bits]):
        result = np.full(WORD_BITS, -1)
        lowest_of(np.array(words, np.uint64), result)
        assert (result == bits).all()
        assert [lowest(np.uint64(word)) for word in words] == bits.tolist()


@pytest.mark.parametrize(
    ("n_experts", "words"), [(1, 1), (2, 1), (63, 1), (64, 1), (65, 2), (128, 2), (129, 3)]
)
def test_words_that_hold_a_bit_each(n_experts, words):
    assert n_words(n_experts) == words


@pytest.mark.parametrize("n_experts", [1, 2, 63, 64, 65, 130])
def test_members_ascend(n_experts):
    rng = np.random.default_rng(n_experts)
    sets = [[], [0], [n_experts - 1], list(range(n_experts))]
    sets += [np.flatnonzero(rng.random(n_experts) < p).tolist() for p in (0.05, 0.3, 0.7, 0.95)]
    words = words_of(sets, n_experts)
    assert experts_of(words) == sets
    before = words.copy()
    for t, members in enumerate(sets):
        for size in {0, 1, len(members) // 2, len(members), len(members) + 3}:
            row = np.full(size, -1)
            write(words, t, row)
            assert row.tolist() == (members + [-1] * 3)[:size]
    assert (words == before).all()
