"""The card's arithmetic compiled for the processor: the same text, behind a few lines that call it."""

import ctypes
from functools import cache

import numpy as np

from balancesim.kernels_cupy.constants import constants
from balancesim.kernels_cupy.program import source_text
from tests.kernels_cupy import compiled

_CALLS = """
template <class R, int KIND> void fill_one(long long n_tokens, long long n_experts, double shape, u32 key0,
                                           u32 key1, u64 step, u32 token, R* noise) {
    constexpr int per = per_counter<R, KIND>();
    for (long long t = 0; t < n_tokens; ++t) {
        for (long long e = 0; e < n_experts; e += per) {
            R x[per];
            make_noise<R, KIND>(draw_words(key0, key1, step, STREAM_NOISE, token + t, e / per), (R)shape, x);
            for (int i = 0; i < per && e + i < n_experts; ++i) noise[t * n_experts + e + i] = x[i];
        }
    }
}

template <class R> void fill_any(int family, long long n_tokens, long long n_experts, double shape, u32 key0,
                                 u32 key1, u64 step, u32 token, R* noise) {
    switch (family) {
#define CASE(KIND) \\
    case KIND: \\
        return fill_one<R, KIND>(n_tokens, n_experts, shape, key0, key1, step, token, noise);
        CASE(UNIFORM) CASE(NORMAL) CASE(LOGISTIC) CASE(GUMBEL) CASE(EXPONENTIAL)
        CASE(STUDENT_T) CASE(CAUCHY) CASE(LOG_NORMAL) CASE(PARETO)
    }
}

template <class R> void elementary(int which, long long n, const R* x, R* y) {
    for (long long i = 0; i < n; ++i) {
        R sine, cosine;
        sincos_of(x[i], sine, cosine);
        y[i] = which == 0 ? log_of(x[i]) : which == 1 ? exp_of(x[i]) : which == 2 ? sine : cosine;
    }
}

template <class R, int N> void top_of(long long n_tokens, long long n_experts, const R* scores, R* top) {
    for (long long t = 0; t < n_tokens; ++t) {
        R best[N];
        for (int i = 0; i < N; ++i) best[i] = -HUGE_VAL;
        for (long long e = 0; e < n_experts; e += N) {
            R some[N];
            for (int i = 0; i < N; ++i) {
                some[i] = e + i < n_experts ? scores[t * n_experts + e + i] : -HUGE_VAL;
            }
            absorb<R, N>(best, some);
        }
        for (int i = 0; i < N; ++i) top[t * N + i] = best[i];
    }
}

template <class R> void top_any(int ranks, long long n_tokens, long long n_experts, const R* scores, R* top) {
    switch (ranks) {
        case 1: return top_of<R, 1>(n_tokens, n_experts, scores, top);
        case 2: return top_of<R, 2>(n_tokens, n_experts, scores, top);
        case 4: return top_of<R, 4>(n_tokens, n_experts, scores, top);
        case 8: return top_of<R, 8>(n_tokens, n_experts, scores, top);
        case 16: return top_of<R, 16>(n_tokens, n_experts, scores, top);
    }
}

extern "C" {
void words(u32 c0, u32 c1, u32 c2, u32 c3, u32 k0, u32 k1, u32* out) {
    Words x = philox(c0, c1, c2, c3, k0, k1);
    out[0] = x.x0, out[1] = x.x1, out[2] = x.x2, out[3] = x.x3;
}
#define BOTH(R, SUFFIX) \\
    void fill##SUFFIX(int family, long long n_tokens, long long n_experts, double shape, u32 key0, \\
                      u32 key1, u64 step, u32 token, R* noise) { \\
        fill_any<R>(family, n_tokens, n_experts, shape, key0, key1, step, token, noise); \\
    } \\
    void elementary##SUFFIX(int which, long long n, const R* x, R* y) { elementary<R>(which, n, x, y); } \\
    void top##SUFFIX(int ranks, long long n_tokens, long long n_experts, const R* scores, R* top) { \\
        top_any<R>(ranks, n_tokens, n_experts, scores, top); \\
    }
BOTH(float, 32)
BOTH(double, 64)
}
"""


@cache
def library(replaced="", by=""):
    """Compile and load, with some text replaced; no multiply-add may be fused, as on the card."""
    text = constants() + source_text("arithmetic.cuh") + source_text("largest.cuh") + _CALLS
    assert replaced in text
    text = text.replace(replaced, by) if replaced else text
    return compiled.load("host", text, ["-O2", "-Wno-unknown-pragmas"])


def pointer(array):
    return ctypes.c_void_p(array.ctypes.data)


def suffix(dtype):
    return 8 * np.dtype(dtype).itemsize


def noise(family, dtype, shape, n_experts, parameter, keys, step, token, *change):
    """Standard noise, (T, E), by the card's text, or by a changed one."""
    made = np.full((shape, n_experts), np.nan, dtype)
    call = getattr(library(*change), f"fill{suffix(dtype)}")
    call(
        family, ctypes.c_longlong(shape), ctypes.c_longlong(n_experts), ctypes.c_double(parameter),
        ctypes.c_uint(int(keys[0])), ctypes.c_uint(int(keys[1])), ctypes.c_ulonglong(step),
        ctypes.c_uint(token), pointer(made),
    )  # fmt: skip
    return made


def elementary(which, values):
    """Logarithm, exponential, sine or cosine by the card's text."""
    made = np.empty_like(values)
    call = getattr(library(), f"elementary{suffix(values.dtype)}")
    code = ("log", "exp", "sin", "cos").index(which)
    call(code, ctypes.c_longlong(values.size), pointer(values), pointer(made))
    return made


def top(ranks, scores):
    """The largest of each row, descending, by the card's text."""
    made = np.empty((scores.shape[0], ranks), scores.dtype)
    call = getattr(library(), f"top{suffix(scores.dtype)}")
    call(ranks, *(ctypes.c_longlong(n) for n in scores.shape), pointer(scores), pointer(made))
    return made


def words(counter, keys):
    """Four random words by the card's text."""
    made = np.empty(4, np.uint32)
    library().words(*(ctypes.c_uint(int(x)) for x in (*counter, *keys)), pointer(made))
    return made
