"""Published low-bit quantization systems on one set of fast kernels."""
