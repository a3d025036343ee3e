// Shared memory, and the copies to it that run while threads compute. Beside each device helper stands its twin for the emulator.
//   load<T>, store<T>   one access of 4, 8 or 16 bytes, aligned to its size
//   load_once           the same from global memory, of what is read once: it does not stay in L1
//   copy_async<BYTES>   cp.async of 4, 8 or 16 bytes, the first `valid` from global memory, the rest zeros; it lands some time before
//   wait_async<N>       returns, which it does once all groups that were committed but the last N are there. Others see it after
//                       __syncthreads.
//   fence_async_proxy   what this thread wrote, and what it waited for of its copies, can be read by wgmma and tcgen05 behind the next
//                       __syncthreads
#pragma once

template <unsigned WORDS> struct alignas(4 * WORDS) Words {
    unsigned word[WORDS];
};

#if defined(__CUDA_ARCH__)

// One alignment a file, as all of its blocks have the same memory.
template <unsigned ALIGNED = 16> __device__ inline unsigned char* dynamic_shared() {
    extern __shared__ __align__(ALIGNED) unsigned char dynamic_shared_bytes[];
    return dynamic_shared_bytes;
}
template <class T> __device__ inline T load(const void* from) { return *static_cast<const T*>(from); }
template <class T> __device__ inline void store(void* to, T value) { *static_cast<T*>(to) = value; }

__device__ inline void load_once(const void* from, Words<1>& to) {
    asm("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(to.word[0]) : "l"(from));
}
__device__ inline void load_once(const void* from, Words<2>& to) {
    asm("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(to.word[0]), "=r"(to.word[1]) : "l"(from));
}
__device__ inline void load_once(const void* from, Words<4>& to) {
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(to.word[0]), "=r"(to.word[1]), "=r"(to.word[2]), "=r"(to.word[3])
        : "l"(from));
}

template <unsigned BYTES> __device__ inline void copy_async(void* to, const void* from, unsigned valid) {
    const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(to));
    if constexpr (BYTES == 16)  // past L1, which has nothing to gain
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(valid) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(at), "l"(from), "n"(BYTES), "r"(valid) : "memory");
}
__device__ inline void commit_async() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <unsigned PENDING> __device__ inline void wait_async() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory"); }
__device__ inline void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

#else

template <unsigned ALIGNED = 16> inline unsigned char* dynamic_shared() { return static_cast<unsigned char*>(emulator::dynamic_shared()); }
template <class T> inline T load(const void* from) {
    T value;
    emulator::load(&value, from, sizeof value);
    return value;
}
template <class T> inline void store(void* to, T value) { emulator::store(to, &value, sizeof value); }
template <class T> inline void load_once(const void* from, T& to) { to = load<T>(from); }

template <unsigned BYTES> inline void copy_async(void* to, const void* from, unsigned valid) {
    emulator::copy_async(to, from, BYTES, valid);
}
inline void commit_async() { emulator::commit_async(); }
template <unsigned PENDING> inline void wait_async() { emulator::wait_async(PENDING); }
inline void fence_async_proxy() { emulator::fence_async_proxy(); }

#endif
