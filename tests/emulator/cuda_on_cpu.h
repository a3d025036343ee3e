// As much of CUDA C++ as cuda/ uses, on one CPU thread, so that a kernel can be checked where there is no GPU. Every thread of a block
// is a fibre that runs until a barrier, an operation of its whole warp, or its end; then the next one runs.
//
// The kernel is compiled with -fsanitize=thread, which puts a call before every memory access, and linked with runtime.cpp in place of
// libtsan. What is then an error that a GPU would not tell:
//   an access beyond the arrays that the launch was given, or misaligned
//   a read of shared memory, or of a result, that nobody has written in this launch
//   two threads at one byte of shared memory, one of them writing, with no barrier between
//   a read of what cp.async has under way, or of what it brought for another thread without a barrier since
//   threads of a block at different barriers, lanes of a warp at different operations
//   wgmma on what nobody fenced for it, a write to what it still reads, an access to accumulators that it still writes or that changed
//   since wgmma.fence, a descriptor that is not of the 128-byte swizzle at a multiple of 1024 bytes
//   the like of tcgen05.mma; tensor memory that is not allocated, not given back, of another warp, not written or not yet, written to while a
//   product reads it, or touched by another thread without tcgen05.wait and the fences around a barrier; scales that differ from one quarter
//   of it to another
// Bank conflicts are counted. What this cannot show: memory orders between blocks, and inline PTX, of which common/ keeps a twin in C++.
#pragma once
#include <math.h>
#include <stddef.h>
#include <string.h>

#include <utility>

#define __global__
#define __device__
#define __shared__ static  // one block runs at a time
#define __launch_bounds__(...)
#define __syncthreads() emulator::barrier(__LINE__)
#define threadIdx emulator::thread_index()
#define blockIdx emulator::block_index()
#define gridDim emulator::grid_size()

namespace emulator {

struct Dim {
    unsigned x, y, z;
};
Dim thread_index();
Dim block_index();
Dim grid_size();

void barrier(int line);

// One operation of a whole warp, or warpgroup: `all` runs once every lane has come to it, with what each of them brought.
typedef void (*Collective)(void** lanes);
void collective(Collective all, void* mine, unsigned lanes = 32);

// One access of `bytes`, aligned to them; what a compiler would make of memcpy is several.
void load(void* to, const void* from, size_t bytes);
void store(void* to, const void* from, size_t bytes);

// Dynamic shared memory of the launch, and cp.async: `valid` bytes of `from`, the rest zeros, land when they are waited for.
void* dynamic_shared();
void copy_async(void* to, const void* from, unsigned bytes, unsigned valid);
void commit_async();
void wait_async(unsigned pending);
void fence_async_proxy();

// wgmma of both operands in shared memory, each told by a descriptor, on 64 and `columns` rows of 32 bytes. What they hold is read, and
// `multiply` called with it and the accumulators of all 128 lanes, when the group is waited for.
typedef void (*Multiply)(const unsigned char* a, const unsigned char* b, bool more, void** sums);
unsigned shared_address(const void* at);
void wgmma_fence();
void wgmma(unsigned long long a, unsigned long long b, unsigned columns, bool more, void* sum, size_t bytes, Multiply multiply);
void wgmma_commit();
void wgmma_wait(unsigned pending);

// Tensor memory, lane << 16 | column, of which a block may have some columns; `columns` registers of each lane of a warp, from `at` on.
unsigned tensor_allocate(unsigned columns);
void tensor_deallocate(unsigned at, unsigned columns);
void tensor_store(unsigned at, const unsigned* from, unsigned columns);
void tensor_load(unsigned at, unsigned* to, unsigned columns);
void tensor_wait_stores();
void tensor_fence_before();
void tensor_fence_after();
// tcgen05.mma of one thread, of 32 bytes of each row. It reads, and writes its sums, when somebody waits for the mbarrier that it has been
// committed to; one arrival is a phase of that.
enum Kind { MXF4NVF4_4X, MXF4_2X, MXF8F6F4_1X };
void tensor_multiply(Kind kind, unsigned d, unsigned long long a, unsigned long long b, unsigned instruction, unsigned scale_a,
                     unsigned scale_b, bool more);
void tensor_commit(void* barrier);
void barrier_begin(void* barrier);
void barrier_wait(void* barrier, unsigned parity);

bool run(void (*body)(void** args), void** args, const unsigned* grid, const unsigned* block, size_t shared, bool reverse, bool count);

template <class... Args, size_t... INDEX> void spread(void (*entry)(Args...), void** args, std::index_sequence<INDEX...>) {
    entry(*static_cast<Args*>(args[INDEX])...);
}
template <class... Args> void spread(void (*entry)(Args...), void** args) { spread(entry, args, std::index_sequence_for<Args...>()); }
template <auto ENTRY> void body(void** args) { spread(ENTRY, args); }

}  // namespace emulator

inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline int max(int a, int b) { return a < b ? b : a; }
