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
