// A card's threads on one processor: enough of CUDA to run this project's kernels, slowly.
//
// Every thread is a fiber. What waits for others (a warp's votes and shuffles, a block's barrier, a load that
// spins) gives way to the next fiber; a launch in which nothing moves any more ends the process.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <vector>
#include <ucontext.h>

#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define DYNAMIC_SHARED(name) unsigned char* name = emulator::block->dynamic()
#define STATIC_SHARED(type, name, count) \
    type* name = static_cast<type*>(emulator::block->fixed(__LINE__, sizeof(type) * (count)))

using std::max;
using std::min;

struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) double2 {
    double x, y;
};
struct Index {
    unsigned x;
};
static Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

struct Warp {
    unsigned long long values[2][32];
    int arrived = 0;
    unsigned turn = 0;
};

struct Block {
    std::vector<unsigned char> memory;
    std::map<int, std::vector<double>> arrays;
    std::vector<Warp> warps;
    unsigned arrived = 0, turn = 0;

    unsigned char* dynamic() {
        auto address = reinterpret_cast<std::size_t>(memory.data());
        return memory.data() + (16 - address % 16) % 16;
    }
    void* fixed(int line, std::size_t bytes) {
        auto& array = arrays[line];
        if (array.empty()) array.resize((bytes + 7) / 8);
        return array.data();
    }
};

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    Block* block;
    unsigned thread, index;
    bool is_done = false;
};

static Block* block;
static Fiber* current;
static ucontext_t scheduler;
static const std::function<void()>* body;
static unsigned long long moves;

static void give_way() {
    swapcontext(&current->context, &scheduler);
}

static void run_body() {
    (*body)();
    current->is_done = true;
    ++moves;
    swapcontext(&current->context, &scheduler);
}

// Everyone's value, once all of the warp have come.
static const unsigned long long* exchange(unsigned long long value) {
    Warp& warp = block->warps[threadIdx.x / 32];
    unsigned turn = warp.turn;
    unsigned long long* values = warp.values[turn % 2];
    values[threadIdx.x % 32] = value;
    if (++warp.arrived == 32) {
        warp.arrived = 0;
        ++warp.turn;
        ++moves;
    }
    while (warp.turn == turn) give_way();
    return values;
}

template <class T> unsigned long long pack(T x) {
    unsigned long long bits = 0;
    std::memcpy(&bits, &x, sizeof(T));
    return bits;
}

template <class T> T unpack(unsigned long long bits) {
    T x;
    std::memcpy(&x, &bits, sizeof(T));
    return x;
}

static void launch(unsigned n_blocks, unsigned n_threads, std::size_t bytes, const std::function<void()>& call) {
    std::vector<Block> blocks(n_blocks);
    std::vector<Fiber> fibers(std::size_t(n_blocks) * n_threads);
    for (unsigned b = 0; b < n_blocks; ++b) {
        blocks[b].memory.resize(bytes + 16, 0xcd);
        blocks[b].warps.resize((n_threads + 31) / 32);
        for (unsigned t = 0; t < n_threads; ++t) {
            Fiber& fiber = fibers[std::size_t(b) * n_threads + t];
            const std::size_t size = 1 << 16;
            fiber.stack.reset(new char[size]);
            fiber.block = &blocks[b];
            fiber.thread = t;
            fiber.index = b;
            getcontext(&fiber.context);
            fiber.context.uc_stack.ss_sp = fiber.stack.get();
            fiber.context.uc_stack.ss_size = size;
            fiber.context.uc_link = nullptr;
            makecontext(&fiber.context, run_body, 0);
        }
    }
    body = &call;
    blockDim = {n_threads};
    gridDim = {n_blocks};
    std::size_t left = fibers.size();
    for (unsigned long long idle = 0; left > 0;) {
        const unsigned long long before = moves;
        left = 0;
        for (Fiber& fiber : fibers) {
            if (fiber.is_done) continue;
            ++left;
            current = &fiber;
            block = fiber.block;
            threadIdx = {fiber.thread};
            blockIdx = {fiber.index};
            swapcontext(&scheduler, &fiber.context);
        }
        idle = moves == before ? idle + 1 : 0;
        if (idle > 1000) {
            std::fprintf(stderr, "emulator: %zu threads wait for one another\n", left);
            std::abort();
        }
    }
}

}  // namespace emulator

template <class T> T __shfl_xor_sync(unsigned, T x, int apart) {
    return emulator::unpack<T>(emulator::exchange(emulator::pack(x))[(threadIdx.x % 32) ^ apart]);
}

template <class T> T __shfl_up_sync(unsigned, T x, int apart, int width) {
    const int lane = threadIdx.x % 32;
    const auto* all = emulator::exchange(emulator::pack(x));
    return emulator::unpack<T>(all[lane % width >= apart ? lane - apart : lane]);
}

static unsigned __ballot_sync(unsigned, bool x) {
    const auto* all = emulator::exchange(x);
    unsigned votes = 0;
    for (int i = 0; i < 32; ++i) votes |= unsigned(all[i] != 0) << i;
    return votes;
}

static bool __any_sync(unsigned mask, bool x) { return __ballot_sync(mask, x) != 0; }

static int __reduce_add_sync(unsigned, int x) {
    const auto* all = emulator::exchange(emulator::pack(x));
    int total = 0;
    for (int i = 0; i < 32; ++i) total += emulator::unpack<int>(all[i]);
    return total;
}

static int __reduce_max_sync(unsigned, int x) {
    const auto* all = emulator::exchange(emulator::pack(x));
    int largest = x;
    for (int i = 0; i < 32; ++i) largest = max(largest, emulator::unpack<int>(all[i]));
    return largest;
}

static void __syncwarp() { emulator::exchange(0); }

static void __syncthreads() {
    emulator::Block* block = emulator::block;
    const unsigned turn = block->turn;
    if (++block->arrived == blockDim.x) {
        block->arrived = 0;
        ++block->turn;
        ++emulator::moves;
    }
    while (block->turn == turn) emulator::give_way();
}

static void __threadfence() {}
static int __popc(unsigned x) { return __builtin_popcount(x); }

template <class T> T __ldcg(const T* from) { return *from; }

template <class T> T atomicAdd(T* to, T x) {
    T before = *to;
    *to += x;
    return before;
}

static unsigned atomicOr(unsigned* to, unsigned x) {
    unsigned before = *to;
    *to |= x;
    return before;
}

static void arrive(unsigned* at) {
    ++*at;
    ++emulator::moves;
}

static unsigned load_acquire(const unsigned* from) {
    emulator::give_way();
    return *from;
}
