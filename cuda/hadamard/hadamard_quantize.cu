// hadamard_quantize: scale * (x * signs) H^T (common/hadamard.cuh), each row then by its own scale (common/tokens.cuh).
//   x [R, n] f32, f16 or bf16 | factors [n] f32, or null: 1 | codes [R, n] i8 or E4M3 | scales [R] f32; all row-major
//   signs, order, log, scale, each: as in hadamard.cu, as is the grid
//   4 * each * n bytes of dynamic shared memory for K = 1, 4 * each * K * (2^t + 2) for K > 1 (the outer entries): whole rows, so that the
//   transformed ones never leave the chip. For K = 1 the bits are those of every other path.
// Limit: memory, 3 bytes an element of f16; for large K the tensor cores. Not timed on a GPU so far.
#include "common/hadamard.cuh"
#include "common/tokens.cuh"

template <class Format, class T, bool OUTER>
__device__ void hadamard_quantize(const T* x, const float* factors, typename Format::Code* codes, float* scales,
                                  const Hadamard<OUTER>& transform, unsigned rows, unsigned each, float eps) {
    float* room = reinterpret_cast<float*>(dynamic_shared());
    const unsigned n = transform.length(), first = blockIdx.x * each, here = rows - first < each ? rows - first : each;
    const size_t begin = size_t(first) * n;
    const auto read = [&](unsigned at) { return factors ? __fmul_rn(widen(x[begin + at]), factors[at % n]) : widen(x[begin + at]); };
    transform(here * n, room, read, [&](unsigned at, float value) { room[transform.place(at)] = value; });
    __syncthreads();
    if (each == 1) {
        quantize_row<Format, 256>(n, eps, [&](unsigned c) { return room[transform.place(c)]; }, codes + begin, scales + first);
        return;
    }
    for (unsigned row = threadIdx.x / 32; row < here; row += 8) {
        const auto value = [&](unsigned c) { return room[transform.place(row * n + c)]; };
        quantize_row<Format, 32>(n, eps, value, codes + begin + size_t(row) * n, scales + first + row);
    }
}

#define ENTRY_OF(NAME, FORMAT, T, OUTER)                                                                                      \
    extern "C" __global__ void __launch_bounds__(256)                                                                        \
        NAME(const T* x, const float* factors, FORMAT::Code* codes, float* scales, const unsigned* signs, unsigned rows,      \
             unsigned each, unsigned order, unsigned log, float scale, float eps) {                                           \
        hadamard_quantize<FORMAT, T, OUTER>(x, factors, codes, scales, {signs, order, log, scale}, rows, each, eps);          \
    }
#define ENTRY(NAME, FORMAT, T) ENTRY_OF(NAME, FORMAT, T, false)
#define OUTER_ENTRY(NAME, FORMAT, T) ENTRY_OF(NAME, FORMAT, T, true)

TOKEN_ENTRIES(ENTRY, hadamard_quantize)
TOKEN_ENTRIES(OUTER_ENTRY, hadamard_quantize_outer)
