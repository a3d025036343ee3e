// wna16_mma: wna16 on tensor cores: y[m, n] = sum_k x[m, k] * scale[n, g] * (code[n, k] - zero[n, g]), g = k / group.
//   x [M, K] | words [N, ceil(K * BITS / 32)] u32, layout "dense" (common/codes.cuh) | scale [N, K / group] | y [M, N]
//   zero [N, K / group]: u8 (asym), the dtype of x (float), or not read (sym): 2^(BITS - 1)
//   parts [gridDim.y, M, N] f32, or null; depth: columns of K that a block sums, a multiple of 64
//   All row-major; x, scale and y are all f16 or all bf16. BITS 2, 3, 4, 8; 32 divides group, or group is K. M, N, K below 2^31.
//   Grid (ceil(M / ROWS) * ceil(N / 128), ceil(K / depth)) x 256 threads, SHARED bytes of dynamic shared memory; ROWS is 16 or 64.
//   With one slice of K y is written; with more each writes its part, and wna16_mma_sum_* adds them, grid ceil(M * N / 256) x 256.
//
//   Codes enter mma as whole numbers, exact in f16 and bf16; sums of a group are scaled in f32, with no weight rounded:
//   |error| <= (K + 3) * 2^-23 * sum_k |x| scale (|code - zero|) before y is rounded (float: |code - middle| + |zero - middle|, as the
//   zero point is taken from the sum of the group's x). Rows do not touch each other; the same call gives the same bits.
//
// As Marlin: weights cross once, by cp.async four stages deep, decoded between shared memory and registers. Other than Marlin, they
// are read as they are stored: the fragments' k are permuted instead (common/tile.cuh), so there is no second layout of a checkpoint.
// Limit: bandwidth for few rows, tensor cores for many. Not timed on a GPU so far.
//
//   ROWS 16: 8 warps side by side, each 16 x 16 of y        ROWS 64: 2 x 4 warps, each 32 x 32 of y
#include "common/mma.cuh"
#include "common/pairs.cuh"
#include "common/tile.cuh"

enum : unsigned { COLUMNS = 128, DEPTH = 64, CHUNK = 32, STAGES = 4, THREADS = 256 };
enum Zero { SYM, ASYM, FLOAT };

template <unsigned BITS, unsigned ROWS> struct Shape {
    using X = Tile<ROWS, DEPTH * 2>;
    using W = Tile<COLUMNS, DEPTH * BITS / 8>;
    static constexpr unsigned WARP_ROWS = ROWS == 16 ? 16 : 32, WARPS_DOWN = ROWS / WARP_ROWS, WARP_COLUMNS = COLUMNS / (8 / WARPS_DOWN);
    static constexpr unsigned DOWN = WARP_ROWS / 16, ACROSS = WARP_COLUMNS / 8;  // mma tiles of a warp
};

