// The arithmetic of balancesim.kernels.philox, .elementary and .noise, step by step: the same bits.
//
// Plain C++ but for the lines under DEVICE, so that it is also compiled for the processor, where its bits are
// held against those of the Numba kernels. No multiply-add may be fused (--fmad=false, -ffp-contract=off).
// Constants<float> and Constants<double> come before this file, generated from the formulas that the Numba
// kernels use.


#ifdef __CUDACC__
#define DEVICE __device__ __forceinline__
// Shared memory of a block: as much as the launch asks for, and arrays of a fixed size.
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#define STATIC_SHARED(type, name, count) __shared__ type name[count]
DEVICE float bits_as(i32 x) { return __int_as_float(x); }
DEVICE double bits_as(i64 x) { return __longlong_as_double(x); }
DEVICE i32 bits_of(float x) { return __float_as_int(x); }
DEVICE i64 bits_of(double x) { return __double_as_longlong(x); }
DEVICE float larger(float a, float b) { return fmaxf(a, b); }
DEVICE float smaller(float a, float b) { return fminf(a, b); }
#else
#include <cmath>
#include <cstring>
#define DEVICE static inline
DEVICE float bits_as(i32 x) { float y; std::memcpy(&y, &x, 4); return y; }
DEVICE double bits_as(i64 x) { double y; std::memcpy(&y, &x, 8); return y; }
DEVICE i32 bits_of(float x) { i32 y; std::memcpy(&y, &x, 4); return y; }
DEVICE i64 bits_of(double x) { i64 y; std::memcpy(&y, &x, 8); return y; }
DEVICE float larger(float a, float b) { return a > b ? a : b; }
DEVICE float smaller(float a, float b) { return a > b ? b : a; }
#endif
DEVICE double larger(double a, double b) { return a > b ? a : b; }
DEVICE double smaller(double a, double b) { return a > b ? b : a; }
DEVICE float floor_of(float x) { return floorf(x); }
DEVICE double floor_of(double x) { return floor(x); }
DEVICE float root_of(float x) { return sqrtf(x); }
DEVICE double root_of(double x) { return sqrt(x); }

// ---- Philox4x32-10 ------------------------------------------------------------------------------------

struct Words {
    u32 x0, x1, x2, x3;
};

DEVICE Words philox(u32 c0, u32 c1, u32 c2, u32 c3, u32 k0, u32 k1) {
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int round = 0; round < 10; ++round) {
        u64 first = (u64)0xD2511F53u * c0;
        u64 second = (u64)0xCD9E8D57u * c2;
        c0 = (u32)(second >> 32) ^ c1 ^ k0;
        c1 = (u32)second;
        c2 = (u32)(first >> 32) ^ c3 ^ k1;
        c3 = (u32)first;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {c0, c1, c2, c3};
}

DEVICE Words draw_words(u32 key0, u32 key1, u64 step, u32 stream, u32 token, u32 group) {
    return philox(token, group, (u32)step, stream | ((u32)(step >> 32) << 8), key0, key1);
}

DEVICE u64 join(u32 high, u32 low) { return ((u64)high << 32) | low; }

// ---- Logarithm, exponential, sine and cosine ----------------------------------------------------------

template <class R> DEVICE R power_of_two(R k) {
    using C = Constants<R>;
    return bits_as((typename C::Integer)(((typename C::Integer)k + C::bias) << C::shift));
}

template <class R> DEVICE R log_of_ratio(R numerator, R denominator, R exponent) {
    using C = Constants<R>;
    R s = numerator / denominator;
    R z = s * s;
    R y;
    if constexpr (C::wide) {
        y = ((((((C::a23 * z + C::a21) * z + C::a19) * z + C::a17) * z + C::a15) * z + C::a13) * z + C::a11) * z;
    } else {
        y = C::a11 * z;
    }
    y = ((((y + C::a9) * z + C::a7) * z + C::a5) * z + C::a3) * z;
    return exponent * C::ln2_hi + (R(2) * s + (s * y + exponent * C::ln2_lo));
}

template <class R> DEVICE void split(R x, R& mantissa, R& exponent) {
    using C = Constants<R>;
    typename C::Integer bits = bits_of(x);
    typename C::Integer power = (bits - C::sqrt_half_bits) >> C::shift;
    mantissa = bits_as((typename C::Integer)(bits - (typename C::Integer)((typename C::Unsigned)power << C::shift)));
    exponent = (R)power;
}

