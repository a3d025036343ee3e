"""GPTQ by GPTQModel; see this folder's `__init__.py` for the arguments.

What it saves needs its own kernels to load, so the dequantized weights are written as a float checkpoint instead.
"""

import time

started = time.perf_counter()

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # on two cores it stops without this

import numpy as np
import torch
from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
from transformers import AutoModelForCausalLM

model_path, tokens_path, out, bits, group = sys.argv[1:6]
torch.set_num_threads(2)
tokens = torch.from_numpy(np.load(tokens_path))
config = QuantizeConfig(
    bits=int(bits),
    group_size=int(group),
    sym=False,
    desc_act=False,
    act_group_aware=False,
    damp_percent=0.01,
    format="gptq_v2",
    device="cpu",
    offload_to_disk=False,
)
model = GPTQModel.load(model_path, config, backend=BACKEND.TORCH, dtype=torch.float32)
samples = [{"input_ids": row.tolist(), "attention_mask": [1] * len(row)} for row in tokens]
start = time.perf_counter()
model.quantize(samples, batch_size=4)
seconds = time.perf_counter() - start
model.save(out + ".packed")
whole = time.perf_counter() - started
packed = GPTQModel.load(out + ".packed", backend=BACKEND.TORCH, device="cpu")
floats = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
linears = dict(packed.model.named_modules())
with torch.no_grad():
    for name, module in floats.named_modules():
        if isinstance(module, torch.nn.Linear) and hasattr(linears[name], "dequantize_weight"):
            module.weight.copy_(linears[name].dequantize_weight().T.reshape(module.weight.shape))
floats.save_pretrained(Path(out))
print(json.dumps({"seconds": seconds, "whole": whole}))
