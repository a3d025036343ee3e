// Exchange between the 32 lanes of a warp, all of which take part. Beside the device helper stands its twin for the emulator.
#pragma once
#include "common/convert.cuh"

#if defined(__CUDA_ARCH__)

// The value of the lane whose number differs from this one's in the bits of `mask`.
__device__ inline int shuffle_xor(int value, unsigned mask) { return __shfl_xor_sync(0xffffffff, value, mask); }

#else

struct Shuffle {
    int value, result;
    unsigned mask;
};
inline void shuffle_xor_all(void** lanes) {
    for (unsigned lane = 0; lane < 32; lane++) {
        auto* mine = static_cast<Shuffle*>(lanes[lane]);
        mine->result = static_cast<Shuffle*>(lanes[lane ^ mine->mask])->value;
    }
}
inline int shuffle_xor(int value, unsigned mask) {
    Shuffle mine = {value, 0, mask};
    emulator::collective(shuffle_xor_all, &mine);
    return mine.result;
}

#endif

__device__ inline float shuffle_xor(float value, unsigned mask) { return bit_cast<float>(shuffle_xor(bit_cast<int>(value), mask)); }
__device__ inline double shuffle_xor(double value, unsigned mask) {
    const auto bits = bit_cast<unsigned long long>(value);
    const auto low = unsigned(shuffle_xor(int(bits), mask)), high = unsigned(shuffle_xor(int(bits >> 32), mask));
    return bit_cast<double>(static_cast<unsigned long long>(high) << 32 | low);
}

// The values of THREADS neighbouring threads, a warp or the whole block, joined by an operation that takes them in either order. All
// get the same bits, those of every call.
template <unsigned THREADS, class T, class Join> __device__ T reduce(T value, Join join) {
    for (unsigned mask = 16; mask > 0; mask /= 2) value = join(value, shuffle_xor(value, mask));
    if constexpr (THREADS > 32) {
        __shared__ T of_warp[THREADS / 32];
        __syncthreads();  // that of the call before has been read by all
        if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
        __syncthreads();
        value = of_warp[0];
        for (unsigned warp = 1; warp < THREADS / 32; warp++) value = join(value, of_warp[warp]);
    }
    return value;
}
