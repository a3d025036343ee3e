// quantize_tokens: for each row, scale = max(max |x|, eps) / 127 and codes = rint(x / scale), half to even.
//   x [T, C] f32 | codes [T, C] i8 | scale [T] f32; all row-major. A row with NaN or infinity gets the scale NaN and codes 0.
//   Grid T x 256 threads, no dynamic shared memory. The bits are those of every other path: both quotients are rounded as IEEE 754 has
//   it. eps is 127 times the smallest normal f32 or more, so that flushing of subnormals, which no one asks for here, would not matter.
// A block makes a row; the second reading of it comes from a cache. Limit: memory, 5 bytes an element. Not timed on a GPU so far.
#include "common/warp.cuh"

enum : unsigned { THREADS = 256 };

extern "C" __global__ void __launch_bounds__(THREADS) quantize_tokens(const float* x, signed char* codes, float* scale, unsigned C, float eps) {
    __shared__ int of_warp[THREADS / 32];
    const float* row = x + size_t(blockIdx.x) * C;
    // As integers, magnitudes are in the order of the numbers, and infinity and NaN are above them all.
    int largest = 0;
    for (unsigned c = threadIdx.x; c < C; c += THREADS) largest = max(largest, bit_cast<int>(row[c]) & 0x7fffffff);
    for (unsigned mask = 16; mask > 0; mask /= 2) largest = max(largest, shuffle_xor(largest, mask));
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = largest;
    __syncthreads();
    for (int each : of_warp) largest = max(largest, each);

    const bool finite = largest < 0x7f800000;
    const float step = finite ? __fdiv_rn(fmaxf(bit_cast<float>(largest), eps), 127.f) : bit_cast<float>(0x7fc00000);
    if (threadIdx.x == 0) scale[blockIdx.x] = step;
    // A quotient may be rounded to no more than 127, as the largest magnitude is 127 steps.
    for (unsigned c = threadIdx.x; c < C; c += THREADS)
        codes[size_t(blockIdx.x) * C + c] = finite ? static_cast<signed char>(rintf(__fdiv_rn(row[c], step))) : 0;
}
