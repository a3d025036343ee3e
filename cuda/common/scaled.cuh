// How an exact int32 sum becomes a float: times the scale of its row of x, times that of its row of the weight, plus bias.
#pragma once

struct Epilogue {
    const float *x_scale, *w_scale, *bias;  // bias may be null
    unsigned x_step, w_step;                // 1 for a scale per row, 0 for a single one
    // Not to be contracted: the bits are those of the CPU.
    __device__ float operator()(int sum, unsigned m, unsigned n) const {
        const float scaled = __fmul_rn(__fmul_rn(float(sum), x_scale[m * x_step]), w_scale[n * w_step]);
        return bias ? __fadd_rn(scaled, bias[n]) : scaled;
    }
};
