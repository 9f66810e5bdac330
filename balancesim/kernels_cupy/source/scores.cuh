// Scores made on the card: balancesim.kernels.scores, with the same bits.
//
// Further macros: FAMILY, TRANSFORM, ROWS (how a token finds its row), FACTORS (1 where tokens share factors).

// A ScoreModel; all fields are 8 bytes wide. `phase_row` has one entry more than there are phases.
struct Model {
    i64 n_experts, n_phases, n_factors, row_origin;
    double shape, scale, walk_rate;
    const i64* phase_start;
    const i64* phase_row;
    const REAL* offsets;  // (phases, E), or (steps, E) from `first_offset` on where they walk
    i64 first_offset;
    const double* alias_threshold;
    const i64* alias_row;
    const REAL* table;
    const double* loadings;
};

constexpr int PER_COUNTER = per_counter<REAL, FAMILY>();

// The numbers of one counter's experts, moved at once where their places allow it.
struct alignas(PER_COUNTER * sizeof(REAL)) Some {
    REAL of[PER_COUNTER];
};

__device__ __forceinline__ i64 phase_of(const Model& model, i64 step) {
    i64 phase = 0;
    while (phase + 1 < model.n_phases && step >= model.phase_start[phase + 1]) ++phase;
    return phase;
}

__device__ __forceinline__ const REAL* offsets_at(const Model& model, i64 step) {
    i64 row = model.walk_rate > 0.0 ? step - model.first_offset : phase_of(model, step);
    return model.offsets + row * model.n_experts;
}

__device__ __forceinline__ i64 row_of(const Model& model, u32 key0, u32 key1, i64 step, i64 token, i64 n_tokens) {
    if constexpr (ROWS == NEXT_ROWS) return model.row_origin + step * n_tokens + token;
    const i64 phase = phase_of(model, step);
    const i64 first = model.phase_row[phase], size = model.phase_row[phase + 1] - first;
    Words x = draw_words(key0, key1, (u64)step, STREAM_ROW, (u32)token, 0);
    double w, split_at, c;
    uniform64(join(x.x0, x.x1), w, c);
    uniform64(join(x.x2, x.x3), split_at, c);
    i64 row = min((i64)(w * (double)size), size - 1);
    if (split_at >= model.alias_threshold[first + row]) row = model.alias_row[first + row];
    return first + row;
}

// The scores of the experts of one counter, but for a softmax; `factors` are those of the token. `is_whole`:
// every counter has all its experts.
__device__ __forceinline__ void draw_some(
    const Model& model, u32 key0, u32 key1, const REAL* offsets, bool is_whole, i64 step, i64 token, int group,
    i64 row, const double* factors, REAL (&x)[PER_COUNTER]
) {
    Some added;
    if (is_whole) {
        added = reinterpret_cast<const Some*>(offsets)[group];
    } else {
#pragma unroll
        for (int i = 0; i < PER_COUNTER; ++i) {
            added.of[i] = offsets[min(group * PER_COUNTER + i, (int)model.n_experts - 1)];
        }
    }
    if constexpr (FAMILY != NO_NOISE) {
        make_noise<REAL, FAMILY>(
            draw_words(key0, key1, (u64)step, STREAM_NOISE, (u32)token, (u32)group), (REAL)model.shape, x);
    }
#pragma unroll
    for (int i = 0; i < PER_COUNTER; ++i) {
        const int e = min(group * PER_COUNTER + i, (int)model.n_experts - 1);
        if constexpr (FAMILY != NO_NOISE) x[i] = added.of[i] + (REAL)model.scale * x[i];
        else x[i] = added.of[i];
        if constexpr (ROWS != NO_ROWS) x[i] += model.table[row * model.n_experts + e];
        if constexpr (FACTORS) {
            for (int f = 0; f < model.n_factors; ++f) {
                x[i] += (REAL)(model.loadings[e * model.n_factors + f] * factors[f]);
            }
        }
        if constexpr (TRANSFORM == SIGMOID) {
            if (x[i] != -infinity()) x[i] = REAL(1) / (REAL(1) + exp_of(-x[i]));
        }
    }
}

// What is drawn once a token: `extra` has room for TOKENS rows and TOKENS * n_factors factors.
struct Extra {
    i64* rows;
    double* factors;

    __device__ __forceinline__ Extra(void* extra)
        : rows((i64*)extra), factors((double*)extra + (ROWS != NO_ROWS ? TOKENS : 0)) {}

