// w8a8: y[m, n] = f32(sum_k x[m, k] * w[n, k]) * x_scale[m] * w_scale[n] + bias[n], in this order, each step rounded.
//   x [M, K] i8 | w [N, K] i8 | x_scale [M] or [1] f32 | w_scale [N] or [1] f32 | bias [N] f32, or null | y [M, N] f32
//   x_step and w_step: 1 for a scale per row, 0 for a single one. All row-major; K below 2^17, so that int32 holds every sum.
//   parts [gridDim.y, M, N] i32, or null; depth: columns of K that a block sums, a multiple of 128
//   Grid (ceil(M / ROWS) * ceil(N / COLUMNS), ceil(K / depth)) x threads as the entries say; stages of (ROWS + COLUMNS) * 128 bytes of
//   shared memory. With one slice of K y is written; with more each writes its part, and w8a8_sum adds them, grid ceil(M * N / 256) x 256.
//   The sum is exact, so the bits are those of every other path.
//
// int8 tensor cores, tiles by cp.async, fragments by wide loads (common/tile.cuh). For more than 16 rows sm_90a has wgmma:
// w8a8_sm90a.cu. Limit: bandwidth for few rows, the int8 rate for many. Not timed on a GPU so far.
//
//   w8a8_m16:   16 x  64 of y, 4 warps side by side, each 16 x 16, 4 stages
//   w8a8_m128: 128 x 128 of y, 2 x 4 warps, each 64 x 32, 3 stages
#include "common/mma.cuh"
#include "common/scaled.cuh"
#include "common/tile.cuh"

enum : unsigned { DEPTH = 128, CHUNK = 64, SUM_THREADS = 256 };

template <unsigned ROWS, unsigned COLUMNS, unsigned WARP_ROWS, unsigned WARP_COLUMNS, unsigned STAGES>
__device__ void w8a8(const signed char* x, const signed char* w, const ExactResult& result, unsigned K, unsigned depth) {
    using X = Tile<ROWS, DEPTH>;
    using W = Tile<COLUMNS, DEPTH>;
    constexpr unsigned WARPS_DOWN = ROWS / WARP_ROWS, THREADS = WARPS_DOWN * (COLUMNS / WARP_COLUMNS) * 32;
    constexpr unsigned DOWN = WARP_ROWS / 16, ACROSS = WARP_COLUMNS / 8;  // mma tiles of a warp
    const unsigned M = result.M, N = result.N, downs = (M + ROWS - 1) / ROWS;
    // Blocks that read the same weights follow each other.
    const unsigned m0 = blockIdx.x % downs * ROWS, n0 = blockIdx.x / downs * COLUMNS;
    const unsigned begin = blockIdx.y * depth, end = K - begin < depth ? K : begin + depth;
    const unsigned warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const unsigned warp_m = warp % WARPS_DOWN * WARP_ROWS, warp_n = warp / WARPS_DOWN * WARP_COLUMNS;

    const Pipeline<X, W, STAGES, THREADS> tiles{{x, M, K, m0}, {w, N, K, n0}};
    for (unsigned stage = 0, k = begin; stage < STAGES - 1; stage++, k += DEPTH) tiles.fill(stage, k < end, k, k);

    int sum[DOWN][ACROSS][4] = {};
    for (unsigned stage = 0, k0 = begin; k0 < end; stage++, k0 += DEPTH) {
        const unsigned char *x_tile = tiles.take(stage), *w_tile = x_tile + X::SIZE;
        const unsigned next = k0 + (STAGES - 1) * DEPTH;
        tiles.fill(stage + STAGES - 1, next < end, next, next);
#pragma unroll
        for (unsigned chunk = 0; chunk < DEPTH / CHUNK; chunk++) {
            const unsigned byte = chunk * CHUNK + t * 16;
            unsigned a[DOWN][2][4];  // [..][step of mma][register]
#pragma unroll
            for (unsigned down = 0; down < DOWN; down++) {
#pragma unroll
                for (unsigned half = 0; half < 2; half++) {
                    const auto codes = load<Words<4>>(x_tile + X::place(warp_m + down * 16 + half * 8 + g, byte));
                    for (unsigned i = 0; i < 4; i++) a[down][i / 2][i % 2 * 2 + half] = codes.word[i];
                }
            }
#pragma unroll
            for (unsigned across = 0; across < ACROSS; across++) {
                const auto codes = load<Words<4>>(w_tile + W::place(warp_n + across * 8 + g, byte));
                const unsigned b[2][2] = {{codes.word[0], codes.word[1]}, {codes.word[2], codes.word[3]}};
#pragma unroll
                for (unsigned step = 0; step < 2; step++)
                    for (unsigned down = 0; down < DOWN; down++) mma(sum[down][across], a[down][step], b[step]);
            }
        }
    }
    wait_async<0>();
    for (unsigned down = 0; down < DOWN; down++) {
        for (unsigned across = 0; across < ACROSS; across++) {
            for (unsigned i = 0; i < 4; i++) {
                const unsigned m = m0 + warp_m + down * 16 + i / 2 * 8 + g, n = n0 + warp_n + across * 8 + t * 2 + i % 2;
                if (m < M && n < N) result.put(m, n, sum[down][across][i]);
            }
        }
    }
}

#define ENTRY(NAME, THREADS, ROWS, COLUMNS, WARP_ROWS, WARP_COLUMNS, STAGES)                                                         \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                            \
        NAME(const signed char* x, const signed char* w, const float* x_scale, const float* w_scale, const float* bias, float* y,    \
             int* parts, unsigned M, unsigned N, unsigned K, unsigned x_step, unsigned w_step, unsigned depth) {                     \
        const ExactResult result = {{x_scale, w_scale, bias, x_step, w_step}, y, parts, M, N};                                       \
        w8a8<ROWS, COLUMNS, WARP_ROWS, WARP_COLUMNS, STAGES>(x, w, result, K, depth);                                                \
    }

ENTRY(w8a8_m16, 128, 16, 64, 16, 16, 4)
ENTRY(w8a8_m128, 256, 128, 128, 64, 32, 3)

// The slices' parts, in order.
extern "C" __global__ void __launch_bounds__(SUM_THREADS)
    w8a8_sum(const int* parts, const float* x_scale, const float* w_scale, const float* bias, float* y, unsigned slices, unsigned M,
             unsigned N, unsigned x_step, unsigned w_step) {
    const size_t at = size_t(blockIdx.x) * SUM_THREADS + threadIdx.x, count = size_t(M) * N;
    if (at >= count) return;
    int total = 0;
    for (unsigned slice = 0; slice < slices; slice++) total += parts[slice * count + at];
    y[at] = Epilogue{x_scale, w_scale, bias, x_step, w_step}(total, unsigned(at / N), unsigned(at % N));
}
