// Routing for any K and any number of experts: a warp a token, and the K-th largest by bisection of its bits.
//
// Macros: REAL, WARPS. `histogram` is in shared memory where SHARED is 1, else loads are counted in place.

constexpr u32 ALL = 0xffffffffu;
constexpr bool IS_WIDE = sizeof(REAL) == 8;

// An integer in the order of the number; both zeros are the same.
__device__ __forceinline__ u64 key_of(REAL x) {
    x += REAL(0);
    if constexpr (IS_WIDE) {
        u64 bits = (u64)bits_of((double)x);
        return bits ^ (bits >> 63 ? ~0ull : 1ull << 63);
    } else {
        u32 bits = (u32)bits_of((float)x);
        return bits ^ (bits >> 31 ? ~0u : 1u << 31);
    }
}

// As in route.cu; experts may be null.
extern "C" __global__ void __launch_bounds__(32 * WARPS) route_any(
    const REAL* __restrict__ scores, i64 n_tokens, int n_experts, int k, const REAL* __restrict__ bias,
    u64* loads, double* values, u32* flags, i64* experts
) {
    DYNAMIC_SHARED(memory);
    u32* histogram = reinterpret_cast<u32*>(memory);
    STATIC_SHARED(double, sums, WARPS);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (SHARED) {
        for (int e = threadIdx.x; e < n_experts; e += 32 * WARPS) histogram[e] = 0;
        __syncthreads();
    }
    const u64 nothing = key_of(IS_WIDE ? (REAL)bits_as((i64)0xfff0000000000000ull) : (REAL)bits_as((i32)0xff800000u));
    double value = 0.0;
    u32 flag = 0;
    for (i64 token = (i64)blockIdx.x * WARPS + warp; token < n_tokens; token += (i64)gridDim.x * WARPS) {
        const REAL* row = scores + token * n_experts;
        u64 kth = 0;
        for (int bit = IS_WIDE ? 63 : 31; bit >= 0; --bit) {
            const u64 wanted = kth | 1ull << bit;
            int reached = 0;
            for (int e = lane; e < n_experts; e += 32) reached += key_of(row[e] + bias[e]) >= wanted;
            if (__reduce_add_sync(ALL, reached) >= k) kth = wanted;
        }
        int above = 0;
        for (int e = lane; e < n_experts; e += 32) {
            above += key_of(row[e] + bias[e]) > kth;
            if (!(row[e] <= Constants<REAL>::largest)) flag |= 1u;
        }
        if (kth == nothing) flag |= 2u;
        int room = k - __reduce_add_sync(ALL, above), place = 0;
        for (int first = 0; first < n_experts; first += 32) {
            const int e = first + lane;
            const REAL x = e < n_experts ? row[e] + bias[e] : REAL(0);
            const u64 key = e < n_experts ? key_of(x) : 0;
            const u32 ties = __ballot_sync(ALL, e < n_experts && key == kth);
            const int tied_before = __popc(ties & ((1u << lane) - 1u));
            const bool is_chosen = e < n_experts && (key > kth || (key == kth && tied_before < room));
            const u32 chosen = __ballot_sync(ALL, is_chosen);
            const int own = place + __popc(chosen & ((1u << lane) - 1u));
            if (is_chosen && own < k) {
                value += (double)x;
                if (SHARED) atomicAdd(histogram + e, 1u);
                else atomicAdd(loads + e, 1ull);
                if (experts) experts[token * k + own] = e;
            }
            room = max(room - __popc(ties), 0);
            place += __popc(chosen);
        }
    }
#pragma unroll
    for (int apart = 16; apart >= 1; apart /= 2) value += __shfl_xor_sync(ALL, value, apart);
    if (lane == 0) sums[warp] = value;
    if (flag) atomicOr(flags, flag);
    __syncthreads();
    if (SHARED) {
        for (int e = threadIdx.x; e < n_experts; e += 32 * WARPS) {
            if (histogram[e]) atomicAdd(loads + e, (u64)histogram[e]);
        }
    }
    if (threadIdx.x == 0) {
        double total = 0.0;
        for (int w = 0; w < WARPS; ++w) total += sums[w];
        values[blockIdx.x] = total;
    }
}
