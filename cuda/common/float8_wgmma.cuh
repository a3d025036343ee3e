// Products of 8-bit floats on Hopper's tensor cores, a tile of ROWS x 128 of y a block of 2 * ROWS threads: what fp8_sm90a.cu, which
// tells how, and fp8_grouped_sm90a.cu share.
#pragma once
#include "common/scaled.cuh"
#include "common/tile.cuh"
#include "common/wgmma.cuh"

enum : unsigned { COLUMNS = 128, DEPTH = 128, STEP = 32, STAGES = 4 };

// Rows `m0` to `m_end` of y [M, N], ROWS of them, and COLUMNS columns from n0 on; slice blockIdx.y of K, `depth` columns of it.
// x: the rows that meet them, as an Operand or one that chooses them (common/experts.cuh); rows it has not give NaN.
template <unsigned ROWS, class Format, class Rows>
__device__ void float8_wgmma(const Rows& x, const Scales& x_scale, const unsigned char* w, const Scales& w_scale, const Result& result,
                             unsigned m0, unsigned m_end, unsigned n0, unsigned K, unsigned depth) {
    using X = Tile<ROWS, DEPTH, true>;
    using W = Tile<COLUMNS, DEPTH, true>;
    constexpr unsigned THREADS = 2 * ROWS;
    const unsigned N = result.N, begin = blockIdx.y * depth, end = K - begin < depth ? K : begin + depth;
    const unsigned count = (end - begin + DEPTH - 1) / DEPTH;  // of stages
    const unsigned g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, warp_m = threadIdx.x / 32 * 16;

    using Tiles = Pipeline<X, W, STAGES, THREADS, Rows>;
    const Tiles tiles{x, {w, N, K, n0}};
    // Behind the tiles the scales of their rows, in stages as they are, those of x first.
    float* const scales = reinterpret_cast<float*>(tiles.stages + STAGES * (X::SIZE + W::SIZE));
    const auto fill = [&](unsigned stage) {
        const unsigned k = begin + stage * DEPTH;
        for (unsigned i = threadIdx.x; i < ROWS + COLUMNS && k < end; i += THREADS) {
            const unsigned row = i < ROWS ? x.at(i) : n0 + i - ROWS;
            const bool inside = row < (i < ROWS ? x.rows : N);
            const Scales& of = i < ROWS ? x_scale : w_scale;
            copy_async<4>(scales + stage % STAGES * (ROWS + COLUMNS) + i, of.place(inside ? row : 0, k / DEPTH), inside ? 4 : 0);
        }
        tiles.fill(stage, k < end, k, k);
    };
    for (unsigned stage = 0; stage < Tiles::AHEAD; stage++) fill(stage);

    float total[64] = {}, sums[2][64];
    const auto multiply = [&](unsigned stage, float(&sum)[64]) {  // starts to
        const unsigned char* tile = tiles.take(stage);
        const auto a = descriptor(tile + threadIdx.x / 128 * 64 * DEPTH), b = descriptor(tile + X::SIZE);
        wgmma_fence();
#pragma unroll
        for (unsigned step = 0; step < DEPTH / STEP; step++) wgmma(sum, a + step * STEP / 16, b + step * STEP / 16, step > 0, Format{});
        wgmma_commit();
    };
    const auto add = [&](unsigned stage, float(&sum)[64]) {
        const float *of_row = scales + stage % STAGES * (ROWS + COLUMNS) + warp_m + g, *of_column = of_row - warp_m - g + ROWS + t * 2;
        const float upper = of_row[0], lower = of_row[8];
#pragma unroll
        for (unsigned j = 0; j < COLUMNS / 8; j++) {
            const auto both = load<Words<2>>(of_column + j * 8);
#pragma unroll
            for (unsigned i = 0; i < 4; i++) {
                const float scale = (i / 2 ? lower : upper) * bit_cast<float>(both.word[i % 2]);
                total[j * 4 + i] = fmaf(sum[j * 4 + i], scale, total[j * 4 + i]);
            }
        }
    };
    // The next stage is multiplied while this one is added. No branch lies between a wgmma and its wait that the assembler could not
    // follow; it would wait at once.
    if (count > 0) {
        multiply(0, sums[0]);
        fill(Tiles::AHEAD);
        unsigned stage = 0;
        for (; stage + 2 < count; stage += 2) {
            multiply(stage + 1, sums[1]);
            fill(stage + 1 + Tiles::AHEAD);
            wgmma_wait<1>(sums[0]);
            add(stage, sums[0]);
            multiply(stage + 2, sums[0]);
            fill(stage + 2 + Tiles::AHEAD);
            wgmma_wait<1>(sums[1]);
            add(stage + 1, sums[1]);
        }
        if (stage + 1 < count) {
            multiply(stage + 1, sums[1]);
            wgmma_wait<1>(sums[0]);
            add(stage, sums[0]);
            wgmma_wait<0>(sums[1]);
            add(stage + 1, sums[1]);
        } else {
            wgmma_wait<0>(sums[0]);
            add(stage, sums[0]);
        }
    }
    wait_async<0>();
#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
        const unsigned m = m0 + warp_m + half * 8 + g;
        const bool known = x.at(warp_m + half * 8 + g) < x.rows;
#pragma unroll
        for (unsigned i = 0; i < 32; i++) {
            const unsigned n = n0 + i / 2 * 8 + t * 2 + i % 2;
            if (m < m_end && n < N) result.put(m, n, known ? total[i / 2 * 4 + half * 2 + i % 2] : bit_cast<float>(0x7fffffff));
        }
    }
}
