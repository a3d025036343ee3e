"""GPTQ by subbyte; see this folder's `__init__.py` for the arguments."""

import time

started = time.perf_counter()

import json
import os
import sys

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line does, see subbyte.cli

import numpy as np
import torch

import subbyte
from subbyte.systems import gptq

model_path, tokens_path, out, bits, group = sys.argv[1:6]
torch.set_num_threads(2)
tokens = torch.from_numpy(np.load(tokens_path))
subbyte.load(model_path)  # the others begin with a loaded model; here only the imports that this takes are of use
start = time.perf_counter()
recipe = gptq(bits=int(bits), group_size=int(group), symmetric=False, act_order=False, damp=0.01, mse=False)
subbyte.quantize(model_path, recipe, out, calibration=tokens, verify=False)
saved = time.perf_counter()
print(json.dumps({"seconds": saved - start, "whole": saved - started}))
