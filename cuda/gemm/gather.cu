// gather: y[m, k] = x[m, order[k]]: activations as a weight in act-order wants them.
//   x, y [M, K] of 16 bits | order [K] u32, columns of x; what is none gives NaN (0x7fff, in f16 and in bf16)
//   Grid ceil(M * K / 256) x 256 threads. Limit: memory, 4 bytes an element. Not timed on a GPU so far.

enum : unsigned { THREADS = 256 };

extern "C" __global__ void __launch_bounds__(THREADS)
    gather(const unsigned short* x, const unsigned* order, unsigned short* y, unsigned M, unsigned K) {
    const size_t at = size_t(blockIdx.x) * THREADS + threadIdx.x;
    if (at >= size_t(M) * K) return;
    const unsigned column = order[at % K];
    y[at] = column < K ? x[at / K * K + column] : 0x7fff;
}
