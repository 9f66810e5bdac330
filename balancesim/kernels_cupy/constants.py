"""The numbers that the card's arithmetic shares with `balancesim.kernels.elementary`, as C++ text.

Hexadecimal literals, so that no digit is lost; the tests hold the bits of all functions against each other.
"""

import math
from typing import Any

import numpy as np


def _members(real: Any, **values: float) -> str:
    """Static members of one float type; a value is rounded to the type first, as the Numba kernels do."""
    name, suffix = ("float", "f") if real is np.float32 else ("double", "")
    texts = {key: f"{float(real(value)).hex()}{suffix}" for key, value in values.items()}
    return "\n".join(f"    static constexpr {name} {key} = {text};" for key, text in texts.items())


def _constants(real: Any, *, mantissa_bits: int, exponent_bias: int, ln2: tuple[float, float]) -> str:
    wide = mantissa_bits > 23
    width = 64 if wide else 32
    integer = np.int64 if wide else np.int32
    quarter = math.pi / 2.0
    taylor = {
        **{f"a{n}": 2.0 / n for n in range(3, 24, 2)},
        **{f"c{n}": 1.0 / math.factorial(n) for n in range(2, 14)},
        **{f"s{n}": (-1) ** (n // 2) * quarter**n / math.factorial(n) for n in range(1, 18, 2)},
        **{f"q{n}": (-1) ** (n // 2) * quarter**n / math.factorial(n) for n in range(2, 17, 2)},
    }
    members = _members(
        real,
        ln2_hi=ln2[0],
        ln2_lo=ln2[1],
        log2_e=1.0 / math.log(2.0),
        lowest=-2 * exponent_bias + 2,
        highest=2 * exponent_bias,
        largest=float(np.finfo(real).max),
        small=2.0**-9 if wide else 2.0**-3,
        **taylor,
    )
    sqrt_half = int(real(math.sqrt(0.5)).view(integer))
    return f"""template <> struct Constants<{"double" if wide else "float"}> {{
    using Integer = i{width};
    using Unsigned = u{width};
    static constexpr bool wide = {"true" if wide else "false"};
    static constexpr int shift = {mantissa_bits};
    static constexpr i{width} bias = {exponent_bias};
    static constexpr i{width} sqrt_half_bits = {sqrt_half}{"ll" if wide else ""};
{members}
}};
"""


def constants() -> str:
    """Return the types and constants that ``arithmetic.cuh`` builds on.

    Returns
    -------
    str
        C++ source.
    """
    return (
        "using u32 = unsigned int;\nusing i32 = int;\n"
        "using u64 = unsigned long long;\nusing i64 = long long;\n"
        "template <class R> struct Constants;\n"
        + _constants(
            np.float32, mantissa_bits=23, exponent_bias=127, ln2=(0.693359375, -2.1219444005469058e-4)
        )
        + _constants(
            np.float64,
            mantissa_bits=52,
            exponent_bias=1023,
            ln2=(0.6931471803691238, 1.9082149292705878e-10),
        )
    )
