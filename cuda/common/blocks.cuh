// Products of two operands in blocks that share a scale, a tile of ROWS x COLUMNS of y a block: what block_scaled_pair.cu and
// block_scaled_pair_sm120a.cu share, which say how a stage is multiplied, and of which block_scaled_pair_sm100a.cu has the tiles.
#pragma once
#include "common/elements.cuh"
#include "common/scaled.cuh"
#include "common/tile.cuh"

enum : unsigned { COLUMNS = 128, BYTES = 128, THREADS = 256 };

// Codes and their scales, as matrices of bytes.
struct Blocks {
    Operand codes, scales;
    template <class Format> __device__ static Blocks of(const void* codes, const void* scales, unsigned rows, size_t K, unsigned row) {
        return {{codes, rows, K * Format::BITS / 8, row}, {scales, rows, K / Format::BLOCK, row}};
    }
};

// BYTES of codes of each row, and behind them all the scales of those.
template <class Format, unsigned ROWS, bool SWIZZLED> struct BlocksTile {
    static constexpr bool WGMMA = false;
    static constexpr unsigned DEPTH = BYTES * 8 / Format::BITS;  // columns
    using Codes = Tile<ROWS, BYTES, SWIZZLED>;
    using Scales = Tile<ROWS, DEPTH / Format::BLOCK>;
    static constexpr unsigned SIZE = Codes::SIZE + Scales::SIZE;

    template <unsigned THREADS> __device__ static void fill(unsigned char* tile, const Blocks& of, size_t k) {
        Codes::template fill<THREADS>(tile, of.codes, k * Format::BITS / 8);
        Scales::template fill<THREADS>(tile + Codes::SIZE, of.scales, k / Format::BLOCK);
    }
    __device__ static unsigned scale(unsigned row, unsigned at) { return Codes::SIZE + Scales::place(row, at); }
};

// The part of a tile that a warp computes, of a block of THREADS.
template <unsigned ROWS> struct Warp {
    static constexpr unsigned WARPS_DOWN = ROWS == 16 ? 1 : 2, ROWS_EACH = ROWS / WARPS_DOWN, COLUMNS_EACH = COLUMNS / (8 / WARPS_DOWN);
    static constexpr unsigned DOWN = ROWS_EACH / 16, ACROSS = COLUMNS_EACH / 8;  // mma tiles
    unsigned m = threadIdx.x / 32 % WARPS_DOWN * ROWS_EACH, n = threadIdx.x / 32 / WARPS_DOWN * COLUMNS_EACH;
    unsigned lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
};

// y [M, N] of x and w, with codes and scales each; slice blockIdx.y of K, `depth` columns of it.
//   Multiply  how a warp adds the products of the tiles of one stage to its sums: `add` of (tile of x, tile of w, warp, sums)
template <class Format, unsigned ROWS, unsigned STAGES, template <class, unsigned> class Multiply>
__device__ void blocks_product(const void* x, const void* x_scale, const void* w, const void* w_scale, const Result& result, unsigned K,
                               float tensor_scale, unsigned depth) {
    using Stage = Multiply<Format, ROWS>;
    using X = BlocksTile<Format, ROWS, Stage::SWIZZLED>;
    using W = BlocksTile<Format, COLUMNS, Stage::SWIZZLED>;
    const unsigned M = result.M, N = result.N, downs = (M + ROWS - 1) / ROWS;
    // Blocks that read the same weights follow each other.
    const unsigned m0 = blockIdx.x % downs * ROWS, n0 = blockIdx.x / downs * COLUMNS;
    const unsigned begin = blockIdx.y * depth, end = K - begin < depth ? K : begin + depth;
    const Warp<ROWS> warp;

    const Pipeline<X, W, STAGES, THREADS, Blocks, Blocks> tiles{Blocks::of<Format>(x, x_scale, M, K, m0),
                                                                Blocks::of<Format>(w, w_scale, N, K, n0)};
    const auto fill = [&](unsigned stage) {
        const unsigned k = begin + stage * X::DEPTH;
        tiles.fill(stage, k < end, k, k);
    };
    for (unsigned stage = 0; stage < STAGES - 1; stage++) fill(stage);

    float total[Warp<ROWS>::DOWN][Warp<ROWS>::ACROSS][4] = {};
    for (unsigned stage = 0, k = begin; k < end; stage++, k += X::DEPTH) {
        const unsigned char* tile = tiles.take(stage);
        fill(stage + STAGES - 1);
        Stage::add(tile, tile + X::SIZE, warp, total);
    }
    wait_async<0>();
#pragma unroll
    for (unsigned down = 0; down < Warp<ROWS>::DOWN; down++) {
#pragma unroll
        for (unsigned across = 0; across < Warp<ROWS>::ACROSS; across++) {
#pragma unroll
            for (unsigned i = 0; i < 4; i++) {
                const unsigned m = m0 + warp.m + down * 16 + i / 2 * 8 + warp.g, n = n0 + warp.n + across * 8 + warp.t * 2 + i % 2;
                if (m < M && n < N) result.put(m, n, total[down][across][i] * tensor_scale);
            }
        }
    }
}

#define BLOCKS_ENTRY(NAME, FORMAT, ROWS, STAGES, MULTIPLY)                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                                                             \
        NAME(const unsigned* x, const unsigned* words, const unsigned char* x_scale, const unsigned char* w_scale, float* y, float* parts, \
             unsigned M, unsigned N, unsigned K, float tensor_scale, unsigned depth) {                                                   \
        blocks_product<FORMAT, ROWS, STAGES, MULTIPLY>(x, x_scale, words, w_scale, {nullptr, y, parts, M, N}, K, tensor_scale, depth);    \
    }
