// Tiles of scores in shared memory, and how a warp chooses from them.
//
// A warp takes TOKENS = 32 / LANES tokens at a time; LANES neighbouring lanes share a token, each with SLOTS
// of its experts: lane `token * LANES + part` holds experts `part * SLOTS ...`, in a row of STRIDE numbers of
// which the last 16 bytes only keep rows on different banks. Experts past the last are minus infinity.
//
// Macros: REAL, RANKS (1, 2, 4, 8 or 16, at least K), LANES, SLOTS (a multiple of 8, and of RANKS).

constexpr u32 ALL = 0xffffffffu;
constexpr int TOKENS = 32 / LANES;
constexpr int PAD = 16 / sizeof(REAL);
constexpr int STRIDE = SLOTS + PAD;
constexpr int CHUNK = RANKS > 4 ? RANKS : 4;
constexpr int COUNTS = (SLOTS + TOKENS - 1) / TOKENS;

__device__ __forceinline__ REAL infinity() {
    if constexpr (sizeof(REAL) == 4) return bits_as((i32)0x7f800000);
    else return bits_as((i64)0x7ff0000000000000LL);
}

__device__ __forceinline__ float fused(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double fused(double a, double b, double c) { return fma(a, b, c); }

struct Place {
    int lane, token, part;
    __device__ __forceinline__ Place() : lane(threadIdx.x % 32), token(lane / LANES), part(lane % LANES) {}
};

// Where an expert of a token lies in a tile.
__device__ __forceinline__ int cell_of(int token, int expert) {
    return (token * LANES + expert / SLOTS) * STRIDE + expert % SLOTS;
}

// Where an expert's bias lies: one row a part.
__device__ __forceinline__ int bias_cell_of(int expert) { return expert / SLOTS * STRIDE + expert % SLOTS; }

__device__ __forceinline__ void read4(const REAL* from, REAL* to) {
    if constexpr (sizeof(REAL) == 4) {
        float4 x = *reinterpret_cast<const float4*>(from);
        to[0] = x.x, to[1] = x.y, to[2] = x.z, to[3] = x.w;
    } else {
        double2 x = reinterpret_cast<const double2*>(from)[0], y = reinterpret_cast<const double2*>(from)[1];
        to[0] = x.x, to[1] = x.y, to[2] = y.x, to[3] = y.y;
    }
}

__device__ __forceinline__ int sum_of_token(int x) {
#pragma unroll
    for (int apart = 1; apart < LANES; apart *= 2) x += __shfl_xor_sync(ALL, x, apart);
    return x;
}

__device__ __forceinline__ double sum_of_token(double x) {
#pragma unroll
    for (int apart = 1; apart < LANES; apart *= 2) x += __shfl_xor_sync(ALL, x, apart);
    return x;
}

// Sum over the lower parts of the same token.
__device__ __forceinline__ int sum_before(int x, int part) {
    int total = x;
#pragma unroll
    for (int apart = 1; apart < LANES; apart *= 2) {
        int other = __shfl_up_sync(ALL, total, apart, LANES);
        if (part >= apart) total += other;
    }
    return total - x;
}

__device__ __forceinline__ double sum_of_warp(double x) {
#pragma unroll
    for (int apart = 16; apart >= 1; apart /= 2) x += __shfl_xor_sync(ALL, x, apart);
    return x;
}

// The K largest biased scores of a token, descending; all its lanes end up with them. Returns whether a score
// of this lane is NaN or plus infinity.
//
// Zero times a number is summed by fused multiply-adds, whose pipe has nothing else to do: NaN only where a
// score is not finite, which is then looked at again.
__device__ __forceinline__ bool find_top(const REAL* row, const REAL* bias, REAL (&top)[RANKS]) {
    REAL nothing = REAL(0);
#pragma unroll
    for (int i = 0; i < RANKS; ++i) top[i] = -infinity();
#pragma unroll 2
    for (int slot = 0; slot < SLOTS; slot += CHUNK) {
        REAL x[CHUNK], b[4];
#pragma unroll
        for (int i = 0; i < CHUNK; i += 4) {
            read4(row + slot + i, x + i);
            read4(bias + slot + i, b);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                nothing = fused(x[i + j], REAL(0), nothing);
                x[i + j] += b[j];
            }
        }
#pragma unroll
        for (int i = 0; i < CHUNK; i += RANKS) {
            REAL some[RANKS];
#pragma unroll
            for (int j = 0; j < RANKS; ++j) some[j] = x[i + j];
            absorb<REAL, RANKS>(top, some);
        }
    }
#pragma unroll
    for (int apart = 1; apart < LANES; apart *= 2) {
        REAL other[RANKS];
#pragma unroll
        for (int i = 0; i < RANKS; ++i) other[i] = __shfl_xor_sync(ALL, top[RANKS - 1 - i], apart);
#pragma unroll
        for (int i = 0; i < RANKS; ++i) top[i] = larger(top[i], other[i]);
        merge_bitonic<REAL, RANKS>(top);
    }
    bool is_bad = false;
    if (nothing != REAL(0)) {
        for (int slot = 0; slot < SLOTS; ++slot) is_bad |= !(row[slot] <= Constants<REAL>::largest);
    }
    return is_bad;
}

