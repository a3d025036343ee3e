"""GPTQ by this package and by others, each in a virtual environment of its own: `make peers` installs those.

Every script is called as `python SCRIPT MODEL TOKENS.npy OUT BITS GROUP`, quantizes MODEL on the tokens asymmetrically
without act-order or clip search at damping 0.01, writes a checkpoint that `subbyte eval` reads to OUT, and prints JSON
on its last line: the seconds of the quantization call ("seconds": subbyte's reads the model and writes the result, the
others' neither), and of the whole script from the first import to the saved result ("whole").
"""
