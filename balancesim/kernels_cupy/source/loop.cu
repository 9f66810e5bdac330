// The whole simulation loop: draw, route, measure, update, with no word from the host in between.
//
// All blocks are resident (a cooperative launch) and go through the steps together. A step's tokens are shared
// among blocks, its rules among the warps of each; loads are summed in global memory, behind one barrier a
// step, in whose shadow the next step's first tile is drawn. Every block then updates all prices on its own,
// by the same arithmetic and so to the same bits. Passes over a tile: 0 without bias, then the comparators,
// then the rules. One more warp keeps the books of the rules that its block owns, of the step before.
//
// Further macros: WARPS (passes at a time), BLOCK_THREADS (32 * (WARPS + 1)).

constexpr int SIGN = 0, HARMONIC = 2, SQRT = 3;
constexpr int N_NUMBERS = 4;
constexpr int KEEPER = 32 * WARPS;  // the thread that meets the other blocks

struct Loop {
    i64 n_rules, n_comparators, n_tokens, k, n_records, has_projection;
    double limit, largest_price, balanced;
    const double* parameters;     // (S, 5) schedule, size, delay, recentre, radius
    const i64* updates;           // (S,) 0: the price stays
    const i64* against;           // (S,) a comparator, or -1
    const REAL* comparators;      // (C, E)
    const double* comparator_sum; // (C,)
    const i64* records;           // (R,) the steps of this launch to record, ascending
    double* price;                // (S, E)
    i64* stopped;                 // (S,) the step after which a rule stopped; 0 while it runs
    double* sums;                 // (blocks, passes, 2) regret and score lost; of pass 0 the top score
    double* numbers;              // (S, N_NUMBERS) violation, window violation, price sum, moved
    i64* window_loads;            // (S, E)
    i32* loads;                   // (3, S, E) zero; of three steps in turn
    u32* barrier;                 // (1,) zero
    double* recorded_sums;        // (R, blocks, passes, 2)
    double* recorded_numbers;     // (R, S, N_NUMBERS)
    double* recorded_price;       // (R, S, E)
    i64* recorded_loads;          // (R, S, E)
    i64* recorded_window;         // (R, S, E)
};

#ifdef __CUDACC__
__device__ __forceinline__ u32 load_acquire(const u32* from) {
    u32 x;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(x) : "l"(from) : "memory");
    return x;
}

__device__ __forceinline__ void arrive(u32* at) {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(at) : "memory");
}
#endif

// balancesim.balancers.alf_lb.project, by one thread: its sums run from the first expert to the last.
__device__ __noinline__ void project(double* price, int n, double radius) {
    double low = price[0], high = price[0];
    for (int e = 1; e < n; ++e) {
        low = price[e] < low ? price[e] : low;
        high = price[e] > high ? price[e] : high;
    }
    low -= radius;
    high += radius;
    double shift;
    while (true) {
        shift = 0.5 * (low + high);
        if (!(low < shift && shift < high)) break;
        double total = 0.0;
        for (int e = 0; e < n; ++e) {
            const double x = price[e] - shift;
            const double raised = x < -radius ? -radius : x;
            total += raised > radius ? radius : raised;
        }
        if (total > 0.0) low = shift;
        else high = shift;
    }
    for (int e = 0; e < n; ++e) {
        const double x = price[e] - shift;
        const double raised = x < -radius ? -radius : x;
        price[e] = raised > radius ? radius : raised;
    }
}

// The end of an ALF-LB step where prices are centred or projected, by one thread.
__device__ __noinline__ void centre(double* price, int n, double radius) {
    double total = 0.0;
    for (int e = 0; e < n; ++e) total += price[e];
    const double mean = total / (double)n;
    double largest = 0.0;
    for (int e = 0; e < n; ++e) {
        price[e] -= mean;
        largest = fabs(price[e]) > largest ? fabs(price[e]) : largest;
    }
    if (largest > radius) project(price, n, radius);
}

// Whether a price is centred after each step, and projected where it is bounded.
__device__ __forceinline__ bool is_projected(const double* parameters) {
    return parameters[3] != 0.0 || parameters[4] <= 1.7976931348623157e308;
}

