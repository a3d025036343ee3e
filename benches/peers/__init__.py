"""Systems by this package and by others, each in a virtual environment of its own: `make peers` installs those.

Every script is called as `python by_PACKAGE.py MODEL TOKENS.npy OUT SYSTEM BITS GROUP`, quantizes MODEL by SYSTEM, on
the tokens where that calibrates, saves what its package saves, prints "saved" and the seconds from the model on disk to
the result on disk, imports and tokens not counted, and leaves at OUT what `subbyte eval` reads.
Settings are the same in all: asymmetric; GPTQ without act-order or clip search at damping 0.01; AWQ with 20 exponents
and the weights in its scales; VPTQ in the order of the activations, its layers not tuned.
"""
