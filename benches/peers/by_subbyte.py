"""All of the systems by subbyte; see this folder's `__init__.py` for the arguments."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line does, see subbyte.cli

import numpy as np
import torch
from task import BITS, GROUP, MODEL, OUT, SYSTEM, TOKENS, measured

import subbyte
from subbyte import systems

SETTINGS = {
    "rtn": lambda: systems.rtn(BITS, GROUP),
    "hqq": lambda: systems.hqq(BITS, GROUP),
    "gptq": lambda: systems.gptq(BITS, GROUP, symmetric=False, act_order=False, damp=0.01, mse=False),
    "awq": lambda: systems.awq(BITS, GROUP, duo=True, clip=False),
    "awq, clipped": lambda: systems.awq(BITS, GROUP, duo=True),
    "vptq": lambda: systems.vptq(BITS, vector_length=4, tune_iterations=0),
}
torch.set_num_threads(os.cpu_count() or 1)
recipe = SETTINGS[SYSTEM]()
tokens = torch.from_numpy(np.load(TOKENS)) if recipe.wanted or recipe.transforms else None
with measured():
    subbyte.quantize(MODEL, recipe, OUT, calibration=tokens, verify=False)
