"""Tiles of i.i.d. noise, (experts, tokens), from counter-based random words.

Light-tailed families spend one 32-bit word on a score. Families whose tail is a power of the uniform (Pareto,
Student t, Cauchy, log-normal), and everything in float64, spend 64 bits, so that extremes are drawn from the
tail itself and not from the grain of the uniform. A uniform comes as the pair (w, c = 1 - w), each with full
relative precision where it is small.
"""

from typing import Any

import numpy as np
from numba.extending import overload

from balancesim.kernels import elementary
from balancesim.kernels.jit import inner, pasted
from balancesim.kernels.model import (
    CAUCHY,
    EXPONENTIAL,
    GUMBEL,
    LOG_NORMAL,
    LOGISTIC,
    NORMAL,
    PARETO,
    STREAM_NOISE,
    STUDENT_T,
    UNIFORM,
)
from balancesim.kernels.philox import philox

_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_STEP_SHIFT = np.uint64(8)


@inner
def draw_words(key0, key1, step, stream, token, group, n_lanes, words):
    """Write the four random words of each lane's counter into ``words`` (4, LANES) uint32.

    Kept out of the loops that use the words, so that Philox is compiled once and not once per family.
    """
    low_step = np.uint64(step) & _LOW
    high_step = (np.uint64(step) >> _HALF) << _STEP_SHIFT
    for t in range(n_lanes):
        x0, x1, x2, x3 = philox(
            np.uint64(token + t), np.uint64(group), low_step, np.uint64(stream) | high_step, key0, key1
        )
        words[0, t] = np.uint32(x0)
        words[1, t] = np.uint32(x1)
        words[2, t] = np.uint32(x2)
        words[3, t] = np.uint32(x3)


@pasted
def join(high, low):
    """One 64-bit word from two of 32."""
    return (np.uint64(high) << _HALF) | np.uint64(low)


