// lookup: y[m, n] = sum_k x[m, k] * scale[n, k / group] * table[code[n, k]], a table for all rows of the weight or for each.
//   x [M, K] | words [N, ceil(K * BITS / 32)] u32, BITS 1 to 8, layout "dense" (common/codes.cuh) | scale [N, K / group] | y [M, N]
//   table [1, 2^BITS] (step 0), or [N, 2^BITS] (step 2^BITS)
//   All row-major; x, scale, table and y are all f16 or all bf16. Any M, N, K below 2^31; group divides K (the host checks).
//   Grid, threads and error bound: common/plain.cuh. A weight is exact in f32: 11 bits of scale times 11 of the value.
//   Limit: the f32 units, 2 M N K operations. Not timed on a GPU so far.
#include "common/codes.cuh"
#include "common/plain.cuh"

template <unsigned BITS, class T>
__device__ void lookup(const T* x, const unsigned* words, const T* scale, const T* table, T* y, unsigned M, unsigned N, unsigned K,
                       unsigned group, unsigned step) {
    const size_t row_words = (size_t(K) * BITS + 31) / 32, groups = K / group;
    const auto weight = [&](unsigned n, unsigned k) {
        return widen(scale[n * groups + k / group]) * widen(table[size_t(n) * step + code_at<BITS>(words + n * row_words, k)]);
    };
    plain_product(x, weight, y, M, N, K);
}

// At most 64 registers a thread, so that four blocks share a multiprocessor.
#define ENTRY(NAME, BITS, T)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS, 4)                                                                   \
        NAME(const T* x, const unsigned* words, const T* scale, const T* table, T* y, unsigned M, unsigned N, unsigned K,      \
             unsigned group, unsigned step) {                                                                                  \
        lookup<BITS>(x, words, scale, table, y, M, N, K, group, step);                                                         \
    }
#define INSTANCES(BITS)                \
    ENTRY(lookup_w##BITS##_f16, BITS, F16)  \
    ENTRY(lookup_w##BITS##_bf16, BITS, BF16)

INSTANCES(1)
INSTANCES(2)
INSTANCES(3)
INSTANCES(4)
INSTANCES(5)
INSTANCES(6)
INSTANCES(7)
INSTANCES(8)
