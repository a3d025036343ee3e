// wna16_mma: wna16 on tensor cores: y[m, n] = sum_k x[m, k] * scale[n, g] * (code[n, k] - zero[n, g]), g = k / group.
//   x [M, K] | words [N, ceil(K * BITS / 32)] u32, layout "dense" (common/codes.cuh) | scale [N, K / group] | y [M, N]
//   zero [N, K / group]: u8 (asym), the dtype of x (float), or not read (sym): 2^(BITS - 1)
//   parts [gridDim.y, M, N] f32, or null; depth: columns of K that a block sums, a multiple of 64
//   All row-major; x, scale and y are all f16 or all bf16. BITS 2, 3, 4, 8; 32 divides group, or group is K. M, N, K below 2^31.
//   Grid (ceil(M / ROWS) * ceil(N / 128), ceil(K / depth)) x 256 threads, SHARED bytes of dynamic shared memory; ROWS is 16 or 64.
//   With one slice of K y is written; with more each writes its part, and sum.cu adds them.
//
//   Codes enter mma as whole numbers, exact in f16 and bf16; sums of a group are scaled in f32, with no weight rounded:
//   |error| <= (K + 3) * 2^-23 * sum_k |x| scale (|code - zero|) before y is rounded (float: |code - middle| + |zero - middle|, as the
//   zero point is taken from the sum of the group's x). Rows do not touch each other; the same call gives the same bits.
//
// As Marlin: weights cross once, by cp.async four stages deep, decoded between shared memory and registers. Other than Marlin, they
// are read as they are stored: the fragments' k are permuted instead (common/tile.cuh), so there is no second layout of a checkpoint.
// Limit: bandwidth for few rows, tensor cores for many. Not timed on a GPU so far.
//
//   ROWS 16: 8 warps side by side, each 16 x 16 of y        ROWS 64: 2 x 4 warps, each 32 x 32 of y
#include "common/affine.cuh"

template <unsigned BITS, class T, Zero ZERO, unsigned ROWS>
__device__ void wna16_mma(const T* x, const Affine<T>& weight, T* y, float* parts, unsigned M, unsigned N, unsigned K, unsigned group,
                          unsigned depth) {
    const unsigned downs = (M + ROWS - 1) / ROWS;
    // Blocks that read the same weights follow each other.
    const unsigned m0 = blockIdx.x % downs * ROWS, n0 = blockIdx.x / downs * COLUMNS;
    const Operand rows = {x, M, size_t(K) * 2, m0};
    affine_product<BITS, T, ZERO, ROWS>(rows, weight, y, parts, m0, M, n0, M, N, K, group, depth);
}

#define ENTRY(NAME, BITS, T, ZERO, ROWS)                                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS, ROWS == 16 ? 2 : 1)                                                                      \
        NAME(const T* x, const unsigned* words, const T* scale, const void* zero, T* y, float* parts, unsigned M, unsigned N,     \
             unsigned K, unsigned group, unsigned depth) {                                                                        \
        wna16_mma<BITS, T, ZERO, ROWS>(x, {words, scale, zero}, y, parts, M, N, K, group, depth);                                   \
    }
#define ZEROS(BITS, NAME, T, ROWS)                                    \
    ENTRY(wna16_mma_w##BITS##_##NAME##_sym_m##ROWS, BITS, T, SYM, ROWS)     \
    ENTRY(wna16_mma_w##BITS##_##NAME##_asym_m##ROWS, BITS, T, ASYM, ROWS)   \
    ENTRY(wna16_mma_w##BITS##_##NAME##_float_m##ROWS, BITS, T, FLOAT, ROWS)
#define INSTANCES(BITS)       \
    ZEROS(BITS, f16, F16, 16)   \
    ZEROS(BITS, f16, F16, 64)   \
    ZEROS(BITS, bf16, BF16, 16) \
    ZEROS(BITS, bf16, BF16, 64)

INSTANCES(2)
INSTANCES(3)
INSTANCES(4)
INSTANCES(8)
