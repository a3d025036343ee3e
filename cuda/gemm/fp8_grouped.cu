// fp8_grouped: fp8 with a weight for each expert: y[r, n] = sum_b (sum_k x[i, k] * w[e, n, k]) * (x_scale[i, b] * w_scale[e, n, b]) + bias[e, n]
// with i = rows[r].
//   x [M, K] and w [E, N, K]: codes, all E4M3 or all E5M2 | bias [E, N] f32, or null | y [R, N] f32
//   x_scale [S, B], w_scale [E, S, B] f32: as fp8.cu has them for M rows of x, and for N of an expert
//   offsets [E + 1] u32: the rows of y that expert e computes (common/experts.cuh); if they are none, all of y is NaN
//   rows [R] u32, or null: r. A number that is no row of x makes its row of y NaN
//   parts, depth: as in fp8.cu, parts [gridDim.y, R, N]; sum.cu adds them
//   All row-major, sizes below 2^31. Grid (tiles * ceil(N / 128), ceil(K / depth)) x 256 threads, tiles = R / ROWS + min(E, R); shared
//   memory and error bound as for fp8.cu. A row is the same bits whatever the other rows are, those of fp8.cu on its expert alone.
//
// To fp8.cu as wna16_grouped.cu is to wna16_mma.cu: rows are gathered on their way to shared memory, and there is a block for every tile
// there might be. For experts of more than 16 rows sm_90a has fp8_grouped_sm90a.cu. Limit: bandwidth for few rows of an expert, tensor
// cores and the decoding for many. Not timed on a GPU so far.
#include "common/experts.cuh"
#include "common/float8.cuh"

template <class Format, unsigned ROWS>
__device__ void fp8_grouped(const unsigned char* x, const Scales& x_scale, Floats<Format> weight, const unsigned* offsets, const unsigned* rows,
                            Result result, unsigned M, unsigned E, unsigned K, unsigned depth) {
    const unsigned R = result.M, N = result.N, tiles = R / ROWS + (E < R ? E : R);
    const Part part = part_of<ROWS>(offsets, E, R, blockIdx.x % tiles);
    if (part.first >= part.end) return;
    const size_t expert = part.expert;
    weight.codes += expert * N * K, weight.scales.values += expert * weight.scales.rows * weight.scales.blocks;
    if (result.bias) result.bias += expert * N;
    const Gathered gathered = {x, part.known ? M : 0, K, rows, part.first, part.end};
    float8_product<ROWS>(gathered, x_scale, weight, result, part.first, part.end, blockIdx.x / tiles * COLUMNS, K, depth);
}

#define ENTRY(NAME, FORMAT, ROWS)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                                                           \
        NAME(const unsigned char* x, const unsigned char* w, const float* x_scale, const float* w_scale, const unsigned* offsets,      \
             const float* bias, const unsigned* rows, float* y, float* parts, unsigned M, unsigned E, unsigned R, unsigned N,          \
             unsigned K, unsigned x_rows, unsigned x_blocks, unsigned x_tall, unsigned w_rows, unsigned w_blocks, unsigned w_tall,     \
             unsigned depth) {                                                                                                         \
        const Scales of_x = {x_scale, x_rows, x_blocks, x_tall}, of_w = {w_scale, w_rows, w_blocks, w_tall};                           \
        fp8_grouped<FORMAT, ROWS>(x, of_x, {w, of_w}, offsets, rows, {bias, y, parts, R, N}, M, E, K, depth);                          \
    }

ENTRY(fp8_grouped_e4m3fn_m16, E4m3, 16)
ENTRY(fp8_grouped_e4m3fn_m64, E4m3, 64)
ENTRY(fp8_grouped_e5m2_m16, E5m2, 16)
ENTRY(fp8_grouped_e5m2_m64, E5m2, 64)