// Natural logarithm of a positive normal number.
template <class R> DEVICE R log_of(R x) {
    R m, exponent;
    split(x, m, exponent);
    return log_of_ratio(m - R(1), m + R(1), exponent);
}

// -log(1 - w), accurate at both ends; `complement` is 1 - w, exact where it is small.
template <class R> DEVICE R minus_log_complement(R w, R complement) {
    R m, exponent;
    split(complement, m, exponent);
    bool near = w < R(0.25);
    R numerator = near ? -w : m - R(1);
    R denominator = near ? R(2) - w : m + R(1);
    return -log_of_ratio(numerator, denominator, near ? R(0) : exponent);
}

template <class R> DEVICE R exp_of(R x) {
    using C = Constants<R>;
    R k = floor_of(x * C::log2_e + R(0.5));
    k = k < C::lowest ? C::lowest : k;
    k = k > C::highest ? C::highest : k;
    R r = (x - k * C::ln2_hi) - k * C::ln2_lo;
    r = r > R(1) ? R(1) : r;
    r = r < R(-1) ? R(-1) : r;
    R y;
    if constexpr (C::wide) {
        y = (((((C::c13 * r + C::c12) * r + C::c11) * r + C::c10) * r + C::c9) * r + C::c8) * r;
    } else {
        y = R(0);
    }
    y = ((((((y + C::c7) * r + C::c6) * r + C::c5) * r + C::c4) * r + C::c3) * r + C::c2) * r;
    y = (y + R(1)) * r + R(1);
    R first = floor_of(k * R(0.5));
    return y * power_of_two(first) * power_of_two(k - first);
}

// Sine and cosine of `turns` quarter turns.
template <class R> DEVICE void sincos_of(R turns, R& sine, R& cosine) {
    using C = Constants<R>;
    R k = floor_of(turns + R(0.5));
    R f = turns - k;
    R z = f * f;
    R s, c;
    if constexpr (C::wide) {
        s = (((C::s17 * z + C::s15) * z + C::s13) * z + C::s11) * z;
        c = (((C::q16 * z + C::q14) * z + C::q12) * z + C::q10) * z;
    } else {
        s = R(0);
        c = R(0);
    }
    s = ((((s + C::s9) * z + C::s7) * z + C::s5) * z + C::s3) * z;
    s = (s + C::s1) * f;
    c = (((c + C::q8) * z + C::q6) * z + C::q4) * z;
    c = (c + C::q2) * z + R(1);
    typename C::Integer octant = (typename C::Integer)k;
    bool swap = (octant & 1) != 0;
    sine = swap ? c : s;
    cosine = swap ? s : c;
    sine = (octant & 2) != 0 ? -sine : sine;
    cosine = ((octant + 1) & 2) != 0 ? -cosine : cosine;
}

// ---- Noise --------------------------------------------------------------------------------------------

enum { NO_NOISE, UNIFORM, NORMAL, LOGISTIC, GUMBEL, EXPONENTIAL, STUDENT_T, CAUCHY, LOG_NORMAL, PARETO };
enum { RAW, SIGMOID, SOFTMAX };
enum { NO_ROWS, DRAWN_ROWS, NEXT_ROWS };
enum { STREAM_NOISE, STREAM_ROW, STREAM_FACTOR, STREAM_WALK };

template <class R> DEVICE void uniform32(u32 word, R& w, R& c) {
    const R tiny = R(0x1p-32);
    w = ((R)word + R(0.5)) * tiny;
    c = ((R)(u32)(~word) + R(0.5)) * tiny;
}

template <class R> DEVICE void uniform64(u64 word, R& w, R& c) {
    const R tiny = R(0x1p-64);
    w = ((R)word + R(0.5)) * tiny;
    c = ((R)(u64)(~word) + R(0.5)) * tiny;
}

// A uniform angle in quarter turns, in [-2, 2).
template <class R> DEVICE R angle(u32 high, u32 low) {
    if constexpr (Constants<R>::wide) {
        return (R)(i64)join(high, low) * R(0x1p-62);
    } else {
        return (R)(i32)high * R(0x1p-30);
    }
}

template <class R> DEVICE R bounded(R x) { return x > Constants<R>::largest ? Constants<R>::largest : x; }

