// wna16: y[m, n] = sum_k x[m, k] * scale[n, g] * (code[n, k] - zero[n, g]), g = k / group; 16-bit x, weights of 1 to 8 bits.
//   x [M, K] | words [N, ceil(K * BITS / 32)] u32, layout "dense" (common/codes.cuh) | scale [N, K / group]
//   zero [N, K / group] u8, not read by the sym entries, whose zero point is 2^(BITS - 1) | y [M, N]
//   All row-major; x, scale and y are all f16 or all bf16. Any M, N, K below 2^31; group divides K (the host checks).
//   Grid, threads and error bound: common/plain.cuh. A weight is exact in f32: 11 bits of scale times at most 9 of code - zero.
//   Limit: the f32 units, 2 M N K operations. Not timed on a GPU so far.
#include "common/codes.cuh"
#include "common/plain.cuh"

template <unsigned BITS, class T, bool ASYM>
__device__ void wna16(const T* x, const unsigned* words, const T* scale, const unsigned char* zero, T* y, unsigned M, unsigned N,
                      unsigned K, unsigned group) {
    const size_t row_words = (size_t(K) * BITS + 31) / 32, groups = K / group;
    const auto weight = [&](unsigned n, unsigned k) {
        const size_t g = n * groups + k / group;
        const int zero_point = ASYM ? zero[g] : 1 << (BITS - 1), code = code_at<BITS>(words + n * row_words, k);
        return widen(scale[g]) * float(code - zero_point);
    };
    plain_product(x, weight, y, M, N, K);
}

// At most 64 registers a thread, so that four blocks share a multiprocessor.
#define ENTRY(NAME, BITS, T, ASYM)                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS, 4)                                                                   \
        NAME(const T* x, const unsigned* words, const T* scale, const unsigned char* zero, T* y, unsigned M, unsigned N,       \
             unsigned K, unsigned group) {                                                                                     \
        wna16<BITS, T, ASYM>(x, words, scale, zero, y, M, N, K, group);                                                        \
    }
#define INSTANCES(BITS)                                    \
    ENTRY(wna16_w##BITS##_f16_sym, BITS, F16, false)       \
    ENTRY(wna16_w##BITS##_f16_asym, BITS, F16, true)       \
    ENTRY(wna16_w##BITS##_bf16_sym, BITS, BF16, false)     \
    ENTRY(wna16_w##BITS##_bf16_asym, BITS, BF16, true)

INSTANCES(1)
INSTANCES(2)
INSTANCES(3)
INSTANCES(4)
INSTANCES(5)
INSTANCES(6)
INSTANCES(7)
INSTANCES(8)