struct Shared {
    REAL* tile;
    REAL* of_token;
    void* extra;
    REAL* bias;      // (2, passes, LANES, STRIDE), by turns
    REAL* base;      // (1 + C, TOKENS, RANKS)
    double* price;   // (S, E)
    double* sums;    // (passes, 2, 32)
    i64* window;     // (owned, E)
    double* numbers; // (owned, N_NUMBERS)
    i32* is_closed;  // (S,) whether a rule had stopped before the step whose books are to be kept
    i32* is_lost;    // (S,) whether a price became too large: the rule has stopped
    i32* moves;      // (S,) whether the price does
    i32* against;    // (S,) a comparator, or -1
    double* size;    // (S,) of the step to come
    double* parameters;  // (S, 5)
    i32* is_wide;    // (TOKENS,)

    // Doubles and pointers first; every part but the last two is a multiple of 8 bytes.
    __device__ __forceinline__ Shared(
        unsigned char* memory, const Model& model, int n_rules, int n_base, int n_experts, int n_owned
    ) {
        const int n_passes = n_base + n_rules;
        tile = reinterpret_cast<REAL*>(memory);
        bias = tile + 32 * STRIDE;
        of_token = bias + 2 * n_passes * LANES * STRIDE;
        unsigned char* after = reinterpret_cast<unsigned char*>(of_token);
        extra = after + (TRANSFORM == SOFTMAX ? (TOKENS * (int)sizeof(REAL) + 15) / 16 * 16 : 0);
        after += extra_bytes(model);
        price = reinterpret_cast<double*>(after);
        size = price + n_rules * n_experts;
        parameters = size + n_rules;
        sums = parameters + 5 * n_rules;
        numbers = sums + n_passes * 64;
        window = reinterpret_cast<i64*>(numbers + n_owned * N_NUMBERS);
        base = reinterpret_cast<REAL*>(window + n_owned * n_experts);
        is_closed = reinterpret_cast<i32*>(base + n_base * TOKENS * RANKS);
        is_lost = is_closed + n_rules;
        moves = is_lost + n_rules;
        against = moves + n_rules;
        is_wide = against + n_rules;
    }
};

// Adds the violation, loads and products of a finished step of rule s, by a warp; `bias` is the one that the
// step was routed with.
__device__ __forceinline__ void keep_books(
    const Loop& loop, const Shared& shared, int s, int slot, int n_experts,
    const REAL* bias, const i32* loads, int lane, i64 record
) {
    i64* window = shared.window + slot * n_experts;
    double* numbers = shared.numbers + slot * N_NUMBERS;
    double moved = 0.0, price_sum = 0.0;
    i32 largest = 0;
    for (int e = lane; e < n_experts; e += 32) {
        const i32 load = __ldcg(loads + s * n_experts + e);
        const double b = (double)bias[bias_cell_of(e)];
        window[e] += load;
        moved += (double)load * b;
        price_sum += b;
        largest = max(largest, load);
    }
    moved = sum_of_warp(moved);
    price_sum = sum_of_warp(price_sum);
    largest = __reduce_max_sync(ALL, largest);
    if (lane == 0) {
        const double violation = (double)largest / loop.balanced - 1.0;
        numbers[0] = violation;
        numbers[1] += violation;
        if (loop.against[s] >= 0) numbers[2] += price_sum - loop.comparator_sum[loop.against[s]];
        numbers[3] += moved;
    }
    __syncwarp();
    if (record < 0) return;
    const i64 at = (record * loop.n_rules + s);
    for (int e = lane; e < n_experts; e += 32) {
        loop.recorded_loads[at * n_experts + e] = __ldcg(loads + s * n_experts + e);
        loop.recorded_window[at * n_experts + e] = window[e];
        loop.recorded_price[at * n_experts + e] = shared.price[s * n_experts + e];
        window[e] = 0;
    }
    if (lane < N_NUMBERS) loop.recorded_numbers[at * N_NUMBERS + lane] = numbers[lane];
    __syncwarp();
    if (lane == 0) numbers[1] = 0.0;
}

