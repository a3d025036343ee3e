// fp8_sm90a: fp8.cu for many rows, on Hopper's tensor cores for 8-bit floats.
//   Arguments and grid as there, blocks of 2 * ROWS threads, STAGES * (ROWS + 128) * (128 + 4) bytes of dynamic shared memory that
//   begins at a multiple of 1024; ROWS is 64 or 128.
//   Sums of 128 columns are those of wgmma, which cut numbers behind 13 bits of fraction (common/wgmma.cuh, which tells whose measurement
//   that is: NVIDIA documents none); scales multiply them and what is added over them is f32:
//   |error| <= (138 * 2^-13 + (K + 3) * 2^-23) * sum_k |x w| x_scale w_scale + (K + 3) * 2^-23 * |bias|, where a subnormal of x or w counts
//   as the smallest normal number. That is the worst case, all cuts one way; of normal numbers y is off by 1.3e-4 (Frobenius, on the
//   emulator) for K of 128 and of 4096 alike, where one chain over all 4096 would be by 1.4e-3. Numbers whose sums fit into 13 bits,
//   such as small whole ones, are summed exactly. NaN and infinity spread.
//
// A warpgroup computes 64 x 128 of y: four wgmma a stage of 128 columns, straight from the tiles that cp.async fills in the 128-byte
// swizzle. Accumulators are two sets: while tensor cores multiply one stage, threads scale and add the one before, so of four stages two
// are being copied. The scales of a stage come with its tiles. Limit: the 8-bit rate and the bandwidth of L2 (32 KiB for 128 x 128 x 128
// products; no clusters, no TMA). Run on the emulator alone so far, on no GPU.
//
//   ROWS 64: a warpgroup, two blocks a multiprocessor        ROWS 128: two warpgroups, one block
#include "common/float8_wgmma.cuh"

template <class Format, unsigned ROWS>
__device__ void fp8(const unsigned char* x, const Scales& x_scale, const unsigned char* w, const Scales& w_scale, const Result& result,
                    unsigned K, unsigned depth) {
    const unsigned M = result.M, downs = (M + ROWS - 1) / ROWS;
    // Blocks that read the same weights follow each other.
    const unsigned m0 = blockIdx.x % downs * ROWS, n0 = blockIdx.x / downs * COLUMNS;
    const Operand rows = {x, M, K, m0};
    float8_wgmma<ROWS, Format>(rows, x_scale, w, w_scale, result, m0, M, n0, K, depth);
}

#define ENTRY(NAME, FORMAT, ROWS)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(2 * ROWS, 1)                                                                          \
        NAME(const unsigned char* x, const unsigned char* w, const float* x_scale, const float* w_scale, const float* bias, float* y,  \
             float* parts, unsigned M, unsigned N, unsigned K, unsigned x_rows, unsigned x_blocks, unsigned x_tall, unsigned w_rows,   \
             unsigned w_blocks, unsigned w_tall, unsigned depth) {                                                                     \
        const Scales of_x = {x_scale, x_rows, x_blocks, x_tall}, of_w = {w_scale, w_rows, w_blocks, w_tall};                           \
        fp8<FORMAT, ROWS>(x, of_x, w, of_w, {bias, y, parts, M, N}, K, depth);                                                         \
    }

ENTRY(fp8_sm90a_e4m3fn_m64, E4m3, 64)
ENTRY(fp8_sm90a_e4m3fn_m128, E4m3, 128)
ENTRY(fp8_sm90a_e5m2_m64, E5m2, 64)
ENTRY(fp8_sm90a_e5m2_m128, E5m2, 128)
