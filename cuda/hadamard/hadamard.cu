// hadamard: y[r, :] = scale * x[r, :] H^T, rows of n = K 2^t numbers (common/hadamard.cuh has H, the way and the error).
//   x, y [R, n] f32, f16 or bf16, row-major; computed in f32, rounded once | signs [K, ceil(K / 32)] u32, not read for K = 1
//   each: rows of a block. Grid ceil(R / each) x 256 threads; 4 * each * n bytes of dynamic shared memory for K = 1 and n > 256, none
//   for n <= 256, 4 * each * K * (2^t + 2) for K > 1 (the outer entries)
// Limit: memory, twice the row; for large K the tensor cores. Not timed on a GPU so far.
#include "common/hadamard.cuh"

template <bool OUTER, class T>
__device__ void hadamard(const T* x, T* y, const Hadamard<OUTER>& transform, unsigned rows, unsigned each) {
    const unsigned n = transform.length(), first = blockIdx.x * each;
    const size_t begin = size_t(first) * n;
    transform((rows - first < each ? rows - first : each) * n, reinterpret_cast<float*>(dynamic_shared()),
              [&](unsigned at) { return widen(x[begin + at]); }, [&](unsigned at, float value) { narrow(value, y[begin + at]); });
}

#define ENTRY(NAME, OUTER, T)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(256)                                                                           \
        NAME(const T* x, T* y, const unsigned* signs, unsigned rows, unsigned each, unsigned order, unsigned log, float scale) { \
        hadamard<OUTER>(x, y, {signs, order, log, scale}, rows, each);                                                           \
    }

ENTRY(hadamard_f32, false, float)
ENTRY(hadamard_f16, false, F16)
ENTRY(hadamard_bf16, false, BF16)
ENTRY(hadamard_outer_f32, true, float)
ENTRY(hadamard_outer_f16, true, F16)
ENTRY(hadamard_outer_bf16, true, BF16)
