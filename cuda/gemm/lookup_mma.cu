// lookup_mma: lookup on tensor cores for many rows: y[m, n] = sum_k x[m, k] * scale[n, k / group] * table[code[n, k]].
//   x [M, K] | words [N, ceil(K * BITS / 32)] u32, layout "dense" (common/codes.cuh) | scale [N, K / group] | y [M, N]
//   table [1, 2^BITS] (one), or [N, 2^BITS] (own)
//   parts, depth, BITS, groups and grid: as in wna16_mma.cu, with 64 rows a tile, and its dynamic shared memory and Table::BYTES
//   All row-major; x, scale, table and y are all f16 or all bf16. M, N, K below 2^31.
//   |error| <= (K + 3) * 2^-23 * sum_k |x w| before y is rounded. Rows do not touch each other.
//
// common/affine.cuh has the way, common/table.cuh the table. Limit: tensor cores, below some hundred rows the look-ups. Not timed on a
// GPU so far.
#include "common/affine.cuh"
#include "common/table.cuh"

template <unsigned BITS, bool OWN, class T>
__device__ void lookup_mma(const T* x, const Affine<T>& weight, const T* table, T* y, float* parts, unsigned M, unsigned N, unsigned K,
                           unsigned group, unsigned depth) {
    constexpr unsigned ROWS = 64;
    const unsigned downs = (M + ROWS - 1) / ROWS;
    // Blocks that read the same weights follow each other.
    const unsigned m0 = blockIdx.x % downs * ROWS, n0 = blockIdx.x / downs * COLUMNS;
    const Operand rows = {x, M, size_t(K) * 2, m0};
    const auto codes = Table<BITS, OWN, COLUMNS>::template filled<THREADS>(table, n0, N);
    affine_product<BITS, T, SYM, ROWS>(rows, weight, y, parts, m0, M, n0, M, N, K, group, depth, codes);
}

#define ENTRY(NAME, BITS, OWN, T)                                                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                        \
        NAME(const T* x, const unsigned* words, const T* scale, const T* table, T* y, float* parts, unsigned M, unsigned N,      \
             unsigned K, unsigned group, unsigned depth) {                                                                       \
        lookup_mma<BITS, OWN, T>(x, {words, scale, nullptr}, table, y, parts, M, N, K, group, depth);                            \
    }
#define INSTANCES(BITS)                                   \
    ENTRY(lookup_mma_w##BITS##_f16_one, BITS, false, F16)      \
    ENTRY(lookup_mma_w##BITS##_f16_own, BITS, true, F16)       \
    ENTRY(lookup_mma_w##BITS##_bf16_one, BITS, false, BF16)    \
    ENTRY(lookup_mma_w##BITS##_bf16_own, BITS, true, BF16)

INSTANCES(2)
INSTANCES(3)
INSTANCES(4)
INSTANCES(8)
