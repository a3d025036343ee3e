// wna16: y[m, n] = sum_k x[m, k] * scale[n, g] * (code[n, k] - zero[n, g]), g = k / group; 16-bit x, weights of 1 to 8 bits.
//   x [M, K] | words [N, ceil(K * BITS / 32)] u32, layout "dense" (common/codes.cuh) | scale [N, K / group]
//   zero [N, K / group] u8, not read by the sym entries, whose zero point is 2^(BITS - 1) | y [M, N]
//   All row-major; x, scale and y are all f16 or all bf16. Any M, N, K below 2^31; group divides K (the host checks).
//   Grid ceil(M / 64) * ceil(N / 64) x 256 threads, no dynamic shared memory.
//   f32 inside: a weight is exact (11 bits of scale times at most 9 of code - zero), one rounding a multiply-add, k ascending:
//   |error| <= K * 2^-24 * sum_k |x w| before y is rounded, and a row of y is the same bits whatever the other rows are.
//   NaN and infinity spread as IEEE 754 has it; what overflows y becomes infinity (common/convert.cuh).
//
// The simplest form that is right for every shape: a block makes one tile of y, both operands as f32 in shared memory, without
// tensor cores, loading and computing in turn. Limit: the f32 units, 2 M N K operations. Not timed on a GPU so far.
//
//            N, 64 a block                 a thread (i, j) of 16 x 16 holds y at rows i, i + 16, i + 32, i + 48
//          +---------------+               and columns j, j + 16, ...: neighbours write, and read from w_tile,
//   K, 32  |    w_tile     |               neighbouring elements, and 16 of them share an x
//          +---------------+
//   +----+ +---------------+
//   |  x | |    y, 64 x 64 |               loading: thread t takes row t / 4 of either operand and 8 codes from t % 4 * 8 on;
//   |tile| |               |               the 65th column of a tile keeps the 32 stores of a warp in 32 banks
//   +----+ +---------------+
#include "common/codes.cuh"
#include "common/convert.cuh"

enum : unsigned { TILE = 64, DEPTH = 32, SIDE = 16, THREADS = SIDE * SIDE, EACH = TILE / SIDE, LOADS = TILE * DEPTH / THREADS };

template <unsigned BITS, class T, bool ASYM>
__device__ void wna16(const T* x, const unsigned* words, const T* scale, const unsigned char* zero, T* y, unsigned M, unsigned N,
                      unsigned K, unsigned group) {
    __shared__ float x_tile[DEPTH][TILE + 1], w_tile[DEPTH][TILE + 1];
    // M, N and K are below 2^31, so that a tile's overhang still fits; products of two of them may not, hence size_t.
    const unsigned tiles = (N + TILE - 1) / TILE, m0 = blockIdx.x / tiles * TILE, n0 = blockIdx.x % tiles * TILE;
    const unsigned i = threadIdx.x / SIDE, j = threadIdx.x % SIDE;
    const unsigned row = threadIdx.x / (DEPTH / LOADS), column = threadIdx.x % (DEPTH / LOADS) * LOADS;
    const unsigned m = m0 + row, n = n0 + row;
    const size_t row_words = (size_t(K) * BITS + 31) / 32, groups = K / group;

    float sum[EACH][EACH] = {};
    for (unsigned k0 = 0; k0 < K; k0 += DEPTH) {
#pragma unroll 1  // here and below: unrolled in full, the driver takes twice as long to compile the entries at the first load
        for (unsigned l = 0; l < LOADS; l++) {
            const unsigned k = k0 + column + l;
            float activation = 0.f, weight = 0.f;  // what lies beyond an edge, NaN included, adds nothing
            if (m < M && k < K) activation = widen(x[size_t(m) * K + k]);
            if (n < N && k < K) {
                const size_t g = n * groups + k / group;
                const int zero_point = ASYM ? zero[g] : 1 << (BITS - 1), code = code_at<BITS>(words + n * row_words, k);
                weight = widen(scale[g]) * float(code - zero_point);
            }
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

// At most 64 registers a thread, so that four blocks share a multiprocessor.
#define ENTRY(NAME, BITS, T, ASYM)                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS, 4)                                                                   \
        NAME(const T* x, const unsigned* words, const T* scale, const unsigned char* zero, T* y, unsigned M, unsigned N,       \
             unsigned K, unsigned group) {                                                                                     \
        wna16<BITS, T, ASYM>(x, words, scale, zero, y, M, N, K, group);                                                        \
    }
#define INSTANCES(BITS)                                    \
    ENTRY(wna16_w##BITS##_f16_sym, BITS, F16, false)       \
    ENTRY(wna16_w##BITS##_f16_asym, BITS, F16, true)       \
    ENTRY(wna16_w##BITS##_bf16_sym, BITS, BF16, false)     \
    ENTRY(wna16_w##BITS##_bf16_asym, BITS, BF16, true)

INSTANCES(1)
INSTANCES(2)
INSTANCES(3)
INSTANCES(4)
INSTANCES(5)
INSTANCES(6)
INSTANCES(7)
INSTANCES(8)
