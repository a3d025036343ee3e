// Products of small floats in blocks by tcgen05.mma: both operands in shared memory, their scales and the sums in tensor memory, while
// threads go on (sm_100a; PTX ISA, "TensorCore 5th Generation Family Instructions").
//   tensor memory   128 lanes of 512 columns of 32 bits a multiprocessor; an address is lane << 16 | column. Warp w may touch lanes
//                   32 (w % 4) to 32 (w % 4) + 31 alone, as store_columns and load_columns do
//   d               128 x 128 sums: row m in lane m, column n in column n
//   a, b            128 rows of 32 bytes each, told by a descriptor
//   scale_a, _b     four columns: that of row r in lane r % 32 and column r / 32, four scales that follow each other, the same in all
//                   four quarters of the lanes. Which of the four a product takes, BYTE tells (the scale factor's data id): of Nvfp4
//                   all, of Mxfp4 two from 0 or 2 on, of 8 bits that one
// In this order:
//   allocate, __syncthreads            once, by one warp, and deallocate at the end, by one
//   store_columns, wait_stores, fence_before_sync, __syncthreads        of scales; so, too, fence_async_proxy in front for the operands
//   fence_after_sync, multiply, commit by one thread: all that it has multiplied is done once `barrier` is through its next phase
//   wait_barrier                       then operands and scales may be overwritten; sums may be read behind fence_after_sync
// How these tensor cores round sums NVIDIA does not say.
#pragma once
#include "common/elements.cuh"
#include "common/memory.cuh"

// Of rows of 128 bytes in the 128-byte swizzle, eight of which make up 1024. What is 16 times smaller there: where they begin (bits 0 to
// 13), from eight rows to the next (32 to 45); 1 in 46 to 48, 2 in 61 to 63: this swizzle. Adding 2 moves on by 32 bytes of each row.
__device__ inline unsigned long long tensor_descriptor_of(unsigned address) {
    return (address & 0x3ffff) >> 4 | (1024ull >> 4) << 32 | 1ull << 46 | 2ull << 61;
}

// The instruction descriptor: data ids of the scales of b (bits 4, 5) and a (29, 30), elements of a (7 to 9) and b (10 to 12), N / 8 (17 to
// 22), whether scales are powers of two (23), M / 128 (27, 28).
__device__ constexpr unsigned element_id(elements::E2m1) { return 1; }
__device__ constexpr unsigned element_id(elements::E4m3fn) { return 0; }
__device__ constexpr unsigned element_id(elements::E5m2) { return 1; }
template <class Format> __device__ constexpr unsigned instruction_of(unsigned byte) {
    const unsigned elements = element_id(typename Format::Element{}) * (1 << 7 | 1 << 10);
    return byte << 4 | elements | 128 / 8 << 17 | unsigned(Format::POWER) << 23 | 1 << 27 | byte << 29;
}

#if defined(__CUDA_ARCH__)

__device__ inline unsigned shared_address(const void* at) { return static_cast<unsigned>(__cvta_generic_to_shared(at)); }

template <unsigned COLUMNS> __device__ inline void allocate(unsigned* where) {
    asm volatile("tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%0], %1;" ::"r"(shared_address(where)), "n"(COLUMNS) : "memory");
    asm volatile("tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned;");
}
template <unsigned COLUMNS> __device__ inline void deallocate(unsigned at) {
    asm volatile("tcgen05.dealloc.cta_group::1.sync.aligned.b32 %0, %1;" ::"r"(at), "n"(COLUMNS));
}
__device__ inline void store_columns(unsigned at, const unsigned (&from)[4]) {
    asm volatile("tcgen05.st.sync.aligned.32x32b.x4.b32 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(from[0]), "r"(from[1]), "r"(from[2]),
                 "r"(from[3])
                 : "memory");
}
__device__ inline void wait_stores() { asm volatile("tcgen05.wait::st.sync.aligned;" ::: "memory"); }
__device__ inline void load_columns(unsigned at, unsigned (&to)[16]) {
    asm volatile("tcgen05.ld.sync.aligned.32x32b.x16.b32 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, [%16];\n"
                 "tcgen05.wait::ld.sync.aligned;"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]), "=r"(to[4]), "=r"(to[5]), "=r"(to[6]), "=r"(to[7]), "=r"(to[8]),
                   "=r"(to[9]), "=r"(to[10]), "=r"(to[11]), "=r"(to[12]), "=r"(to[13]), "=r"(to[14]), "=r"(to[15])
                 : "r"(at)
                 : "memory");
}
__device__ inline void fence_before_sync() { asm volatile("tcgen05.fence::before_thread_sync;" ::: "memory"); }
__device__ inline void fence_after_sync() { asm volatile("tcgen05.fence::after_thread_sync;" ::: "memory"); }

