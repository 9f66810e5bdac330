// Routing of scores that lie in the card's memory: loads and the dual's top-K sum in one pass.
//
// Further macros: WARPS a block, VECTOR (1 where rows are whole 16-byte pieces on 16-byte addresses),
// CHOICE (1 where the experts themselves are wanted).

#if VECTOR
constexpr int PIECE = 16 / sizeof(REAL);
#else
constexpr int PIECE = 1;
#endif

// Copies that a warp starts together and waits for together.
#ifdef __CUDACC__
__device__ __forceinline__ void copy_piece(REAL* to, const REAL* from) {
    u32 address = (u32)__cvta_generic_to_shared(to);
    if constexpr (VECTOR) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from));
    } else if constexpr (sizeof(REAL) == 8) {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(address), "l"(from));
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(address), "l"(from));
    }
}

__device__ __forceinline__ void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }
#else
__device__ __forceinline__ void copy_piece(REAL* to, const REAL* from) {
    for (int i = 0; i < PIECE; ++i) to[i] = from[i];
}

__device__ __forceinline__ void wait_for_copies() {}
#endif

// Copies a warp's tokens, which are contiguous in memory, piece by piece.
struct Copier {
    int columns, row, column, row_step, column_step;

    __device__ __forceinline__ Copier(int n_experts, int lane) : columns(n_experts / PIECE) {
        row = lane / columns, column = lane % columns;
        row_step = 32 / columns, column_step = 32 % columns;
    }

    __device__ __forceinline__ void start(const REAL* from, int n_tokens, REAL* tile, int lane) const {
        int r = row, c = column, n = n_tokens * columns;
        const REAL* source = from + lane * PIECE;
        for (int i = lane; i < n; i += 32) {
            copy_piece(tile + cell_of(r, c * PIECE), source);
            source += 32 * PIECE;
            r += row_step, c += column_step;
            if (c >= columns) c -= columns, ++r;
        }
    }
};

// loads (E,) is added to; values (blocks,) and flags (1,) are written: 1 where a score is NaN or plus
// infinity, 2 where a token has fewer than K experts. experts (T, K) is ascending.
extern "C" __global__ void __launch_bounds__(32 * WARPS) route_tokens(
    const REAL* __restrict__ scores, i64 n_tokens, int n_experts, int k, const REAL* __restrict__ bias,
    u64* loads, double* values, u32* flags, i64* experts
) {
    DYNAMIC_SHARED(memory);
    REAL* prices = reinterpret_cast<REAL*>(memory);
    REAL* tiles = prices + LANES * STRIDE;
    u32* histogram = reinterpret_cast<u32*>(tiles + WARPS * 32 * STRIDE);
    STATIC_SHARED(double, sums, WARPS);
    const Place at;
    const int warp = threadIdx.x / 32;
    REAL* tile = tiles + warp * 32 * STRIDE;
    const REAL* row = tile + at.lane * STRIDE;
    const REAL* own_bias = prices + at.part * STRIDE;
    for (int e = threadIdx.x; e < LANES * SLOTS; e += 32 * WARPS) {
        prices[bias_cell_of(e)] = e < n_experts ? bias[e] : REAL(0);
        histogram[e] = 0;
    }
    for (int slot = 0; slot < STRIDE; ++slot) tile[at.lane * STRIDE + slot] = -infinity();
    __syncthreads();

    const Copier copier(n_experts, at.lane);
    const i64 n_tiles = (n_tokens + TOKENS - 1) / TOKENS;
    double value = 0.0;
    bool is_bad = false, lacks = false;
    for (i64 i = (i64)blockIdx.x * WARPS + warp; i < n_tiles; i += (i64)gridDim.x * WARPS) {
        const i64 first = i * TOKENS;
        const int n_here = (int)min((i64)TOKENS, n_tokens - first);
        copier.start(scores + first * n_experts, n_here, tile, at.lane);
        wait_for_copies();
        __syncwarp();
        const bool is_there = at.token < n_here;
        REAL top[RANKS];
        const bool is_odd = find_top(row, own_bias, top);
        const REAL threshold = kth(top, k);
        is_bad |= is_there && is_odd;
        lacks |= is_there && threshold == -infinity();
        if (is_there && at.part == 0) {
#pragma unroll
            for (int rank = 0; rank < RANKS; ++rank) {
                if (rank < k) value += (double)top[rank];
            }
        }
        int counts[COUNTS];
        const int total = count_reached(row, own_bias, is_there ? threshold : infinity(), at, counts);
        if (total == k * n_here) {
#pragma unroll
            for (int j = 0; j < COUNTS; ++j) {
                int slot = j * TOKENS + at.token;
                if (slot < SLOTS && counts[j]) atomicAdd(histogram + at.part * SLOTS + slot, (u32)counts[j]);
            }
        }
        if (CHOICE || total != k * n_here) {
            Choice choice(row, own_bias, threshold, k, at);
            int place = choice.before;
            for (int slot = 0; slot < SLOTS; ++slot) {
                // Scores that are to be refused must not write past the token's row either.
                if (choice.takes(row[slot] + own_bias[slot]) && is_there && place < k) {
                    int expert = at.part * SLOTS + slot;
                    if (total != k * n_here) atomicAdd(histogram + expert, 1u);
                    if constexpr (CHOICE) experts[(first + at.token) * k + place] = expert;
                    ++place;
                }
            }
        }
        __syncwarp();
    }

    value = sum_of_warp(value);
    if (at.lane == 0) sums[warp] = value;
    u32 flag = (is_bad ? 1u : 0u) | (lacks ? 2u : 0u);
    if (flag) atomicOr(flags, flag);
    __syncthreads();
    for (int e = threadIdx.x; e < n_experts; e += 32 * WARPS) {
        if (histogram[e]) atomicAdd(loads + e, (u64)histogram[e]);
    }
    if (threadIdx.x == 0) {
        double total = 0.0;
        for (int w = 0; w < WARPS; ++w) total += sums[w];
        values[blockIdx.x] = total;
    }
}