template <unsigned BITS, class T, Zero ZERO, unsigned ROWS>
__device__ void wna16_mma(const T* x, const unsigned* words, const T* scale, const void* zero, T* y, float* parts, unsigned M, unsigned N,
                          unsigned K, unsigned group, unsigned depth) {
    using S = Shape<BITS, ROWS>;
    const unsigned downs = (M + ROWS - 1) / ROWS;
    // Blocks that read the same weights follow each other.
    const unsigned m0 = blockIdx.x % downs * ROWS, n0 = blockIdx.x / downs * COLUMNS;
    const unsigned first = blockIdx.y * depth, end = K - first < depth ? K : first + depth;
    const unsigned warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const unsigned warp_m = warp % S::WARPS_DOWN * S::WARP_ROWS, warp_n = warp / S::WARPS_DOWN * S::WARP_COLUMNS;
    const size_t x_bytes = size_t(K) * 2, w_bytes = (size_t(K) * BITS + 31) / 32 * 4, groups = K / group;

    const Pipeline<typename S::X, typename S::W, STAGES, THREADS> tiles{{x, M, x_bytes, m0}, {words, N, w_bytes, n0}};
    const auto fill = [&](unsigned stage, unsigned k) { tiles.fill(stage, k < end, size_t(k) * 2, size_t(k) * BITS / 8); };
    for (unsigned stage = 0; stage < STAGES - 1; stage++) fill(stage, first + stage * DEPTH);

    float total[S::DOWN][S::ACROSS][4] = {}, sum[S::DOWN][S::ACROSS][4] = {}, x_sum[S::DOWN][4] = {};
    float scales[S::ACROSS][2] = {}, shifts[S::ACROSS][2] = {};  // of columns 2 t and 2 t + 1, as the sums lie
    unsigned zeros[S::ACROSS];                                   // of column g, as the codes lie
    for (unsigned& each : zeros) each = 1u << (BITS - 1);
    unsigned at_group = first / group, left = 0;                 // columns until the next group

    for (unsigned stage = 0, k0 = first; k0 < end; stage++, k0 += DEPTH) {
        const unsigned char *x_tile = tiles.take(stage), *w_tile = x_tile + S::X::SIZE;
        fill(stage + STAGES - 1, k0 + (STAGES - 1) * DEPTH);
#pragma unroll
        for (unsigned chunk = 0; chunk < DEPTH / CHUNK; chunk++) {
            const unsigned k = k0 + chunk * CHUNK;
            if (k >= end) break;
            if (left == 0) {  // the scales have until the end of the group to arrive
                at_group = k / group, left = group - k % group;
#pragma unroll
                for (unsigned across = 0; across < S::ACROSS; across++) {
                    const unsigned n = n0 + warp_n + across * 8;
                    for (unsigned each = 0; each < 2; each++) {
                        if (n + 2 * t + each >= N) continue;
                        const size_t at = (n + 2 * t + each) * groups + at_group;
                        scales[across][each] = widen(scale[at]);
                        if (ZERO == FLOAT) shifts[across][each] = widen(static_cast<const T*>(zero)[at]) - float(1 << (BITS - 1));
                    }
                    if (ZERO == ASYM && n + g < N) zeros[across] = static_cast<const unsigned char*>(zero)[(n + g) * groups + at_group];
                }
            }
            unsigned a[S::DOWN][2][4];  // [..][step of mma][register]
#pragma unroll
            for (unsigned down = 0; down < S::DOWN; down++) {
#pragma unroll
                for (unsigned half = 0; half < 2; half++) {
                    const unsigned row = warp_m + down * 16 + half * 8 + g;
                    unsigned pairs[4];
                    value_pairs(load<Words<4>>(x_tile + S::X::place(row, chunk * CHUNK * 2 + t * 16)), pairs);
                    for (unsigned i = 0; i < 4; i++) a[down][i / 2][i % 2 * 2 + half] = pairs[i];
                }
            }
#pragma unroll
            for (unsigned across = 0; across < S::ACROSS; across++) {
                unsigned pairs[4];
                const unsigned byte = S::W::place(warp_n + across * 8 + g, chunk * CHUNK * BITS / 8);
                code_pairs<BITS>(w_tile + byte, t, zeros[across], pairs, T{});
                const unsigned b[2][2] = {{pairs[0], pairs[1]}, {pairs[2], pairs[3]}};
#pragma unroll
                for (unsigned step = 0; step < 2; step++)
                    for (unsigned down = 0; down < S::DOWN; down++) mma(sum[down][across], a[down][step], b[step], T{});
            }
            if (ZERO == FLOAT) {
                const unsigned ones[2] = {one_pair(T{}), one_pair(T{})};
                for (unsigned step = 0; step < 2; step++)
                    for (unsigned down = 0; down < S::DOWN; down++) mma(x_sum[down], a[down][step], ones, T{});
            }
            left -= left < CHUNK ? left : CHUNK;
            if (left == 0 || k + CHUNK >= end) {
#pragma unroll
                for (unsigned down = 0; down < S::DOWN; down++) {
#pragma unroll
                    for (unsigned across = 0; across < S::ACROSS; across++) {
#pragma unroll
                        for (unsigned i = 0; i < 4; i++) {
                            float whole = sum[down][across][i];
                            if (ZERO == FLOAT) whole = fmaf(-shifts[across][i % 2], x_sum[down][i], whole);
                            total[down][across][i] = fmaf(scales[across][i % 2], whole, total[down][across][i]);
                            sum[down][across][i] = 0.f;
                        }
                    }
                    for (float& each : x_sum[down]) each = 0.f;
                }
            }
        }
    }
    wait_async<0>();
    for (unsigned down = 0; down < S::DOWN; down++) {
        for (unsigned across = 0; across < S::ACROSS; across++) {
            for (unsigned i = 0; i < 4; i++) {
                const unsigned m = m0 + warp_m + down * 16 + i / 2 * 8 + g, n = n0 + warp_n + across * 8 + t * 2 + i % 2;
                if (m >= M || n >= N) continue;
                if (parts)
                    parts[(size_t(blockIdx.y) * M + m) * N + n] = total[down][across][i];
                else
                    narrow(total[down][across][i], y[size_t(m) * N + n]);
            }
        }
    }
}

// The slices' parts, in order.
template <class T> __device__ void wna16_mma_sum(const float* parts, T* y, unsigned slices, unsigned M, unsigned N) {
    const size_t at = size_t(blockIdx.x) * THREADS + threadIdx.x, count = size_t(M) * N;
    if (at >= count) return;
    float total = 0.f;
    for (unsigned slice = 0; slice < slices; slice++) total += parts[slice * count + at];
    narrow(total, y[at]);
}

#define ENTRY(NAME, BITS, T, ZERO, ROWS)                                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS, ROWS == 16 ? 2 : 1)                                                                      \
        NAME(const T* x, const unsigned* words, const T* scale, const void* zero, T* y, float* parts, unsigned M, unsigned N,     \
             unsigned K, unsigned group, unsigned depth) {                                                                        \
        wna16_mma<BITS, T, ZERO, ROWS>(x, words, scale, zero, y, parts, M, N, K, group, depth);                                   \
    }
#define ZEROS(BITS, NAME, T, ROWS)                                    \
    ENTRY(wna16_mma_w##BITS##_##NAME##_sym_m##ROWS, BITS, T, SYM, ROWS)     \
    ENTRY(wna16_mma_w##BITS##_##NAME##_asym_m##ROWS, BITS, T, ASYM, ROWS)   \
    ENTRY(wna16_mma_w##BITS##_##NAME##_float_m##ROWS, BITS, T, FLOAT, ROWS)
#define INSTANCES(BITS)       \
    ZEROS(BITS, f16, F16, 16)   \
    ZEROS(BITS, f16, F16, 64)   \
    ZEROS(BITS, bf16, BF16, 16) \
    ZEROS(BITS, bf16, BF16, 64)
#define SUM(NAME, T)                                                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS) NAME(const float* parts, T* y, unsigned slices, unsigned M, unsigned N) { \
        wna16_mma_sum(parts, y, slices, M, N);                                                                              \
    }

INSTANCES(2)
INSTANCES(3)
INSTANCES(4)
INSTANCES(8)
SUM(wna16_mma_sum_f16, F16)
SUM(wna16_mma_sum_bf16, BF16)