template <class R> DEVICE void normal_pair(R w, R c, R turns, R& first, R& second) {
    R radius = root_of(R(2) * minus_log_complement(w, c));
    R sine, cosine;
    sincos_of(turns, sine, cosine);
    first = radius * sine;
    second = radius * cosine;
}

// Bailey's polar form (Math. Comp. 62, 1994).
template <class R> DEVICE R student_t(R w, R c, R turns, R shape) {
    using C = Constants<R>;
    R x = R(2) * minus_log_complement(w, c) / shape;
    R series = x * (R(1) + x * (R(0.5) + x * (C::c3 + x * (C::c4 + x * C::c5))));
    R grown = x < C::small ? series : bounded(exp_of(x)) - R(1);
    R sine, cosine;
    sincos_of(turns, sine, cosine);
    return bounded(root_of(shape * grown)) * cosine;
}

template <class R, int KIND> DEVICE R one_of(R w, R c, R shape) {
    if constexpr (KIND == UNIFORM) {
        return w;
    } else if constexpr (KIND == EXPONENTIAL) {
        return minus_log_complement(w, c);
    } else if constexpr (KIND == GUMBEL) {
        return -log_of(minus_log_complement(w, c));
    } else if constexpr (KIND == LOGISTIC) {
        return log_of(w / c);
    } else if constexpr (KIND == CAUCHY) {
        R sine, cosine;
        sincos_of(R(2) * (w < c ? w : c), sine, cosine);
        R magnitude = bounded(cosine / sine);
        return w < c ? -magnitude : magnitude;
    } else {
        return bounded(exp_of(minus_log_complement(w, c) / shape));
    }
}

// How many experts one counter of random words is for.
template <class R, int KIND> DEVICE constexpr int per_counter() {
    return KIND == STUDENT_T                                                  ? 1
           : KIND == LOG_NORMAL || KIND == CAUCHY || KIND == PARETO       ? 2
           : Constants<R>::wide && KIND != NO_NOISE                           ? 2
                                                                                : 4;
}

// Standard noise of the experts of one counter.
template <class R, int KIND> DEVICE void make_noise(Words x, R shape, R* noise) {
    R w, c;
    if constexpr (KIND == STUDENT_T) {
        uniform64(join(x.x0, x.x1), w, c);
        noise[0] = student_t(w, c, angle<R>(x.x2, x.x3), shape);
    } else if constexpr (KIND == LOG_NORMAL || (KIND == NORMAL && Constants<R>::wide)) {
        uniform64(join(x.x0, x.x1), w, c);
        normal_pair(w, c, angle<R>(x.x2, x.x3), noise[0], noise[1]);
        if constexpr (KIND == LOG_NORMAL) {
            noise[0] = bounded(exp_of(shape * noise[0]));
            noise[1] = bounded(exp_of(shape * noise[1]));
        }
    } else if constexpr (KIND == NORMAL) {
        uniform32(x.x0, w, c);
        normal_pair(w, c, angle<R>(x.x1, x.x1), noise[0], noise[1]);
        uniform32(x.x2, w, c);
        normal_pair(w, c, angle<R>(x.x3, x.x3), noise[2], noise[3]);
    } else if constexpr (per_counter<R, KIND>() == 2) {
        uniform64(join(x.x0, x.x1), w, c);
        noise[0] = one_of<R, KIND>(w, c, shape);
        uniform64(join(x.x2, x.x3), w, c);
        noise[1] = one_of<R, KIND>(w, c, shape);
    } else if constexpr (KIND != NO_NOISE) {
        uniform32(x.x0, w, c);
        noise[0] = one_of<R, KIND>(w, c, shape);
        uniform32(x.x1, w, c);
        noise[1] = one_of<R, KIND>(w, c, shape);
        uniform32(x.x2, w, c);
        noise[2] = one_of<R, KIND>(w, c, shape);
        uniform32(x.x3, w, c);
        noise[3] = one_of<R, KIND>(w, c, shape);
    }
}

// Two independent standard normals in float64 for one counter.
DEVICE void normals(u32 key0, u32 key1, u64 step, u32 stream, u32 token, u32 group, double& first, double& second) {
    Words x = draw_words(key0, key1, step, stream, token, group);
    double w, c;
    uniform64(join(x.x0, x.x1), w, c);
    normal_pair(w, c, angle<double>(x.x2, x.x3), first, second);
}
