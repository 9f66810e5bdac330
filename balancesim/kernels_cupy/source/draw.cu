// Drawing without a loop of steps: a batch's scores, a walk's offsets, and drawing fused with routing.
//
// Further macro: WARPS a block.

// Shared memory of a warp: its tile, then what is drawn once a token.
struct WarpMemory {
    REAL* tile;
    REAL* of_token;
    void* extra;

    __device__ __forceinline__ WarpMemory(unsigned char* memory, const Model& model, int warp) {
        const int bytes = 32 * STRIDE * (int)sizeof(REAL) + extra_bytes(model);
        tile = reinterpret_cast<REAL*>(memory + warp * bytes);
        of_token = tile + 32 * STRIDE;
        extra = TRANSFORM == SOFTMAX ? (void*)(of_token + (TOKENS + PAD - 1) / PAD * PAD) : (void*)of_token;
    }
};

__device__ __forceinline__ void clear_tile(REAL* tile) {
    for (int slot = 0; slot < STRIDE; ++slot) tile[(threadIdx.x % 32) * STRIDE + slot] = -infinity();
    __syncwarp();
}

extern "C" __global__ void __launch_bounds__(32 * WARPS) draw_batch(
    u32 key0, u32 key1, const Model model, i64 step, i64 first_token, i64 n_tokens, i64 n_of_step, REAL* scores
) {
    DYNAMIC_SHARED(memory);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, n_experts = (int)model.n_experts;
    const WarpMemory own(memory, model, warp);
    clear_tile(own.tile);
    for (i64 first = ((i64)blockIdx.x * WARPS + warp) * TOKENS; first < n_tokens;
         first += (i64)gridDim.x * WARPS * TOKENS) {
        const int n_here = (int)min((i64)TOKENS, n_tokens - first);
        draw_tile<false>(
            model, key0, key1, step, first_token + first, n_here, n_of_step, own.tile, own.extra, own.of_token,
            lane, 32);
        __syncwarp();
        for (int i = lane; i < n_here * n_experts; i += 32) {
            scores[first * n_experts + i] = own.tile[cell_of(i / n_experts, i % n_experts)];
        }
        __syncwarp();
    }
}

// A walk's offsets at `n_steps` steps from `first` on, (steps, E): `add_walk`, a thread a step and pair.
extern "C" __global__ void walk_offsets(
    u32 key0, u32 key1, const Model model, const double* phase_offsets, i64 first, i64 n_steps, REAL* offsets
) {
    const i64 n_pairs = (model.n_experts + 1) / 2;
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n_steps * n_pairs) return;
    const i64 step = first + i / n_pairs, pair = i % n_pairs;
    i64 low = 0, high = 1ll << 32;
    double left[2] = {0.0, 0.0}, right[2], middle[2];
    normals(key0, key1, (u64)high, STREAM_WALK, (u32)pair, 0, right[0], right[1]);
    right[0] *= root_of((double)high);
    right[1] *= root_of((double)high);
    while (low != step) {
        const i64 between = (low + high) / 2;
        normals(key0, key1, (u64)between, STREAM_WALK, (u32)pair, 0, middle[0], middle[1]);
        const double spread = 0.5 * root_of((double)(high - low));
        for (int j = 0; j < 2; ++j) {
            middle[j] = 0.5 * (left[j] + right[j]) + spread * middle[j];
        }
        if (step >= between) low = between, left[0] = middle[0], left[1] = middle[1];
        else high = between, right[0] = middle[0], right[1] = middle[1];
    }
    const double* from = phase_offsets + phase_of(model, step) * model.n_experts;
    for (int j = 0; j < 2; ++j) {
        const i64 e = 2 * pair + j;
        if (e < model.n_experts) {
            offsets[(step - first) * model.n_experts + e] = (REAL)(from[e] + model.walk_rate * left[j]);
        }
    }
}