def _build(real: Any, minus_log_complement: Any, log: Any, exp: Any, sincos: Any, *, wide: bool) -> Any:
    """Compile the families for one float type."""
    half, one, two, quarter = real(0.5), real(1.0), real(2.0), real(2.0**-30)
    tiny32, tiny64 = real(2.0**-32), real(2.0**-64)
    largest = real(np.finfo(real).max)
    c3, c4, c5 = real(1.0 / 6.0), real(1.0 / 24.0), real(1.0 / 120.0)
    small = real(2.0**-9) if wide else real(2.0**-3)

    @pasted
    def uniform32(word):
        return (real(word) + half) * tiny32, (real(np.uint32(~word)) + half) * tiny32

    @pasted
    def uniform64(word):
        return (real(word) + half) * tiny64, (real(~word) + half) * tiny64

    @pasted
    def angle(high, low):
        """A uniform angle in quarter turns, in [-2, 2)."""
        if wide:
            return real(np.int64(join(high, low))) * real(2.0**-62)
        return real(np.int32(high)) * quarter

    @pasted
    def finite(x):
        return largest if x > largest else x

    @pasted
    def uniform(w, c, shape):
        return w

    @pasted
    def exponential(w, c, shape):
        return minus_log_complement(w, c)

    @pasted
    def gumbel(w, c, shape):
        return -log(minus_log_complement(w, c))

    @pasted
    def logistic(w, c, shape):
        return log(w / c)

    @pasted
    def cauchy(w, c, shape):
        nearer = w if w < c else c
        sine, cosine = sincos(two * nearer)
        magnitude = finite(cosine / sine)
        return -magnitude if w < c else magnitude

    @pasted
    def pareto(w, c, shape):
        return finite(exp(minus_log_complement(w, c) / shape))

    @pasted
    def normal_pair(w, c, turns, shape):
        radius = np.sqrt(two * minus_log_complement(w, c))
        sine, cosine = sincos(turns)
        return radius * sine, radius * cosine

    @pasted
    def log_normal_pair(w, c, turns, shape):
        first, second = normal_pair(w, c, turns, shape)
        return finite(exp(shape * first)), finite(exp(shape * second))

    @pasted
    def student_t(w, c, turns, shape):
        """Bailey's polar form (Math. Comp. 62, 1994): exact for every number of degrees of freedom."""
        x = two * minus_log_complement(w, c) / shape
        # exp(x) - 1 by its series where the subtraction would cancel: x^6/720 is below rounding there.
        series = x * (one + x * (half + x * (c3 + x * (c4 + x * c5))))
        grown = series if x < small else finite(exp(x)) - one
        return finite(np.sqrt(shape * grown)) * sincos(turns)[1]

    def fill_one_word(value: Any) -> Any:
        @inner
        def fill(tile, n_experts, shape, key0, key1, step, token, n_lanes, words):
            a = real(shape)
            for group in range((n_experts + 3) // 4):
                draw_words(key0, key1, step, STREAM_NOISE, token, group, n_lanes, words)
                for i in range(4):
                    for t in range(n_lanes):
                        w, c = uniform32(words[i, t])
                        tile[4 * group + i, t] = value(w, c, a)

        return fill

    def fill_two_words(value: Any) -> Any:
        @inner
        def fill(tile, n_experts, shape, key0, key1, step, token, n_lanes, words):
            a = real(shape)
            for group in range((n_experts + 1) // 2):
                draw_words(key0, key1, step, STREAM_NOISE, token, group, n_lanes, words)
                for i in range(2):
                    for t in range(n_lanes):
                        w, c = uniform64(join(words[2 * i, t], words[2 * i + 1, t]))
                        tile[2 * group + i, t] = value(w, c, a)

        return fill

    @inner
    def fill_normal_one_word(tile, n_experts, shape, key0, key1, step, token, n_lanes, words):
        a = real(shape)
        for group in range((n_experts + 3) // 4):
            draw_words(key0, key1, step, STREAM_NOISE, token, group, n_lanes, words)
            for i in range(0, 4, 2):
                e = 4 * group + i
                for t in range(n_lanes):
                    w, c = uniform32(words[i, t])
                    turns = angle(words[i + 1, t], words[i + 1, t])
                    tile[e, t], tile[e + 1, t] = normal_pair(w, c, turns, a)

    def fill_pair(value: Any) -> Any:
        @inner
        def fill(tile, n_experts, shape, key0, key1, step, token, n_lanes, words):
            a = real(shape)
            for group in range((n_experts + 1) // 2):
                draw_words(key0, key1, step, STREAM_NOISE, token, group, n_lanes, words)
                e = 2 * group
                for t in range(n_lanes):
                    w, c = uniform64(join(words[0, t], words[1, t]))
                    tile[e, t], tile[e + 1, t] = value(w, c, angle(words[2, t], words[3, t]), a)

        return fill

    @inner
    def fill_student_t(tile, n_experts, shape, key0, key1, step, token, n_lanes, words):
        a = real(shape)
        for e in range(n_experts):
            draw_words(key0, key1, step, STREAM_NOISE, token, e, n_lanes, words)
            for t in range(n_lanes):
                w, c = uniform64(join(words[0, t], words[1, t]))
                tile[e, t] = student_t(w, c, angle(words[2, t], words[3, t]), a)

    light = fill_two_words if wide else fill_one_word
    fill_uniform, fill_logistic = light(uniform), light(logistic)
    fill_gumbel, fill_exponential = light(gumbel), light(exponential)
    fill_normal = fill_pair(normal_pair) if wide else fill_normal_one_word
    fill_cauchy, fill_pareto = fill_two_words(cauchy), fill_two_words(pareto)
    fill_log_normal = fill_pair(log_normal_pair)

    @pasted
    def fill_noise(tile, family, n_experts, shape, key0, key1, step, token, n_lanes, words):
        if family == UNIFORM:
            fill_uniform(tile, n_experts, shape, key0, key1, step, token, n_lanes, words)
        elif family == NORMAL:
            fill_normal(tile, n_experts, shape, key0, key1, step, token, n_lanes, words)
        elif family == LOGISTIC:
            fill_logistic(tile, n_experts, shape, key0, key1, step, token, n_lanes, words)
        elif family == GUMBEL:
            fill_gumbel(tile, n_experts, shape, key0, key1, step, token, n_lanes, words)
        elif family == EXPONENTIAL:
            fill_exponential(tile, n_experts, shape, key0, key1, step, token, n_lanes, words)
        elif family == STUDENT_T:
            fill_student_t(tile, n_experts, shape, key0, key1, step, token, n_lanes, words)
        elif family == CAUCHY:
            fill_cauchy(tile, n_experts, shape, key0, key1, step, token, n_lanes, words)
        elif family == LOG_NORMAL:
            fill_log_normal(tile, n_experts, shape, key0, key1, step, token, n_lanes, words)
        elif family == PARETO:
            fill_pareto(tile, n_experts, shape, key0, key1, step, token, n_lanes, words)

    return fill_noise, uniform64, normal_pair, angle


_fill_noise32, _, _, _ = _build(
    np.float32,
    elementary.minus_log_complement32,
    elementary.log32,
    elementary.exp32,
    elementary.sincos32,
    wide=False,
)
_fill_noise64, uniform64, _normal_pair64, _angle64 = _build(
    np.float64,
    elementary.minus_log_complement64,
    elementary.log64,
    elementary.exp64,
    elementary.sincos64,
    wide=True,
)


def fill_noise(tile, family, n_experts, shape, key0, key1, step, token, n_lanes, words):
    """Fill ``tile[:n_experts, :n_lanes]`` with noise of tokens ``token, token + 1, ...`` of one step.

    Rows up to the next multiple of GROUP may be overwritten with further draws; ``words`` (4, LANES) uint32
    is scratch space.
    """
    fill = _fill_noise32 if tile.dtype == np.float32 else _fill_noise64
    fill(tile, family, n_experts, shape, key0, key1, step, token, n_lanes, words)


@overload(fill_noise, inline="always")
def _fill_noise(tile, family, n_experts, shape, key0, key1, step, token, n_lanes, words):
    fill = _fill_noise32 if tile.dtype.bitwidth == 32 else _fill_noise64

    def chosen(tile, family, n_experts, shape, key0, key1, step, token, n_lanes, words):
        fill(tile, family, n_experts, shape, key0, key1, step, token, n_lanes, words)

    return chosen


@inner
def normals(key0, key1, step, stream, token, group, n_lanes, words, first, second):
    """Write two independent standard normals a lane, in float64, for one group of counters."""
    draw_words(key0, key1, step, stream, token, group, n_lanes, words)
    for t in range(n_lanes):
        w, c = uniform64(join(words[0, t], words[1, t]))
        first[t], second[t] = _normal_pair64(w, c, _angle64(words[2, t], words[3, t]), 0.0)
