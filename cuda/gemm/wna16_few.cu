// wna16_few: wna16 for up to 16 rows of x, made for bandwidth: y[m, n] = sum_k x[m, order[k]] * scale[n, g] * (code[n, k] - zero[n, g]).
//   x [M, K], M at most TOKENS | words [N, ceil(K * BITS / 32)] u32, layout "dense" | scale [N, K / group] | y [M, N]
//   zero [N, K / group] u8, or null: 2^(BITS - 1) | order [K] u32, or null: k; what is no column of x is NaN
//   parts, depth: as in wna16_mma.cu, depth a multiple of SLICE
//   All row-major; x, scale and y are all f16 or all bf16. M, N, K below 2^31.
//   BITS 2, 3, 4, 8 and groups of a multiple of 128, or of all of K (EIGHTS 4); BITS 4, 8 and groups of a multiple of 32 (EIGHTS 1).
//   Grid (ceil(N / COLUMNS), ceil(K / depth)) x 256 threads, M * (STRETCH * 2 + 64) bytes of dynamic shared memory; with more than one
//   slice of K sum.cu adds the parts. |error| as for wna16_mma.cu. Rows do not touch each other.
//
// Against wna16_mma.cu (common/few.cuh has the way): 1.9 instead of 4 instructions a code of 4 bits, where a card of 132 multiprocessors
// and 4.8 TB/s can issue 3. Limit: bandwidth. Not timed on a GPU so far.
#include "common/few.cuh"

#define ENTRY(NAME, BITS, EIGHTS, TOKENS, T)                                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                                          \
        NAME(const T* x, const unsigned* words, const T* scale, const unsigned char* zero, const unsigned* order, T* y, float* parts, \
             unsigned M, unsigned N, unsigned K, unsigned group, unsigned depth) {                                                    \
        few_product<BITS, EIGHTS, TOKENS>(x, words, scale, zero, order, y, parts, M, N, K, group, depth, Whole<BITS>{});             \
    }
#define INSTANCES(BITS, EIGHTS)                                             \
    ENTRY(wna16_few_w##BITS##_f16_e##EIGHTS##_m8, BITS, EIGHTS, 8, F16)     \
    ENTRY(wna16_few_w##BITS##_f16_e##EIGHTS##_m16, BITS, EIGHTS, 16, F16)   \
    ENTRY(wna16_few_w##BITS##_bf16_e##EIGHTS##_m8, BITS, EIGHTS, 8, BF16)   \
    ENTRY(wna16_few_w##BITS##_bf16_e##EIGHTS##_m16, BITS, EIGHTS, 16, BF16)

INSTANCES(2, 4)
INSTANCES(3, 4)
INSTANCES(4, 4)
INSTANCES(8, 4)
INSTANCES(4, 1)
INSTANCES(8, 1)
