// wna16_grouped: wna16 with a weight for each expert: y[r, n] = sum_k x[rows[r], k] * scale[e, n, g] * (code[e, n, k] - zero[e, n, g]).
//   x [M, K] | words [E, N, ceil(K * BITS / 32)] u32, layout "dense" (common/codes.cuh) | scale [E, N, K / group] | y [R, N]
//   zero [E, N, K / group] u8, not read by the sym entries, whose zero point is 2^(BITS - 1)
//   offsets [E + 1] u32: the rows of y that expert e computes (common/experts.cuh); if they are none, all of y is NaN
//   rows [R] u32, or null: r. A number that is no row of x makes its row of y NaN
//   parts, depth: as in wna16_mma.cu, parts [gridDim.y, R, N]; sum.cu adds them
//   All row-major; x, scale and y are all f16 or all bf16. BITS 2, 3, 4, 8; 32 divides group, or group is K. Sizes below 2^31.
//   Grid (tiles * ceil(N / 128), ceil(K / depth)) x 256 threads, tiles = R / ROWS + min(E, R); shared memory and error bound as for
//   wna16_mma.cu. A row is the same bits whatever the other rows are, those of wna16_mma.cu on its expert alone.
//
// Rows are gathered as they are copied to shared memory, and tokens need not be laid out anew. The host knows neither how many rows an
// expert has nor asks: it starts a block for every tile there might be. Limit: bandwidth for few rows of an expert, tensor cores for
// many. Not timed on a GPU so far.
#include "common/affine.cuh"
#include "common/experts.cuh"

template <unsigned BITS, class T, Zero ZERO, unsigned ROWS>
__device__ void wna16_grouped(const T* x, const unsigned* words, const T* scale, const unsigned char* zero, const unsigned* offsets,
                              const unsigned* rows, T* y, float* parts, unsigned M, unsigned E, unsigned R, unsigned N, unsigned K,
                              unsigned group, unsigned depth) {
    const unsigned tiles = R / ROWS + (E < R ? E : R);
    const Part part = part_of<ROWS>(offsets, E, R, blockIdx.x % tiles);
    if (part.first >= part.end) return;
    const size_t n = size_t(part.expert) * N, row_words = (size_t(K) * BITS + 31) / 32, groups = K / group;
    const Affine<T> weight = {words + n * row_words, scale + n * groups, ZERO == ASYM ? zero + n * groups : nullptr};
    const Gathered gathered = {x, part.known ? M : 0, size_t(K) * 2, rows, part.first, part.end};
    affine_product<BITS, T, ZERO, ROWS>(gathered, weight, y, parts, part.first, part.end, blockIdx.x / tiles * COLUMNS, R, N, K, group, depth);
}

#define ENTRY(NAME, BITS, T, ZERO, ROWS)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS, ROWS == 16 ? 2 : 1)                                                            \
        NAME(const T* x, const unsigned* words, const T* scale, const unsigned char* zero, const unsigned* offsets, const unsigned* rows, \
             T* y, float* parts, unsigned M, unsigned E, unsigned R, unsigned N, unsigned K, unsigned group, unsigned depth) {           \
        wna16_grouped<BITS, T, ZERO, ROWS>(x, words, scale, zero, offsets, rows, y, parts, M, E, R, N, K, group, depth);                 \
    }
#define ZEROS(BITS, NAME, T, ROWS)                                            \
    ENTRY(wna16_grouped_w##BITS##_##NAME##_sym_m##ROWS, BITS, T, SYM, ROWS)   \
    ENTRY(wna16_grouped_w##BITS##_##NAME##_asym_m##ROWS, BITS, T, ASYM, ROWS)
#define INSTANCES(BITS)         \
    ZEROS(BITS, f16, F16, 16)   \
    ZEROS(BITS, f16, F16, 64)   \
    ZEROS(BITS, bf16, BF16, 16) \
    ZEROS(BITS, bf16, BF16, 64)

INSTANCES(2)
INSTANCES(3)
INSTANCES(4)
INSTANCES(8)
