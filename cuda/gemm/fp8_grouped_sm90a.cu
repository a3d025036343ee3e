// fp8_grouped_sm90a: fp8_grouped.cu for experts of many rows, on Hopper's tensor cores for 8-bit floats.
//   Arguments and grid as there; blocks, shared memory and error bound as for fp8_sm90a.cu; ROWS is 64 or 128. A row is the same bits
//   whatever the other rows are, those of fp8_sm90a.cu on its expert alone. Run on the emulator alone so far, on no GPU.
#include "common/experts.cuh"
#include "common/float8_wgmma.cuh"

template <class Format, unsigned ROWS>
__device__ void fp8_grouped(const unsigned char* x, const Scales& x_scale, const unsigned char* w, Scales w_scale, const unsigned* offsets,
                            const unsigned* rows, Result result, unsigned M, unsigned E, unsigned K, unsigned depth) {
    const unsigned R = result.M, N = result.N, tiles = R / ROWS + (E < R ? E : R);
    const Part part = part_of<ROWS>(offsets, E, R, blockIdx.x % tiles);
    if (part.first >= part.end) return;
    const size_t expert = part.expert;
    w += expert * N * K, w_scale.values += expert * w_scale.rows * w_scale.blocks;
    if (result.bias) result.bias += expert * N;
    const Gathered gathered = {x, part.known ? M : 0, K, rows, part.first, part.end};
    float8_wgmma<ROWS, Format>(gathered, x_scale, w, w_scale, result, part.first, part.end, blockIdx.x / tiles * COLUMNS, K, depth);
}

#define ENTRY(NAME, FORMAT, ROWS)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(2 * ROWS, 1)                                                                          \
        NAME(const unsigned char* x, const unsigned char* w, const float* x_scale, const float* w_scale, const unsigned* offsets,      \
             const float* bias, const unsigned* rows, float* y, float* parts, unsigned M, unsigned E, unsigned R, unsigned N,          \
             unsigned K, unsigned x_rows, unsigned x_blocks, unsigned x_tall, unsigned w_rows, unsigned w_blocks, unsigned w_tall,     \
             unsigned depth) {                                                                                                         \
        const Scales of_x = {x_scale, x_rows, x_blocks, x_tall}, of_w = {w_scale, w_rows, w_blocks, w_tall};                           \
        fp8_grouped<FORMAT, ROWS>(x, of_x, w, of_w, offsets, rows, {bias, y, parts, R, N}, M, E, K, depth);                            \
    }

ENTRY(fp8_grouped_sm90a_e4m3fn_m64, E4m3, 64)
ENTRY(fp8_grouped_sm90a_e4m3fn_m128, E4m3, 128)
ENTRY(fp8_grouped_sm90a_e5m2_m64, E5m2, 64)
ENTRY(fp8_grouped_sm90a_e5m2_m128, E5m2, 128)
