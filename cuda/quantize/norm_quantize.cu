// norm_quantize: each row normalized, times weight, plus bias, then by its own scale (common/tokens.cuh):
//   y = (x - mean) / sqrt(mean((x - mean)^2) + norm_eps) * weight + bias, without the mean unless `centred` (LayerNorm; else RMSNorm)
//   x [T, C], weight [C], bias [C] or null: f32, f16 or bf16, all the same | codes [T, C] i8 or E4M3 | scale [T] f32; all row-major
//   Grid T x 256 threads, no dynamic shared memory.
//   Sums are f64; the mean and the root's inverse are rounded to f32 once, then each step is. So the bits are those of the CPU, unless
//   a sum in another order leaves the last bit of f64 on the other side of a tie.
// A block makes a row and reads it three times (centred: four), all but the first from a cache. Limit: memory, 3 bytes an element of
// f16. Not timed on a GPU so far.
#include "common/tokens.cuh"

enum : unsigned { THREADS = 256 };

// The mean over a row of what `of` makes of its numbers.
template <class T, class Of> __device__ inline double mean_of(const T* row, unsigned C, Of of) {
    double sum = 0;
    for (unsigned c = threadIdx.x; c < C; c += THREADS) sum += of(double(widen(row[c])));
    return reduce<THREADS>(sum, [](double a, double b) { return a + b; }) / C;
}

template <class Format, class T>
__device__ void norm_quantize(const T* x, const T* weight, const T* bias, typename Format::Code* codes, float* scale, unsigned C,
                              unsigned centred, float norm_eps, float eps) {
    const size_t begin = size_t(blockIdx.x) * C;
    const T* row = x + begin;
    const double mean = centred ? mean_of(row, C, [](double x) { return x; }) : 0;
    const double square = mean_of(row, C, [&](double x) { return (x - mean) * (x - mean); });
    const float middle = float(mean), factor = float(1 / sqrt(square + double(norm_eps)));
    const auto normed = [&](unsigned c) {
        const float y = __fmul_rn(__fmul_rn(widen(row[c]) - middle, factor), widen(weight[c]));
        return bias ? __fadd_rn(y, widen(bias[c])) : y;
    };
    quantize_row<Format, THREADS>(C, eps, normed, codes + begin, scale + blockIdx.x);
}

#define ENTRY(NAME, FORMAT, T)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                           \
        NAME(const T* x, const T* weight, const T* bias, FORMAT::Code* codes, float* scale, unsigned C, unsigned centred,       \
             float norm_eps, float eps) {                                                                                       \
        norm_quantize<FORMAT>(x, weight, bias, codes, scale, C, centred, norm_eps, eps);                                        \
    }

TOKEN_ENTRIES(ENTRY, norm_quantize)
