// fp8: y[m, n] = sum_b (sum_k x[m, k] * w[n, k]) * (x_scale[m, b] * w_scale[n, b]) + bias[n], b = k / 128; 8-bit floats.
//   x [M, K] and w [N, K]: codes, all E4M3 or all E5M2 | bias [N] f32, or null | y [M, N] f32
//   x_scale, w_scale [R, B] f32: row r of the matrix has the scales of row min(r / tall, R - 1), all columns those of block 0 if B is 1
//   parts [gridDim.y, M, N] f32, or null; depth: columns of K that a block sums, a multiple of 128
//   All row-major, M and N below 2^31. Grid (ceil(M / ROWS) * ceil(N / 128), ceil(K / depth)) x 256 threads; STAGES * (ROWS + 128) * 128
//   bytes of dynamic shared memory; ROWS is 16 or 64. With one slice of K y is written; with more each writes its part, and sum.cu
//   adds them.
//   Codes become f16, exactly but for a power of two that the scales take back; sums of 128 columns, and over them, are f32:
//   |error| <= (K + 3) * 2^-23 * (sum_k |x w| x_scale w_scale + |bias|). NaN and infinity spread.
//
// On sm_80 there are no tensor cores for 8-bit floats, and on sm_90 mma has none of its own: both decode (three to seven operations
// for four codes) and use those for f16. For more than 16 rows sm_90a has wgmma: fp8_sm90a.cu. Limit: bandwidth for few rows, the f16
// rate and the decoding for many. Not timed on a GPU so far.
//
//   ROWS 16: 8 warps side by side, each 16 x 16 of y        ROWS 64: 2 x 4 warps, each 32 x 32 of y
#include "common/float8.cuh"

template <class Format, unsigned ROWS>
__device__ void fp8(const unsigned char* x, const Scales& x_scale, const Floats<Format>& weight, const Result& result, unsigned K,
                    unsigned depth) {
    const unsigned M = result.M, downs = (M + ROWS - 1) / ROWS;
    // Blocks that read the same weights follow each other.
    const unsigned m0 = blockIdx.x % downs * ROWS, n0 = blockIdx.x / downs * COLUMNS;
    const Operand rows = {x, M, K, m0};
    float8_product<ROWS>(rows, x_scale, weight, result, m0, M, n0, K, depth);
}

#define ENTRY(NAME, FORMAT, ROWS)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                                                           \
        NAME(const unsigned char* x, const unsigned char* w, const float* x_scale, const float* w_scale, const float* bias, float* y,  \
             float* parts, unsigned M, unsigned N, unsigned K, unsigned x_rows, unsigned x_blocks, unsigned x_tall, unsigned w_rows,   \
             unsigned w_blocks, unsigned w_tall, unsigned depth) {                                                                     \
        const Scales of_x = {x_scale, x_rows, x_blocks, x_tall}, of_w = {w_scale, w_rows, w_blocks, w_tall};                           \
        fp8<FORMAT, ROWS>(x, of_x, {w, of_w}, {bias, y, parts, M, N}, K, depth);                                                       \
    }

ENTRY(fp8_e4m3fn_m16, E4m3, 16)
ENTRY(fp8_e4m3fn_m64, E4m3, 64)
ENTRY(fp8_e5m2_m16, E5m2, 16)
ENTRY(fp8_e5m2_m64, E5m2, 64)
