// w8a8_sm90a: w8a8.cu for many rows by wgmma: the same exact sums, so the same bits.
//   Arguments and grid as there, tiles of ROWS x 128, blocks of 2 * ROWS threads, STAGES * (ROWS + 128) * 128 bytes of dynamic shared
//   memory that begins at a multiple of 1024; ROWS is 64 or 128. More than one slice of K is added by w8a8_sum.
//
// A warpgroup computes 64 x 128 of y: four wgmma a stage of 128 columns, straight from the tiles that cp.async fills in the 128-byte
// swizzle (common/wgmma.cuh). A stage is multiplied before the one in front of it is done, so of four stages two are being copied. Limit:
// the int8 rate and the bandwidth of L2 (no clusters, no TMA). Run on the emulator alone so far, on no GPU.
#include "common/scaled.cuh"
#include "common/tile.cuh"
#include "common/wgmma.cuh"

enum : unsigned { COLUMNS = 128, DEPTH = 128, STEP = 32, STAGES = 4 };

template <unsigned ROWS>
__device__ void w8a8(const signed char* x, const signed char* w, const ExactResult& result, unsigned K, unsigned depth) {
    using X = Tile<ROWS, DEPTH, true>;
    using W = Tile<COLUMNS, DEPTH, true>;
    const unsigned M = result.M, N = result.N, downs = (M + ROWS - 1) / ROWS;
    // Blocks that read the same weights follow each other.
    const unsigned m0 = blockIdx.x % downs * ROWS, n0 = blockIdx.x / downs * COLUMNS;
    const unsigned begin = blockIdx.y * depth, end = K - begin < depth ? K : begin + depth;

    using Tiles = Pipeline<X, W, STAGES, 2 * ROWS>;
    const Tiles tiles{{x, M, K, m0}, {w, N, K, n0}};
    const auto fill = [&](unsigned stage) {
        const unsigned k = begin + stage * DEPTH;
        tiles.fill(stage, k < end, k, k);
    };
    for (unsigned stage = 0; stage < Tiles::AHEAD; stage++) fill(stage);

    int sum[64] = {};
    for (unsigned stage = 0, k = begin; k < end; stage++, k += DEPTH) {
        const unsigned char* tile = tiles.take(stage);
        const auto a = descriptor(tile + threadIdx.x / 128 * 64 * DEPTH), b = descriptor(tile + X::SIZE);
        wgmma_fence();
#pragma unroll
        for (unsigned step = 0; step < DEPTH / STEP; step++) wgmma(sum, a + step * STEP / 16, b + step * STEP / 16, true, S8{});
        wgmma_commit();
        fill(stage + Tiles::AHEAD);
        wgmma_wait<1>();  // then nobody reads the stage before
    }
    wgmma_wait<0>(sum);
    wait_async<0>();
#pragma unroll
    for (unsigned i = 0; i < 64; i++) {
        const unsigned m = m0 + threadIdx.x / 32 * 16 + i / 2 % 2 * 8 + threadIdx.x % 32 / 4;
        const unsigned n = n0 + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2;
        if (m < M && n < N) result.put(m, n, sum[i]);
    }
}

#define ENTRY(NAME, ROWS)                                                                                                            \
    extern "C" __global__ void __launch_bounds__(2 * ROWS)                                                                           \
        NAME(const signed char* x, const signed char* w, const float* x_scale, const float* w_scale, const float* bias, float* y,    \
             int* parts, unsigned M, unsigned N, unsigned K, unsigned x_step, unsigned w_step, unsigned depth) {                     \
        w8a8<ROWS>(x, w, {{x_scale, w_scale, bias, x_step, w_step}, y, parts, M, N}, K, depth);                                      \
    }

ENTRY(w8a8_sm90a_m64, 64)
ENTRY(w8a8_sm90a_m128, 128)
