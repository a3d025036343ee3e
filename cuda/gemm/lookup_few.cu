// lookup_few: lookup for up to 16 rows of x, made for bandwidth: y[m, n] = sum_k x[m, k] * scale[n, k / group] * table[code[n, k]].
//   x [M, K], M at most TOKENS | words [N, ceil(K * BITS / 32)] u32, layout "dense" | scale [N, K / group] | y [M, N]
//   table [1, 2^BITS] (one), or [N, 2^BITS] (own)
//   parts, depth: as in wna16_mma.cu, depth a multiple of SLICE
//   All row-major; x, scale, table and y are all f16 or all bf16. M, N, K below 2^31. BITS, groups and grid: as in wna16_few.cu, with
//   that much dynamic shared memory and Table::BYTES; with more than one slice of K sum.cu adds the parts.
//   |error| <= (K + 3) * 2^-23 * sum_k |x w| before y is rounded. Rows do not touch each other.
//
// common/few.cuh has the way, common/table.cuh the table. Limit: bandwidth for one table; for one a row the look-ups, which are at random
// places. Not timed on a GPU so far.
#include "common/few.cuh"
#include "common/table.cuh"

template <unsigned BITS, unsigned EIGHTS, unsigned TOKENS, bool OWN, class T>
__device__ void lookup_few(const T* x, const unsigned* words, const T* scale, const T* table, T* y, float* parts, unsigned M, unsigned N,
                           unsigned K, unsigned group, unsigned depth) {
    constexpr unsigned COLUMNS = Shape<BITS, EIGHTS, TOKENS>::COLUMNS;
    const auto codes = Table<BITS, OWN, COLUMNS>::template filled<THREADS>(table, blockIdx.x * COLUMNS, N);
    few_product<BITS, EIGHTS, TOKENS>(x, words, scale, nullptr, nullptr, y, parts, M, N, K, group, depth, codes);
}

#define ENTRY(NAME, BITS, EIGHTS, TOKENS, OWN, T)                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                                          \
        NAME(const T* x, const unsigned* words, const T* scale, const T* table, T* y, float* parts, unsigned M, unsigned N,           \
             unsigned K, unsigned group, unsigned depth) {                                                                            \
        lookup_few<BITS, EIGHTS, TOKENS, OWN>(x, words, scale, table, y, parts, M, N, K, group, depth);                               \
    }
#define TABLES(NAME, BITS, EIGHTS, TOKENS, T)                          \
    ENTRY(NAME##_one_m##TOKENS, BITS, EIGHTS, TOKENS, false, T)        \
    ENTRY(NAME##_own_m##TOKENS, BITS, EIGHTS, TOKENS, true, T)
#define INSTANCES(BITS, EIGHTS)                                        \
    TABLES(lookup_few_w##BITS##_f16_e##EIGHTS, BITS, EIGHTS, 8, F16)   \
    TABLES(lookup_few_w##BITS##_f16_e##EIGHTS, BITS, EIGHTS, 16, F16)  \
    TABLES(lookup_few_w##BITS##_bf16_e##EIGHTS, BITS, EIGHTS, 8, BF16) \
    TABLES(lookup_few_w##BITS##_bf16_e##EIGHTS, BITS, EIGHTS, 16, BF16)

INSTANCES(2, 4)
INSTANCES(3, 4)
INSTANCES(4, 4)
INSTANCES(8, 4)
INSTANCES(4, 1)
INSTANCES(8, 1)