__device__ __forceinline__ REAL kth(const REAL (&top)[RANKS], int k) {
    REAL x = top[0];
#pragma unroll
    for (int i = 1; i < RANKS; ++i) x = i < k ? top[i] : x;
    return x;
}

// Transpose a matrix of 32 x 32 bits, a row a lane.
__device__ __forceinline__ u32 transposed(u32 x, int lane) {
    constexpr u32 lower[5] = {0x0000ffffu, 0x00ff00ffu, 0x0f0f0f0fu, 0x33333333u, 0x55555555u};
#pragma unroll
    for (int i = 0; i < 5; ++i) {
        const int apart = 16 >> i;
        const u32 other = __shfl_xor_sync(ALL, x, apart);
        const bool is_upper = (lane & apart) != 0;
        const u32 kept = is_upper ? ~lower[i] : lower[i];
        x = (x & kept) | ((is_upper ? other >> apart : other << apart) & ~kept);
    }
    return x;
}

// How many of the warp's tokens reach their threshold with each expert. Lane `token * LANES + part` gets
// experts `part * SLOTS + token`, `... + TOKENS` and so on; tokens that are not there have an infinite
// threshold. Returns the warp's total.
__device__ __forceinline__ int count_reached(
    const REAL* row, const REAL* bias, REAL threshold, Place at, int (&counts)[COUNTS]
) {
    u32 own = 0;
#pragma unroll
    for (int token = 0; token < TOKENS; ++token) own |= 1u << (token * LANES);
    own <<= at.part;
    int total = 0;
    u32 word = 0;
#pragma unroll
    for (int slot = 0; slot < SLOTS; slot += 4) {
        REAL x[4], b[4];
        read4(row + slot, x);
        read4(bias + slot, b);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const bool reaches = x[i] + b[i] >= threshold;
            const int bit = (slot + i) % TOKENS;
            if constexpr (LANES == 1) {
                if (reaches) word |= 1u << bit;
            } else {
                const u32 votes = __ballot_sync(ALL, reaches);
                if (at.token == bit) word = votes & own;
            }
            if (bit == TOKENS - 1 || slot + i == SLOTS - 1) {
                if constexpr (LANES == 1) word = transposed(word, at.lane);
                counts[(slot + i) / TOKENS] = __popc(word);
                total += counts[(slot + i) / TOKENS];
                word = 0;
            }
        }
    }
    return __reduce_add_sync(ALL, total);
}

// Which of a lane's experts are chosen when some tie at the K-th place: those of lower index.
struct Choice {
    REAL threshold;
    int room, before;  // for ties in this lane; experts chosen in lower parts

    __device__ __forceinline__ Choice(const REAL* row, const REAL* bias, REAL kth_largest, int k, Place at)
        : threshold(kth_largest) {
        int above = 0, equal = 0;
        for (int slot = 0; slot < SLOTS; ++slot) {
            REAL x = row[slot] + bias[slot];
            above += x > threshold;
            equal += x == threshold;
        }
        int left = k - sum_of_token(above);
        int tied_before = sum_before(equal, at.part);
        before = sum_before(above, at.part) + min(tied_before, left);
        room = max(left - tied_before, 0);
    }

    __device__ __forceinline__ bool takes(REAL biased) {
        if (biased > threshold) return true;
        return biased == threshold && room-- > 0;
    }
};

// What a token gains by choosing under one bias and not another (S5's membership form): this lane's part.
__device__ __noinline__ double difference_by_members(
    const REAL* row, int k, const REAL* p, REAL p_kth, const REAL* q, REAL q_kth, Place at
) {
    Choice with_p(row, p, p_kth, k, at), with_q(row, q, q_kth, k, at);
    double gained = 0.0, lost = 0.0, shared = 0.0;
    for (int slot = 0; slot < SLOTS; ++slot) {
        REAL x = row[slot] + p[slot], y = row[slot] + q[slot];
        bool by_p = with_p.takes(x), by_q = with_q.takes(y);
        if (by_p && by_q) shared += (double)p[slot] - (double)q[slot];
        else if (by_p) gained += (double)x;
        else if (by_q) lost += (double)y;
    }
    return (gained - lost) + shared;
}
