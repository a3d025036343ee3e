// The scales of sums, of whole ones and of those over blocks of K, and where the sums go.
#pragma once

// How an exact int32 sum becomes a float: times the scale of its row of x, times that of its row of the weight, plus bias.
struct Epilogue {
    const float *x_scale, *w_scale, *bias;  // bias may be null
    unsigned x_step, w_step;                // 1 for a scale per row, 0 for a single one
    // Not to be contracted: the bits are those of the CPU.
    __device__ float operator()(int sum, unsigned m, unsigned n) const {
        const float scaled = __fmul_rn(__fmul_rn(float(sum), x_scale[m * x_step]), w_scale[n * w_step]);
        return bias ? __fadd_rn(scaled, bias[n]) : scaled;
    }
};

// Where exact sums go: scaled to y [M, N], or where K is cut into slices as they are to parts [gridDim.y, M, N].
struct ExactResult {
    Epilogue epilogue;
    float* y;
    int* parts;
    unsigned M, N;
    __device__ void put(unsigned m, unsigned n, int sum) const {
        if (parts)
            parts[(size_t(blockIdx.y) * M + m) * N + n] = sum;
        else
            y[size_t(m) * N + n] = epilogue(sum, m, n);
    }
};

// Row r of a matrix has the scales of row min(r / tall, rows - 1), all columns those of block 0 if there is one.
struct Scales {
    const float* values;
    unsigned rows, blocks, tall;
    __device__ const float* place(unsigned row, unsigned block) const {
        const unsigned r = row / tall < rows ? row / tall : rows - 1, b = block < blocks ? block : blocks - 1;
        return values + (size_t(r) * blocks + b);
    }
    __device__ float at(unsigned row, unsigned block) const { return *place(row, block); }
};

// Row n has a scale for each `group` columns, of which there are `groups`; `all` multiplies every one.
template <class T> struct GroupScales {
    const T* values;
    unsigned group;
    size_t groups;
    float all;
    __device__ float at(unsigned n, unsigned k) const { return widen(values[n * groups + k / group]) * all; }
};

// Where sums that are scaled go: to y [M, N], or where K is cut into slices to parts [gridDim.y, M, N] f32. The first slice adds the bias,
// which may be null.
struct Result {
    const float* bias;
    float *y, *parts;
    unsigned M, N;
    __device__ void put(unsigned m, unsigned n, float sum) const {
        if (bias && blockIdx.y == 0) sum += bias[n];
        if (parts)
            parts[(size_t(blockIdx.y) * M + m) * N + n] = sum;
        else
            y[size_t(m) * N + n] = sum;
    }
};
