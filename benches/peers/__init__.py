"""GPTQ as other packages run it, each in a virtual environment of its own: `make peers` installs them.

Every script is called as `python SCRIPT MODEL TOKENS.npy OUT BITS GROUP`, quantizes MODEL on the tokens asymmetrically
without act-order at damping 0.01, writes a checkpoint that `subbyte eval` reads to OUT, and prints the seconds that the
quantization itself took as JSON on its last line.
"""
