// quantize_tokens: each row by its own scale (common/tokens.cuh).
//   x [T, C] f32, f16 or bf16 | codes [T, C] i8 or E4M3 | scale [T] f32; all row-major
//   Grid T x 256 threads, no dynamic shared memory. The bits are those of every other path.
// A block makes a row; the second reading of it comes from a cache. Limit: memory, 5 bytes an element of f32. Not timed on a GPU so far.
#include "common/tokens.cuh"

#define ENTRY(NAME, FORMAT, T)                                                                            \
    extern "C" __global__ void __launch_bounds__(256)                                                     \
        NAME(const T* x, FORMAT::Code* codes, float* scale, unsigned C, float eps) {             \
        const size_t row = blockIdx.x, begin = row * C;                                                   \
        quantize_row<FORMAT, 256>(C, eps, [&](unsigned c) { return widen(x[begin + c]); }, codes + begin, scale + row); \
    }

TOKEN_ENTRIES(ENTRY, quantize_tokens)
