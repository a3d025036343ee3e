// hadamard: y[r, :] = scale * x[r, :] H, with H[i, j] = (-1)^popcount(i & j), in n log2 n additions.
//   x [R, n] f32 | y [R, n] f32; row-major; n a power of two, count = R * n below 2^32
//   hadamard_short: n up to 256, grid ceil(count / 2048) x 256 threads, no shared memory
//   hadamard_long:  n from 512 to 32768, grid R x 256 threads, 4 n bytes of dynamic shared memory
//   Sums and differences at distance 1, 2, 4, ... and the scale at last, as on every other path: the same bits.
//
// A lane holds every 32nd of the 256 numbers of its warp, so that loads meet neighbours: distances 1 to 16 by shuffles, 32 to 128 in
// registers. Longer rows go on in shared memory, three distances at a time. Limit: memory, 8 bytes an element. Not timed on a GPU so far.
#include "common/memory.cuh"
#include "common/warp.cuh"

enum : unsigned { THREADS = 256, EACH = 8, WARP = 32 * EACH };

// Distances 1, 2 and 4 among the first `count` registers.
__device__ inline void butterflies(float (&v)[EACH], unsigned count) {
#pragma unroll
    for (unsigned distance = 1; distance < EACH; distance *= 2) {
        if (distance >= count) break;
#pragma unroll
        for (unsigned i = 0; i < EACH; i++) {
            if (i & distance) continue;
            const float low = v[i], high = v[i + distance];
            v[i] = low + high, v[i + distance] = low - high;
        }
    }
}

// All distances below n, or 256 if that is less, among the 256 numbers of a warp.
__device__ inline void within_warp(float (&v)[EACH], unsigned n) {
#pragma unroll
    for (unsigned distance = 1; distance < 32; distance *= 2) {
        if (distance >= n) break;
        const bool second = threadIdx.x & distance;
#pragma unroll
        for (unsigned i = 0; i < EACH; i++) {
            const float other = shuffle_xor(v[i], distance);
            v[i] = second ? other - v[i] : v[i] + other;
        }
    }
    butterflies(v, n / 32);
}

extern "C" __global__ void __launch_bounds__(THREADS) hadamard_short(const float* x, float* y, unsigned count, unsigned n, float scale) {
    const size_t first = size_t(blockIdx.x) * (THREADS * EACH) + threadIdx.x / 32 * WARP + threadIdx.x % 32;
    float v[EACH];
#pragma unroll
    for (unsigned i = 0; i < EACH; i++) v[i] = first + i * 32 < count ? x[first + i * 32] : 0.f;
    within_warp(v, n);
#pragma unroll
    for (unsigned i = 0; i < EACH; i++)
        if (first + i * 32 < count) y[first + i * 32] = v[i] * scale;
}

extern "C" __global__ void __launch_bounds__(THREADS) hadamard_long(const float* x, float* y, unsigned count, unsigned n, float scale) {
    float* row = reinterpret_cast<float*>(dynamic_shared());
    const size_t begin = size_t(blockIdx.x) * n;
    for (unsigned at = threadIdx.x / 32 * WARP + threadIdx.x % 32; at < n; at += THREADS * EACH) {
        float v[EACH];
#pragma unroll
        for (unsigned i = 0; i < EACH; i++) v[i] = x[begin + at + i * 32];
        within_warp(v, WARP);
#pragma unroll
        for (unsigned i = 0; i < EACH; i++) row[at + i * 32] = v[i];
    }
    for (unsigned distance = WARP; distance < n; distance *= EACH) {
        __syncthreads();
        const unsigned together = n / distance < EACH ? n / distance : EACH;
        const bool last = distance * together == n;
        for (unsigned part = threadIdx.x; part < n / together; part += THREADS) {
            const unsigned at = part / distance * (distance * together) + part % distance;
            float v[EACH];
#pragma unroll
            for (unsigned i = 0; i < EACH; i++) v[i] = i < together ? row[at + i * distance] : 0.f;
            butterflies(v, together);
#pragma unroll
            for (unsigned i = 0; i < EACH; i++) {
                if (i >= together) break;
                if (last)
                    y[begin + at + i * distance] = v[i] * scale;
                else
                    row[at + i * distance] = v[i];
            }
        }
    }
}
