// The simplest product that is right for every shape: a block makes one tile of y, both operands as f32 in shared memory, without
// tensor cores, loading and computing in turn. What wna16.cu and lookup.cu share.
//   Grid ceil(M / 64) * ceil(N / 64) x 256 threads, no dynamic shared memory. One rounding a multiply-add, k ascending:
//   |error| <= K * 2^-24 * sum_k |x w| before y is rounded, and a row of y is the same bits whatever the other rows are.
//   NaN and infinity spread as IEEE 754 has it; what overflows y becomes infinity (common/convert.cuh).
//
//            N, 64 a block                 a thread (i, j) of 16 x 16 holds y at rows i, i + 16, i + 32, i + 48
//          +---------------+               and columns j, j + 16, ...: neighbours write, and read from w_tile,
//   K, 32  |    w_tile     |               neighbouring elements, and 16 of them share an x
//          +---------------+
//   +----+ +---------------+
//   |  x | |    y, 64 x 64 |               loading: thread t takes row t / 4 of either operand and 8 codes from t % 4 * 8 on;
//   |tile| |               |               the 65th column of a tile keeps the 32 stores of a warp in 32 banks
//   +----+ +---------------+
#pragma once
#include "common/convert.cuh"

enum : unsigned { TILE = 64, DEPTH = 32, SIDE = 16, THREADS = SIDE * SIDE, EACH = TILE / SIDE, LOADS = TILE * DEPTH / THREADS };

// y [M, N] of x [M, K] and weight(n, k), an f32.
template <class T, class Weight>
__device__ void plain_product(const T* x, const Weight& weight_at, T* y, unsigned M, unsigned N, unsigned K) {
    __shared__ float x_tile[DEPTH][TILE + 1], w_tile[DEPTH][TILE + 1];
    // M, N and K are below 2^31, so that a tile's overhang still fits; products of two of them may not, hence size_t.
    const unsigned tiles = (N + TILE - 1) / TILE, m0 = blockIdx.x / tiles * TILE, n0 = blockIdx.x % tiles * TILE;
    const unsigned i = threadIdx.x / SIDE, j = threadIdx.x % SIDE;
    const unsigned row = threadIdx.x / (DEPTH / LOADS), column = threadIdx.x % (DEPTH / LOADS) * LOADS;
    const unsigned m = m0 + row, n = n0 + row;

    float sum[EACH][EACH] = {};
    for (unsigned k0 = 0; k0 < K; k0 += DEPTH) {
#pragma unroll 1  // here and below: unrolled in full, the driver takes twice as long to compile the entries at the first load
        for (unsigned l = 0; l < LOADS; l++) {
            const unsigned k = k0 + column + l;
            float activation = 0.f, weight = 0.f;  // what lies beyond an edge, NaN included, adds nothing
            if (m < M && k < K) activation = widen(x[size_t(m) * K + k]);
            if (n < N && k < K) weight = weight_at(n, k);
            x_tile[column + l][row] = activation;
            w_tile[column + l][row] = weight;
        }
        __syncthreads();
#pragma unroll 4
        for (unsigned k = 0; k < DEPTH; k++) {
            float xs[EACH], ws[EACH];
            for (unsigned e = 0; e < EACH; e++) xs[e] = x_tile[k][i + e * SIDE], ws[e] = w_tile[k][j + e * SIDE];
            for (unsigned a = 0; a < EACH; a++)
                for (unsigned b = 0; b < EACH; b++) sum[a][b] = fmaf(xs[a], ws[b], sum[a][b]);
        }
        __syncthreads();  // before the next step overwrites the tiles
    }
    for (unsigned a = 0; a < EACH; a++) {
        for (unsigned b = 0; b < EACH; b++) {
            const unsigned at_m = m0 + i + a * SIDE, at_n = n0 + j + b * SIDE;
            if (at_m < M && at_n < N) narrow(sum[a][b], y[size_t(at_m) * N + at_n]);
        }
    }
}