// Route a step's tokens as they are drawn, under `n_biases` biases (n_biases, E) at once. loads (n_biases, E)
// is added to, values (blocks, n_biases) is written.
extern "C" __global__ void __launch_bounds__(32 * WARPS) draw_and_route(
    u32 key0, u32 key1, const Model model, i64 step, i64 n_tokens, int k, int n_biases, const REAL* biases,
    u64* loads, double* values
) {
    DYNAMIC_SHARED(memory);
    const int n_experts = (int)model.n_experts;
    const Place at;
    const int warp = threadIdx.x / 32;
    REAL* prices = reinterpret_cast<REAL*>(memory);
    u32* histogram = reinterpret_cast<u32*>(prices + n_biases * LANES * STRIDE);
    double* sums = reinterpret_cast<double*>(histogram + n_biases * LANES * SLOTS);
    const WarpMemory own(reinterpret_cast<unsigned char*>(sums + n_biases * WARPS + n_biases * WARPS % 2), model, warp);
    for (int i = threadIdx.x; i < n_biases * LANES * SLOTS; i += 32 * WARPS) {
        const int s = i / (LANES * SLOTS), e = i % (LANES * SLOTS);
        prices[s * LANES * STRIDE + bias_cell_of(e)] = e < n_experts ? biases[s * n_experts + e] : REAL(0);
        histogram[i] = 0;
    }
    for (int i = threadIdx.x; i < n_biases * WARPS; i += 32 * WARPS) sums[i] = 0.0;
    clear_tile(own.tile);
    __syncthreads();

    const REAL* row = own.tile + at.lane * STRIDE;
    for (i64 first = ((i64)blockIdx.x * WARPS + warp) * TOKENS; first < n_tokens;
         first += (i64)gridDim.x * WARPS * TOKENS) {
        const int n_here = (int)min((i64)TOKENS, n_tokens - first);
        const bool is_there = at.token < n_here;
        draw_tile<false>(
            model, key0, key1, step, first, n_here, n_tokens, own.tile, own.extra, own.of_token, at.lane, 32);
        __syncwarp();
        for (int s = 0; s < n_biases; ++s) {
            const REAL* bias = prices + (s * LANES + at.part) * STRIDE;
            u32* counter = histogram + s * LANES * SLOTS;
            REAL top[RANKS];
            find_top(row, bias, top);
            const REAL threshold = kth(top, k);
            double value = 0.0;
#pragma unroll
            for (int rank = 0; rank < RANKS; ++rank) {
                if (rank < k) value += (double)top[rank];
            }
            value = sum_of_warp(is_there && at.part == 0 ? value : 0.0);
            if (at.lane == 0) sums[s * WARPS + warp] += value;
            int counts[COUNTS];
            const int total = count_reached(row, bias, is_there ? threshold : infinity(), at, counts);
            if (total == k * n_here) {
#pragma unroll
                for (int j = 0; j < COUNTS; ++j) {
                    const int slot = j * TOKENS + at.token;
                    if (slot < SLOTS && counts[j]) atomicAdd(counter + at.part * SLOTS + slot, (u32)counts[j]);
                }
            } else {
                Choice choice(row, bias, threshold, k, at);
                for (int slot = 0; slot < SLOTS; ++slot) {
                    if (choice.takes(row[slot] + bias[slot]) && is_there) {
                        atomicAdd(counter + at.part * SLOTS + slot, 1u);
                    }
                }
            }
        }
        __syncwarp();
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n_biases * LANES * SLOTS; i += 32 * WARPS) {
        const int s = i / (LANES * SLOTS), e = i % (LANES * SLOTS);
        if (e < n_experts && histogram[i]) atomicAdd(loads + s * n_experts + e, (u64)histogram[i]);
    }
    for (int s = threadIdx.x; s < n_biases; s += 32 * WARPS) {
        double total = 0.0;
        for (int w = 0; w < WARPS; ++w) total += sums[s * WARPS + w];
        values[(i64)blockIdx.x * n_biases + s] = total;
    }
}
