// Products of 8-bit floats on tensor cores for f16, a tile of ROWS x COLUMNS of y a block: what fp8.cu, which tells how, fp8_grouped.cu
// and int4_fp8.cu share.
#pragma once
#include "common/minifloat.cuh"
#include "common/mma.cuh"
#include "common/scaled.cuh"
#include "common/tile.cuh"

enum : unsigned { COLUMNS = 128, DEPTH = 128, CHUNK = 64, STAGES = 3, THREADS = 256 };

// The weight as a class has it: which codes of x it wants in a pair, its own pairs, and the factors of sums over `span` columns, 64 or
// 128, those of x's format taken back.
template <class Format_> struct Floats {
    using Format = Format_;
    using Codes = Tile<COLUMNS, DEPTH>;
    static constexpr unsigned span = 128;
    const unsigned char* codes;
    Scales scales;
    __device__ static size_t bytes(size_t k) { return k; }
    __device__ static void widen_x(const Words<4>& codes, unsigned (&pairs)[4][2]) { widen_codes<Format>(codes, pairs); }
    // Those of lane t of the four that share a row of a tile.
    __device__ static void widen(const unsigned char* tile, unsigned row, unsigned chunk, unsigned t, unsigned (&pairs)[4][2]) {
        widen_codes<Format>(load<Words<4>>(tile + Codes::place(row, chunk * CHUNK + t * 16)), pairs);
    }
    __device__ float factor(unsigned n, unsigned k) const { return scales.at(n, k / span) * (Format::SCALE * Format::SCALE); }
};

// Rows `m0` to `m_end` of y [M, N], ROWS of them, and COLUMNS columns from n0 on; slice blockIdx.y of K, `depth` columns of it.
// x: the rows that meet them, as an Operand or one that chooses them (common/experts.cuh); rows it has not give NaN.
template <unsigned ROWS, class Weight, class Rows>
__device__ void float8_product(const Rows& x, const Scales& x_scale, const Weight& weight, const Result& result, unsigned m0, unsigned m_end,
                               unsigned n0, unsigned K, unsigned depth) {
    using X = Tile<ROWS, DEPTH>;
    using W = typename Weight::Codes;
    constexpr unsigned WARP_ROWS = ROWS == 16 ? 16 : 32, WARPS_DOWN = ROWS / WARP_ROWS, WARP_COLUMNS = COLUMNS / (8 / WARPS_DOWN);
    constexpr unsigned DOWN = WARP_ROWS / 16, ACROSS = WARP_COLUMNS / 8;  // mma tiles of a warp
    const unsigned N = result.N, begin = blockIdx.y * depth, end = K - begin < depth ? K : begin + depth;
    const unsigned warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const unsigned warp_m = warp % WARPS_DOWN * WARP_ROWS, warp_n = warp / WARPS_DOWN * WARP_COLUMNS;

    const Pipeline<X, W, STAGES, THREADS, Rows> tiles{x, {weight.codes, N, Weight::bytes(K), n0}};
    const auto fill = [&](unsigned stage, unsigned k) { tiles.fill(stage, k < end, k, Weight::bytes(k)); };
    for (unsigned stage = 0; stage < STAGES - 1; stage++) fill(stage, begin + stage * DEPTH);

    unsigned number[DOWN][2];  // of the row of x
#pragma unroll
    for (unsigned down = 0; down < DOWN; down++)
        for (unsigned half = 0; half < 2; half++) number[down][half] = x.at(warp_m + down * 16 + half * 8 + g);

    float total[DOWN][ACROSS][4] = {}, sum[DOWN][ACROSS][4] = {};
    for (unsigned stage = 0, k0 = begin; k0 < end; stage++, k0 += DEPTH) {
        const unsigned char *x_tile = tiles.take(stage), *w_tile = x_tile + X::SIZE;
        fill(stage + STAGES - 1, k0 + (STAGES - 1) * DEPTH);
#pragma unroll
        for (unsigned chunk = 0; chunk < DEPTH / CHUNK; chunk++) {
            unsigned a[DOWN][4][4];  // [..][step of mma][register]
#pragma unroll
            for (unsigned down = 0; down < DOWN; down++) {
#pragma unroll
                for (unsigned half = 0; half < 2; half++) {
                    const unsigned row = warp_m + down * 16 + half * 8 + g;
                    unsigned pairs[4][2];
                    Weight::widen_x(load<Words<4>>(x_tile + X::place(row, chunk * CHUNK + t * 16)), pairs);
#pragma unroll
                    for (unsigned step = 0; step < 4; step++)
                        a[down][step][half] = pairs[step][0], a[down][step][2 + half] = pairs[step][1];
                }
            }
#pragma unroll
            for (unsigned across = 0; across < ACROSS; across++) {
                unsigned b[4][2];
                Weight::widen(w_tile, warp_n + across * 8 + g, chunk, t, b);
#pragma unroll
                for (unsigned step = 0; step < 4; step++)
                    for (unsigned down = 0; down < DOWN; down++) mma(sum[down][across], a[down][step], b[step], F16{});
            }
            const unsigned next = k0 + (chunk + 1) * CHUNK, k = next - weight.span;
            if (next % weight.span || k >= end) continue;
            float of_row[DOWN][2], of_column[ACROSS][2];
#pragma unroll
            for (unsigned down = 0; down < DOWN; down++) {
                for (unsigned half = 0; half < 2; half++)
                    of_row[down][half] = number[down][half] < x.rows ? x_scale.at(number[down][half], k / DEPTH) : 0.f;
            }
#pragma unroll
            for (unsigned across = 0; across < ACROSS; across++) {
                for (unsigned each = 0; each < 2; each++) {
                    const unsigned n = n0 + warp_n + across * 8 + t * 2 + each;
                    of_column[across][each] = n < N ? weight.factor(n, k) : 0.f;
                }
            }
#pragma unroll
            for (unsigned down = 0; down < DOWN; down++) {
#pragma unroll
                for (unsigned across = 0; across < ACROSS; across++) {
#pragma unroll
                    for (unsigned i = 0; i < 4; i++) {
                        float& all = total[down][across][i];
                        all = fmaf(sum[down][across][i], of_row[down][i / 2] * of_column[across][i % 2], all);
                        sum[down][across][i] = 0.f;
                    }
                }
            }
        }
    }
    wait_async<0>();
#pragma unroll
    for (unsigned down = 0; down < DOWN; down++) {
#pragma unroll
        for (unsigned across = 0; across < ACROSS; across++) {
#pragma unroll
            for (unsigned i = 0; i < 4; i++) {
                const unsigned m = m0 + warp_m + down * 16 + i / 2 * 8 + g, n = n0 + warp_n + across * 8 + t * 2 + i % 2;
                if (m >= m_end || n >= N) continue;
                result.put(m, n, number[down][i / 2] < x.rows ? total[down][across][i] : bit_cast<float>(0x7fffffff));
            }
        }
    }
}