    __device__ __forceinline__ void draw(
        const Model& model, u32 key0, u32 key1, i64 step, i64 first, int n_here, i64 n_tokens, int thread,
        int n_threads
    ) const {
        if constexpr (ROWS != NO_ROWS) {
            for (int t = thread; t < n_here; t += n_threads) {
                rows[t] = row_of(model, key0, key1, step, first + t, n_tokens);
            }
        }
        if constexpr (FACTORS) {
            const int n_pairs = ((int)model.n_factors + 1) / 2;
            for (int i = thread; i < n_here * n_pairs; i += n_threads) {
                const int t = i % n_here, pair = i / n_here;
                double a, b;
                normals(key0, key1, (u64)step, STREAM_FACTOR, (u32)(first + t), (u32)pair, a, b);
                factors[t * model.n_factors + 2 * pair] = a;
                if (2 * pair + 1 < model.n_factors) factors[t * model.n_factors + 2 * pair + 1] = b;
            }
        }
    }
};

template <bool BLOCK> __device__ __forceinline__ void wait_for_all() {
    if constexpr (BLOCK) __syncthreads();
    else __syncwarp();
}

// The softmax of each token's scores. Sums run from the first expert to the last: their bits depend on it.
template <bool BLOCK>
__device__ __forceinline__ void softmax(
    REAL* tile, REAL* of_token, int n_experts, int n_here, int thread, int n_threads
) {
    for (int t = thread; t < n_here; t += n_threads) {
        REAL largest = -infinity();
        for (int e = 0; e < n_experts; ++e) largest = larger(largest, tile[cell_of(t, e)]);
        of_token[t] = largest;
    }
    wait_for_all<BLOCK>();
    for (int i = thread; i < n_here * n_experts; i += n_threads) {
        REAL& x = tile[cell_of(i % n_here, i / n_here)];
        if (x != -infinity()) x = exp_of(x - of_token[i % n_here]);
    }
    wait_for_all<BLOCK>();
    for (int t = thread; t < n_here; t += n_threads) {
        REAL total = REAL(0);
        for (int e = 0; e < n_experts; ++e) {
            const REAL x = tile[cell_of(t, e)];
            total += x == -infinity() ? REAL(0) : x;
        }
        of_token[t] = total;
    }
    wait_for_all<BLOCK>();
    for (int i = thread; i < n_here * n_experts; i += n_threads) {
        tile[cell_of(i % n_here, i / n_here)] /= of_token[i % n_here];
    }
}

// Draw tokens `first .. first + n_here - 1` of a step by a warp or a block, which must wait before it reads.
// `of_token` has room for TOKENS numbers where the transform is a softmax.
template <bool BLOCK>
__device__ __forceinline__ void draw_tile(
    const Model& model, u32 key0, u32 key1, i64 step, i64 first, int n_here, i64 n_tokens, REAL* tile,
    void* extra, REAL* of_token, int thread, int n_threads
) {
    const int n_experts = (int)model.n_experts;
    const int n_groups = (n_experts + PER_COUNTER - 1) / PER_COUNTER;
    const REAL* offsets = offsets_at(model, step);
    const bool is_whole = n_experts % PER_COUNTER == 0;
    const Extra own(extra);
    if constexpr (ROWS != NO_ROWS || FACTORS) {
        own.draw(model, key0, key1, step, first, n_here, n_tokens, thread, n_threads);
        wait_for_all<BLOCK>();
    }
    for (int i = thread; i < TOKENS * n_groups; i += n_threads) {
        const int token = i % TOKENS, group = i / TOKENS;
        if (token >= n_here) continue;
        REAL x[PER_COUNTER];
        draw_some(
            model, key0, key1, offsets, is_whole, step, first + token, group,
            ROWS != NO_ROWS ? own.rows[token] : 0, own.factors + token * model.n_factors, x);
        if (is_whole) {
            Some made;
#pragma unroll
            for (int j = 0; j < PER_COUNTER; ++j) made.of[j] = x[j];
            *reinterpret_cast<Some*>(tile + cell_of(token, group * PER_COUNTER)) = made;
        } else {
#pragma unroll
            for (int j = 0; j < PER_COUNTER; ++j) {
                const int e = group * PER_COUNTER + j;
                if (e < n_experts) tile[cell_of(token, e)] = x[j];
            }
        }
    }
    if constexpr (TRANSFORM == SOFTMAX) {
        wait_for_all<BLOCK>();
        softmax<BLOCK>(tile, of_token, n_experts, n_here, thread, n_threads);
    }
}

// Bytes of `extra` and `of_token`, for a kernel's layout of shared memory.
__device__ __forceinline__ int extra_bytes(const Model& model) {
    int bytes = 0;
    if constexpr (ROWS != NO_ROWS) bytes += 8 * TOKENS;
    if constexpr (FACTORS) bytes += 8 * TOKENS * (int)model.n_factors;
    if constexpr (TRANSFORM == SOFTMAX) bytes += (TOKENS * (int)sizeof(REAL) + 15) / 16 * 16;
    return (bytes + 15) / 16 * 16;
}
