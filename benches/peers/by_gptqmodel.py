"""RTN, GPTQ, AWQ and VPTQ by GPTQModel; see this folder's `__init__.py` for the arguments."""

import os

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # on two cores it stops without this

import numpy as np
import torch
from gptqmodel import BACKEND, GPTQModel
from gptqmodel.nn_modules.qlinear import BaseQuantLinear
from gptqmodel.quantization.config import AWQConfig, GPTQConfig, RTNConfig, VPTQConfig
from task import BITS, GROUP, MODEL, PACKED, SYSTEM, TOKENS, export, measured

torch.set_num_threads(os.cpu_count() or 1)
common = {"device": "cpu", "offload_to_disk": False}
grouped = common | {"bits": BITS, "group_size": GROUP, "sym": False}
config = {
    "rtn": lambda: RTNConfig(**grouped, format="gptq_v2"),
    "gptq": lambda: GPTQConfig(**grouped, format="gptq_v2", desc_act=False, act_group_aware=False, damp_percent=0.01),
    "awq, clipped": lambda: AWQConfig(**grouped, format="gemm"),
    "vptq": lambda: VPTQConfig(
        **common, vector_lens=[-1, 4], num_centroids=[-1, 2 ** (4 * BITS)], num_res_centroids=[-1, -1], enable_perm=True
    ),
}[SYSTEM]()
dtype = torch.float16 if SYSTEM.startswith("awq") else torch.float32  # its AWQ refuses f32
samples = [{"input_ids": row.tolist(), "attention_mask": [1] * len(row)} for row in np.load(TOKENS)]
with measured():
    model = GPTQModel.load(str(MODEL), config, dtype=dtype)
    model.quantize(None if SYSTEM == "rtn" else samples, batch_size=4)
    model.save(str(PACKED))
runtime = {"awq, clipped": BACKEND.AWQ_TORCH, "vptq": BACKEND.VPTQ_TORCH}.get(SYSTEM, BACKEND.GPTQ_TORCH)
packed = GPTQModel.load(str(PACKED), backend=runtime, device="cpu").model
weights = {name: tensor for name, tensor in packed.state_dict().items() if "norm" in name}
for name, layer in packed.named_modules():
    if isinstance(layer, BaseQuantLinear):
        # Its outputs for the unit vectors are its weight, whatever it holds that in.
        weights[f"{name}.weight"] = layer(torch.eye(layer.in_features, dtype=torch.float16)).T
export(weights)