// `more`: d += a * b; otherwise d = a * b.
#define MULTIPLY(KIND, TYPES)                                                                                                            \
    template <unsigned BYTE>                                                                                                             \
    __device__ inline void multiply(unsigned d, unsigned long long a, unsigned long long b, unsigned scale_a, unsigned scale_b, bool more, \
                                    TYPES) {                                                                                             \
        asm volatile("{\n.reg .pred more;\nsetp.ne.b32 more, %6, 0;\n"                                                                    \
                     "tcgen05.mma.cta_group::1." KIND " [%0], %1, %2, %3, [%4], [%5], more;\n}" ::"r"(d),                                 \
                     "l"(a), "l"(b), "r"(instruction_of<TYPES>(BYTE)), "r"(scale_a), "r"(scale_b), "r"(int(more))                         \
                     : "memory");                                                                                                        \
    }
MULTIPLY("kind::mxf4nvf4.block_scale.scale_vec::4X", Nvfp4)
MULTIPLY("kind::mxf4.block_scale.scale_vec::2X", Mxfp4)
MULTIPLY("kind::mxf8f6f4.block_scale.scale_vec::1X", Mx8<elements::E4m3fn>)
MULTIPLY("kind::mxf8f6f4.block_scale.scale_vec::1X", Mx8<elements::E5m2>)
#undef MULTIPLY

__device__ inline void begin_barrier(unsigned long long* barrier) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\nfence.mbarrier_init.release.cluster;" ::"r"(shared_address(barrier)) : "memory");
}
__device__ inline void commit(unsigned long long* barrier) {
    asm volatile("tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// Until the phase of that parity is through: 0 for the first one, then 1, then 0.
__device__ inline void wait_barrier(unsigned long long* barrier, unsigned parity) {
    asm volatile("{\n.reg .pred done;\nagain:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@!done bra again;\n}" ::"r"(
                     shared_address(barrier)),
                 "r"(parity)
                 : "memory");
}

#else

inline unsigned shared_address(const void* at) { return emulator::shared_address(at); }
template <unsigned COLUMNS> inline void allocate(unsigned* where) {
    const unsigned at = emulator::tensor_allocate(COLUMNS);
    if (threadIdx.x % 32 == 0) *where = at;
}
template <unsigned COLUMNS> inline void deallocate(unsigned at) { emulator::tensor_deallocate(at, COLUMNS); }
inline void store_columns(unsigned at, const unsigned (&from)[4]) { emulator::tensor_store(at, from, 4); }
inline void wait_stores() { emulator::tensor_wait_stores(); }
inline void load_columns(unsigned at, unsigned (&to)[16]) { emulator::tensor_load(at, to, 16); }
inline void fence_before_sync() { emulator::tensor_fence_before(); }
inline void fence_after_sync() { emulator::tensor_fence_after(); }
constexpr emulator::Kind kind_of(Nvfp4) { return emulator::MXF4NVF4_4X; }
constexpr emulator::Kind kind_of(Mxfp4) { return emulator::MXF4_2X; }
template <class Element> constexpr emulator::Kind kind_of(Mx8<Element>) { return emulator::MXF8F6F4_1X; }
template <unsigned BYTE, class Format>
inline void multiply(unsigned d, unsigned long long a, unsigned long long b, unsigned scale_a, unsigned scale_b, bool more, Format format) {
    emulator::tensor_multiply(kind_of(format), d, a, b, instruction_of<Format>(BYTE), scale_a, scale_b, more);
}
inline void begin_barrier(unsigned long long* barrier) { emulator::barrier_begin(barrier); }
inline void commit(unsigned long long* barrier) { emulator::tensor_commit(barrier); }
inline void wait_barrier(unsigned long long* barrier, unsigned parity) { emulator::barrier_wait(barrier, parity); }

#endif

__device__ inline unsigned long long tensor_descriptor(const void* tile) { return tensor_descriptor_of(shared_address(tile)); }