// The books of a finished step, of the rules that this block owns, by a warp.
__device__ __forceinline__ void close_step(
    const Loop& loop, const Shared& shared, int n_base, int n_experts, int bias_size, i64 step, int lane, i64 record
) {
    const REAL* bias = shared.bias + (step & 1) * bias_size;
    const i32* loads = loop.loads + (step % 3) * loop.n_rules * n_experts;
    for (int slot = 0, s = blockIdx.x; s < loop.n_rules; ++slot, s += gridDim.x) {
        if (shared.is_closed[s]) continue;
        keep_books(
            loop, shared, s, slot, n_experts, bias + (n_base + s) * LANES * STRIDE, loads, lane, record);
        if (shared.is_lost[s] && lane == 0) {
            shared.is_closed[s] = 1;
            loop.stopped[s] = step;
        }
        __syncwarp();
    }
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 1) run_steps(
    u32 key0, u32 key1, const Model model, const Loop loop, i64 first_step, i64 last_step
) {
    DYNAMIC_SHARED(memory);
    const Place at;
    const int n_experts = (int)model.n_experts, n_rules = (int)loop.n_rules, k = (int)loop.k;
    const int n_base = 1 + (int)loop.n_comparators, n_passes = n_base + n_rules, n_cells = n_rules * n_experts;
    const int n_owned = (n_rules + (int)gridDim.x - 1) / (int)gridDim.x;
    const int thread = threadIdx.x, drawer = thread < KEEPER ? thread : 1 << 30, warp = thread / 32, bias_size = n_passes * LANES * STRIDE;
    const Shared shared(memory, model, n_rules, n_base, n_experts, n_owned);
    const i64 n_tiles = (loop.n_tokens + TOKENS - 1) / TOKENS;
    const REAL* row = shared.tile + at.lane * STRIDE;

    // Everything is read back as the launch before left it.
    for (int i = thread; i < 32 * STRIDE; i += BLOCK_THREADS) shared.tile[i] = -infinity();
    for (int i = thread; i < n_cells; i += BLOCK_THREADS) shared.price[i] = loop.price[i];
    for (int i = thread; i < 2 * bias_size; i += BLOCK_THREADS) shared.bias[i] = REAL(0);
    for (int i = thread; i < n_passes * 64; i += BLOCK_THREADS) {
        shared.sums[i] = i % 32 == 0 ? loop.sums[(i64)blockIdx.x * n_passes * 2 + i / 32] : 0.0;
    }
    for (int s = thread; s < n_rules; s += BLOCK_THREADS) {
        shared.is_closed[s] = shared.is_lost[s] = loop.stopped[s] != 0;
        shared.moves[s] = loop.updates[s] != 0;
        shared.against[s] = (i32)loop.against[s];
        for (int i = 0; i < 5; ++i) shared.parameters[5 * s + i] = loop.parameters[5 * s + i];
    }
    for (int slot = 0, s = blockIdx.x; s < n_rules; ++slot, s += gridDim.x) {
        for (int e = thread; e < n_experts; e += BLOCK_THREADS) {
            shared.window[slot * n_experts + e] = loop.window_loads[s * n_experts + e];
        }
        if (thread < N_NUMBERS) shared.numbers[slot * N_NUMBERS + thread] = loop.numbers[s * N_NUMBERS + thread];
    }
    __syncthreads();
    for (int turn = 0; turn < 2; ++turn) {
        for (int i = thread; i < (int)loop.n_comparators * n_experts; i += BLOCK_THREADS) {
            const int c = i / n_experts, e = i % n_experts;
            shared.bias[turn * bias_size + (1 + c) * LANES * STRIDE + bias_cell_of(e)] = loop.comparators[i];
        }
        for (int i = thread; i < n_cells; i += BLOCK_THREADS) {
            const int s = i / n_experts, e = i % n_experts;
            shared.bias[turn * bias_size + (n_base + s) * LANES * STRIDE + bias_cell_of(e)] = (REAL)shared.price[i];
        }
    }
    // Barriers empty the first-level cache: what every step needs is in shared memory or registers.
    i64 record = 0;   // the next record of this launch, and its step
    i64 next_record = loop.n_records > 0 ? loop.records[0] : 0;
    i64 booked = -1;  // the record that the step before made, for the books
    i64 step = first_step, tile = blockIdx.x;
    bool is_ended = false;  // whether all tiles of the step before are routed, and its update is due
    while (true) {
        const i64 token = tile * TOKENS;
        const int n_here = (int)min((i64)TOKENS, loop.n_tokens - token);
        const bool is_there = at.token < n_here;
        if (step <= last_step) {
            draw_tile<true>(
                model, key0, key1, step - 1, token, n_here, loop.n_tokens, shared.tile, shared.extra,
                shared.of_token, drawer, 32 * WARPS);
        }
        if (is_ended) {
            const i64 ended = step - 1;
            // While others arrive: the sizes of this update's steps.
            for (int s = thread; s < n_rules; s += BLOCK_THREADS) {
                const double* parameters = shared.parameters + 5 * s;
                double size = parameters[1];
                if (parameters[0] == HARMONIC) size = size / ((double)ended + parameters[2]);
                else if (parameters[0] == SQRT) size = size / sqrt((double)ended + parameters[2]);
                shared.size[s] = size;
            }
            if (thread == KEEPER) {
                const u32 wanted = (u32)(ended - first_step + 1) * gridDim.x;
                while ((i32)(load_acquire(loop.barrier) - wanted) < 0) {}
            }
            __syncthreads();

            // A warp a rule. A price that no bias may have ends its rule; its last books are kept in the step
            // to come.
            REAL* next_bias = shared.bias + (step & 1) * bias_size + n_base * LANES * STRIDE;
            const i32* ended_loads = loop.loads + (ended % 3) * n_cells;
            const double n_all = (double)(n_experts * loop.n_tokens);
            for (int s = warp; s < n_rules; s += WARPS + 1) {
                if (shared.is_lost[s] || !shared.moves[s]) continue;
                const double* parameters = shared.parameters + 5 * s;
                const bool is_sign = parameters[0] == SIGN;
                const double size = shared.size[s];
                bool is_fine = true;
                for (int e = at.lane; e < n_experts; e += 32) {
                    const i64 load = __ldcg(ended_loads + s * n_experts + e);
                    double violation = (double)(load * n_experts - loop.n_tokens * k) / n_all;
                    if (is_sign) violation = violation > 0.0 ? 1.0 : violation < 0.0 ? -1.0 : 0.0;
                    const double price = shared.price[s * n_experts + e] - size * violation;
                    shared.price[s * n_experts + e] = price;
                    next_bias[s * LANES * STRIDE + bias_cell_of(e)] = (REAL)price;
                    is_fine &= fabs(price) <= loop.largest_price;
                }
                if (__any_sync(ALL, !is_fine) && at.lane == 0 && !is_projected(parameters)) shared.is_lost[s] = 1;
            }
            for (int i = blockIdx.x * BLOCK_THREADS + thread; i < n_cells; i += gridDim.x * BLOCK_THREADS) {
                loop.loads[(ended + 2) % 3 * n_cells + i] = 0;
            }
            if (loop.has_projection) {
                __syncthreads();
                for (int s = thread; s < n_rules; s += BLOCK_THREADS) {
                    const double* parameters = shared.parameters + 5 * s;
                    if (shared.is_lost[s] || !shared.moves[s] || !is_projected(parameters)) continue;
                    double* price = shared.price + s * n_experts;
                    centre(price, n_experts, parameters[4]);
                    for (int e = 0; e < n_experts; ++e) {
                        next_bias[s * LANES * STRIDE + bias_cell_of(e)] = (REAL)price[e];
                        if (!(fabs(price[e]) <= loop.largest_price)) shared.is_lost[s] = 1;
                    }
                }
            }
            booked = next_record == ended ? record : -1;
            if (booked >= 0) {
                // The sums so far.
                for (int i = warp; i < 2 * n_passes; i += WARPS + 1) {
                    const double total = sum_of_warp(shared.sums[i * 32 + at.lane]);
                    if (at.lane == 0) {
                        loop.recorded_sums[((record * gridDim.x + blockIdx.x) * n_passes * 2) + i] = total;
                    }
                }
                ++record;
                next_record = record < loop.n_records ? loop.records[record] : 0;
            }
            is_ended = false;
        }
        __syncthreads();
        if (tile == blockIdx.x && warp == WARPS && step > first_step) {
            close_step(loop, shared, n_base, n_experts, bias_size, step - 1, at.lane, booked);
        }
        if (step > last_step) break;

        const int turn = (int)(step & 1);
        const REAL* bias = shared.bias + turn * bias_size;
        i32* loads = loop.loads + (step % 3) * n_cells;
        for (int pass = warp; pass == warp || (warp < WARPS && pass < n_passes); pass += WARPS) {
            const bool is_rule = pass >= n_base && pass < n_passes;
            const bool is_on = warp < WARPS && pass < n_passes
                && (!is_rule || !shared.is_lost[pass - n_base]) && n_here > 0;
            const REAL* own_bias = bias + (pass * LANES + at.part) * STRIDE;
            REAL top[RANKS];
            REAL threshold = infinity();
            if (is_on) {
                find_top(row, own_bias, top);
                threshold = kth(top, k);
                if (!is_rule && at.part == 0) {
#pragma unroll
                    for (int rank = 0; rank < RANKS; ++rank) {
                        shared.base[(pass * TOKENS + at.token) * RANKS + rank] = top[rank];
                    }
                    if (pass == 0) {
                        shared.is_wide[at.token] =
                            is_there && ((double)top[0] > loop.limit || (double)threshold < -loop.limit);
                        double total = 0.0;
#pragma unroll
                        for (int rank = 0; rank < RANKS; ++rank) {
                            if (rank < k) total += (double)top[rank];
                        }
                        if (is_there) shared.sums[at.lane] += total;
                    }
                }
            }
            if (pass == warp) __syncthreads();  // all base passes are in the first turn
            if (!is_on || !is_rule) continue;
            const int s = pass - n_base;
            const int against = shared.against[s];
            double* sums = shared.sums + pass * 64 + at.lane;
            const bool is_wide = shared.is_wide[at.token] && is_there;
            if (is_there && at.part == 0) {
                const REAL* unbiased = shared.base + at.token * RANKS;
                REAL lost = unbiased[0] - top[0];
#pragma unroll
                for (int rank = 1; rank < RANKS; ++rank) {
                    if (rank < k) lost += unbiased[rank] - top[rank];
                }
                if (!is_wide) sums[32] += (double)lost;
                if (against >= 0) {
                    const REAL* best = shared.base + ((1 + against) * TOKENS + at.token) * RANKS;
                    REAL regret = top[0] - best[0];
#pragma unroll
                    for (int rank = 1; rank < RANKS; ++rank) {
                        if (rank < k) regret += top[rank] - best[rank];
                    }
                    if (!is_wide) sums[0] += (double)regret;
                }
            }
            if (__any_sync(ALL, is_wide)) {
                const REAL* unbiased = bias + at.part * STRIDE;
                const REAL* base = shared.base + at.token * RANKS + k - 1;
                const double lost = difference_by_members(row, k, unbiased, *base, own_bias, threshold, at);
                if (is_wide) sums[32] += lost;
                if (against >= 0) {
                    const REAL* best_bias = bias + ((1 + against) * LANES + at.part) * STRIDE;
                    const REAL best = base[(1 + against) * TOKENS * RANKS];
                    const double regret = difference_by_members(row, k, own_bias, threshold, best_bias, best, at);
                    if (is_wide) sums[0] += regret;
                }
            }
            int counts[COUNTS];
            const int total = count_reached(row, own_bias, is_there ? threshold : infinity(), at, counts);
            i32* own_loads = loads + s * n_experts;
            if (total == k * n_here) {
#pragma unroll
                for (int j = 0; j < COUNTS; ++j) {
                    const int slot = j * TOKENS + at.token;
                    if (slot < SLOTS && counts[j]) atomicAdd(own_loads + at.part * SLOTS + slot, counts[j]);
                }
            } else {
                Choice choice(row, own_bias, threshold, k, at);
                for (int slot = 0; slot < SLOTS; ++slot) {
                    if (choice.takes(row[slot] + own_bias[slot]) && is_there) {
                        atomicAdd(own_loads + at.part * SLOTS + slot, 1);
                    }
                }
            }
        }
        __syncthreads();
        tile += gridDim.x;
        if (tile >= n_tiles) {
            if (thread == KEEPER) arrive(loop.barrier);
            tile = blockIdx.x;
            is_ended = true;
            ++step;
        }
    }

    // What the launch after reads.
    __syncthreads();
    for (int i = warp; i < 2 * n_passes; i += WARPS + 1) {
        const double total = sum_of_warp(shared.sums[i * 32 + at.lane]);
        if (at.lane == 0) loop.sums[(i64)blockIdx.x * n_passes * 2 + i] = total;
    }
    for (int slot = 0, s = blockIdx.x; s < n_rules; ++slot, s += gridDim.x) {
        for (int e = thread; e < n_experts; e += BLOCK_THREADS) {
            loop.window_loads[s * n_experts + e] = shared.window[slot * n_experts + e];
        }
        if (thread < N_NUMBERS) loop.numbers[s * N_NUMBERS + thread] = shared.numbers[slot * N_NUMBERS + thread];
    }
    if (blockIdx.x == 0) {
        for (int i = thread; i < n_cells; i += BLOCK_THREADS) loop.price[i] = shared.price[i];
    }
}
