// sum: y[m, n] = sum_s parts[s, m, n]: what the blocks of a product that cuts K into slices have written, in order.
//   parts [slices, M, N] f32 | y [M, N] f16, bf16 or f32. Grid ceil(M * N / 256) x 256 threads.
//   f32 inside, y is rounded once. Limit: memory. Not timed on a GPU so far.
//
// A file of its own, as a driver compiles a file as a whole when its first entry is loaded.
#include "common/convert.cuh"

enum : unsigned { THREADS = 256 };

template <class T> __device__ void sum(const float* parts, T* y, unsigned slices, unsigned M, unsigned N) {
    const size_t at = size_t(blockIdx.x) * THREADS + threadIdx.x, count = size_t(M) * N;
    if (at >= count) return;
    float total = 0.f;
    for (unsigned slice = 0; slice < slices; slice++) total += parts[slice * count + at];
    narrow(total, y[at]);
}

#define ENTRY(NAME, T)                                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS) NAME(const float* parts, T* y, unsigned slices, unsigned M, unsigned N) { \
        sum(parts, y, slices, M, N);                                                                                                \
    }

ENTRY(sum_f16, F16)
ENTRY(sum_bf16, BF16)
ENTRY(sum_f32, float)
