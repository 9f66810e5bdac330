"""Sets of experts as bits: one or more 64-bit words a token, made across tokens and read expert by expert.

Writing the experts of each token in order of index is a loop that does not vectorise; setting a bit per
expert does, and reading the bits back costs one step per chosen expert instead of one per expert.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

from balancesim.kernels.jit import inline, inner

WORD_BITS = 64


@intrinsic
def _trailing_zeros(typing_context: Any, word: Any) -> Any:
    def generate(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


def lowest(word: Any) -> int:
    """Index of a word's lowest set bit; the word is not zero."""
    number = int(word)
    return (number & -number).bit_length() - 1


@overload(lowest)
def _lowest(word):
    return lambda word: _trailing_zeros(word)  # type: ignore[call-arg]


@inline
def n_words(n_experts):
    """Words that hold a bit per expert."""
    return (n_experts + 63) // 64


@inner
def write_members(words, t, row):
    """Write the experts whose bits are set in ``words[t]``, ascending, into ``row``, as far as it goes."""
    place = 0
    for w in range(words.shape[1]):
        word = words[t, w]
        while word != np.uint64(0) and place < row.size:
            row[place] = 64 * w + lowest(word)
            place += 1
            word &= word - np.uint64(1)
