// csr: y[m, n] = base[m, n] + sum_e x[m, columns[e]] * values[e] over the entries pointers[n] to pointers[n + 1] - 1 of row n: sparse outliers
// behind a dense product.
//   x [M, K] | values [E] | columns [E] u16 or u32 | pointers [N + 1] u32 | base [M, N], or null: 0 | y [M, N]; all row-major
//   x, base and y are all f16 or all bf16; values f32, f16 or bf16. M, N, K, E below 2^31.
//   Grid (ceil(N / 8), ceil(M / 8)) x 256 threads, no dynamic shared memory.
//   f32 inside, one rounding a multiply-add: |error| <= (E_n / 32 + 7) * 2^-24 * (sum_e |x value| + |base|) for the E_n entries of a row, before
//   y is rounded. What the host cannot look at shows: a column that x has not is NaN, pointers that fall or pass E make their row NaN.
// One warp a row of entries and eight of x, so that an entry is read once for eight. Limit: bandwidth of the entries for few rows of x, the
// second cache that x is gathered from for many. Not timed on a GPU so far.
#include "common/warp.cuh"

enum : unsigned { THREADS = 256, ROWS = 8 };

template <class T, class Value, class Column>
__device__ void csr(const T* x, const Value* values, const Column* columns, const unsigned* pointers, const T* base, T* y, unsigned M, unsigned N,
                    unsigned K, unsigned E) {
    const unsigned n = blockIdx.x * (THREADS / 32) + threadIdx.x / 32, lane = threadIdx.x % 32, m0 = blockIdx.y * ROWS;
    if (n >= N) return;  // whole warps leave together
    const unsigned rows = M - m0 < ROWS ? M - m0 : ROWS, begin = pointers[n], end = pointers[n + 1];
    const bool sound = begin <= end && end <= E;
    float sums[ROWS] = {};
    for (unsigned e = begin + lane; sound && e < end; e += 32) {
        const float value = widen(values[e]);
        const unsigned column = columns[e];
#pragma unroll
        for (unsigned m = 0; m < ROWS; m++) {
            if (m >= rows) break;
            const float activation = column < K ? widen(x[size_t(m0 + m) * K + column]) : bit_cast<float>(0x7fc00000);
            sums[m] = fmaf(activation, value, sums[m]);
        }
    }
#pragma unroll
    for (unsigned m = 0; m < ROWS; m++) {
        for (unsigned mask = 16; mask > 0; mask /= 2) sums[m] += shuffle_xor(sums[m], mask);
        if (lane != m || m >= rows) continue;
        const size_t at = size_t(m0 + m) * N + n;
        narrow(sound ? sums[m] + (base ? widen(base[at]) : 0.f) : bit_cast<float>(0x7fc00000), y[at]);
    }
}

#define ENTRY(NAME, T, VALUE, COLUMN)                                                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                             \
        NAME(const T* x, const VALUE* values, const COLUMN* columns, const unsigned* pointers, const T* base, T* y, unsigned M, unsigned N, \
             unsigned K, unsigned E) {                                                                                                \
        csr(x, values, columns, pointers, base, y, M, N, K, E);                                                                       \
    }

#define INSTANCES(NAME, T, VALUE)                      \
    ENTRY(csr_##NAME##_u16, T, VALUE, unsigned short)  \
    ENTRY(csr_##NAME##_i32, T, VALUE, unsigned)

INSTANCES(f16_f32, F16, float)
INSTANCES(f16_f16, F16, F16)
INSTANCES(f16_bf16, F16, BF16)
INSTANCES(bf16_f32, BF16, float)
INSTANCES(bf16_f16, BF16, F16)
INSTANCES(bf16_bf16, BF16, BF16)
