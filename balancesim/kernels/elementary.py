"""Logarithm, exponential and sine/cosine as plain IEEE arithmetic, in float32 and float64.

Kernels need these functions inside loops that vectorise, and results that do not depend on whether an
element fell into a vector body or a scalar remainder. Library calls give neither. Here every step is a
correctly rounded add, multiply or divide (no fused multiply-add: these functions are compiled without the
``contract`` flag), so the bits depend on the argument alone.

The coefficients are those of Taylor's series; the number of terms makes the remainder smaller than half a
unit in the last place on the reduced range:

* ``log``: 2 atanh(s), s = (m - 1)/(m + 1), m in [sqrt(1/2), sqrt(2)], so s**2 <= 0.0295;
* ``exp``: r in [-log(2)/2, log(2)/2], degree 7 or 13;
* ``sincos``: angles in [-pi/4, pi/4], degree 9 or 17.
"""

import math
from typing import Any

import numpy as np

from balancesim.kernels.jit import pasted


def _build(
    real: Any, integer: Any, *, mantissa_bits: int, exponent_bias: int, ln2: tuple[float, float]
) -> Any:
    """Compile the functions for one float type; the constants become literals of that type."""
    wide = mantissa_bits > 23
    one, two, half = real(1.0), real(2.0), real(0.5)
    ln2_hi, ln2_lo = real(ln2[0]), real(ln2[1])
    log2_e = real(1.0 / math.log(2.0))
    shift, bias = integer(mantissa_bits), integer(exponent_bias)
    sqrt_half_bits = real(math.sqrt(0.5)).view(integer)
    # 2 exponent_bias is as far as two successive scalings by a power of two can reach.
    lowest, highest = real(-2 * exponent_bias + 2), real(2 * exponent_bias)
    a3, a5, a7, a9, a11 = (real(2.0 / n) for n in (3, 5, 7, 9, 11))
    a13, a15, a17, a19, a21, a23 = (real(2.0 / n) for n in (13, 15, 17, 19, 21, 23))
    (c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13) = (
        real(1.0 / math.factorial(n)) for n in range(2, 14)
    )
    quarter = math.pi / 2.0
    s1, s3, s5, s7, s9 = (real((-1) ** (n // 2) * quarter**n / math.factorial(n)) for n in (1, 3, 5, 7, 9))
    s11, s13, s15, s17 = (real((-1) ** (n // 2) * quarter**n / math.factorial(n)) for n in (11, 13, 15, 17))
    q2, q4, q6, q8 = (real((-1) ** (n // 2) * quarter**n / math.factorial(n)) for n in (2, 4, 6, 8))
    q10, q12, q14, q16 = (real((-1) ** (n // 2) * quarter**n / math.factorial(n)) for n in (10, 12, 14, 16))
    bit_one, bit_two = integer(1), integer(2)
    # Differences are brought back to ``integer`` before they are shifted: of two int32 Numba makes an int64,
    # and AVX2 shifts none of these with its sign.

    @pasted
    def power_of_two(k):
        """2**k for an integer-valued float k within the exponent range."""
        return real(integer((integer(k) + bias) << shift).view(real))

    @pasted
    def log_of_ratio(numerator, denominator, exponent):
        """exponent log 2 + 2 atanh(numerator / denominator)."""
        s = numerator / denominator
        z = s * s
        if wide:
            y = ((((((a23 * z + a21) * z + a19) * z + a17) * z + a15) * z + a13) * z + a11) * z
        else:
            y = a11 * z
        y = ((((y + a9) * z + a7) * z + a5) * z + a3) * z
        return exponent * ln2_hi + (two * s + (s * y + exponent * ln2_lo))

    @pasted
    def log(x):
        """Natural logarithm of a positive normal number."""
        bits = real(x).view(integer)
        exponent = integer(integer(bits - sqrt_half_bits) >> shift)
        m = real(integer(bits - integer(exponent << shift)).view(real))
        return log_of_ratio(m - one, m + one, real(exponent))

    @pasted
    def minus_log_complement(w, complement):
        """-log(1 - w), accurate at both ends; ``complement`` is 1 - w, exact where it is small."""
        bits = real(complement).view(integer)
        exponent = integer(integer(bits - sqrt_half_bits) >> shift)
        m = real(integer(bits - integer(exponent << shift)).view(real))
        near = w < real(0.25)
        numerator = -w if near else m - one
        denominator = two - w if near else m + one
        return -log_of_ratio(numerator, denominator, real(0.0) if near else real(exponent))

    @pasted
    def exp(x):
        """Exponential; infinite above the range, zero below it."""
        k = np.floor(x * log2_e + half)
        k = lowest if k < lowest else k
        k = highest if k > highest else k
        r = (x - k * ln2_hi) - k * ln2_lo
        # A clamped k leaves |r| large; the result is then infinite or zero whatever the polynomial says.
        r = one if r > one else r
        r = -one if r < -one else r
        if wide:
            y = (((((c13 * r + c12) * r + c11) * r + c10) * r + c9) * r + c8) * r
        else:
            y = real(0.0)
        y = ((((((y + c7) * r + c6) * r + c5) * r + c4) * r + c3) * r + c2) * r
        y = (y + one) * r + one
        first = np.floor(k * half)
        return y * power_of_two(first) * power_of_two(k - first)

    @pasted
    def sincos(turns):
        """Sine and cosine of ``turns`` quarter turns (|turns| < 2**22)."""
        k = np.floor(turns + half)
        f = turns - k
        z = f * f
        if wide:
            s = (((s17 * z + s15) * z + s13) * z + s11) * z
            c = (((q16 * z + q14) * z + q12) * z + q10) * z
        else:
            s = real(0.0)
            c = real(0.0)
        s = ((((s + s9) * z + s7) * z + s5) * z + s3) * z
        s = (s + s1) * f
        c = (((c + q8) * z + q6) * z + q4) * z
        c = (c + q2) * z + one
        octant = integer(k)
        swap = (octant & bit_one) != 0
        sine = c if swap else s
        cosine = s if swap else c
        sine = -sine if (octant & bit_two) != 0 else sine
        cosine = -cosine if ((octant + bit_one) & bit_two) != 0 else cosine
        return sine, cosine

    return log, minus_log_complement, exp, sincos


# log 2 in two parts: the first has enough trailing zeros for its product with an exponent to be exact.
log32, minus_log_complement32, exp32, sincos32 = _build(
    np.float32, np.int32, mantissa_bits=23, exponent_bias=127, ln2=(0.693359375, -2.1219444005469058e-4)
)
log64, minus_log_complement64, exp64, sincos64 = _build(
    np.float64,
    np.int64,
    mantissa_bits=52,
    exponent_bias=1023,
    ln2=(0.6931471803691238, 1.9082149292705878e-10),
)
