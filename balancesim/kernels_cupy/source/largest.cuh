// The running K largest values of one thread, without indices: sorting networks (Batcher 1968).

template <class R> DEVICE void order(R& a, R& b) {
    R high = larger(a, b);
    b = smaller(a, b);
    a = high;
}

// Sort a bitonic sequence, descending.
template <class R, int N> DEVICE void merge_bitonic(R (&v)[N]) {
#pragma unroll
    for (int apart = N / 2; apart >= 1; apart /= 2) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            if ((i & apart) == 0) order(v[i], v[i + apart]);
        }
    }
}

// Sort, descending, by Batcher's odd-even merges: 1, 5, 19 and 63 comparators for 2, 4, 8 and 16 values.
template <class R, int N> DEVICE void sort(R (&v)[N]) {
#pragma unroll
    for (int run = 1; run < N; run *= 2) {
#pragma unroll
        for (int apart = run; apart >= 1; apart /= 2) {
#pragma unroll
            for (int i = 0; i + apart < N; ++i) {
                bool is_low = i >= apart % run && ((i - apart % run) / apart) % 2 == 0;
                if (is_low && i / (2 * run) == (i + apart) / (2 * run)) order(v[i], v[i + apart]);
            }
        }
    }
}

// Merge N further values, in any order, into the N largest so far, which are sorted.
template <class R, int N> DEVICE void absorb(R (&top)[N], R (&values)[N]) {
    sort<R, N>(values);
#pragma unroll
    for (int i = 0; i < N; ++i) top[i] = larger(top[i], values[N - 1 - i]);
    merge_bitonic<R, N>(top);
}
