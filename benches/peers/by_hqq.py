"""HQQ by its authors' package; see this folder's `__init__.py` for the arguments."""

import os

import torch
from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
from hqq.models.hf.base import AutoHQQHFModel
from task import BITS, GROUP, MODEL, PACKED, export, measured
from transformers import AutoModelForCausalLM

torch.set_num_threads(os.cpu_count() or 1)
config = BaseQuantizeConfig(nbits=BITS, group_size=GROUP, axis=1)
with measured():
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    AutoHQQHFModel.quantize_model(model, config, compute_dtype=torch.float32, device="cpu")
    AutoHQQHFModel.save_quantized(model, str(PACKED))
export({f"{name}.weight": layer.dequantize() for name, layer in model.named_modules() if isinstance(layer, HQQLinear)})
