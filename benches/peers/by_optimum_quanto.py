"""Round to nearest by optimum-quanto, with float zero points; see this folder's `__init__.py` for the arguments."""

import json
import os

import torch
from optimum.quanto import QModuleMixin, freeze, qint4, quantization_map, quantize
from safetensors.torch import save_file
from task import MODEL, PACKED, export, measured
from transformers import AutoModelForCausalLM

torch.set_num_threads(os.cpu_count() or 1)
with measured():
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    quantize(model, weights=qint4, exclude="lm_head")  # groups of 128, the only ones
    freeze(model)
    PACKED.mkdir()
    save_file(model.state_dict(), PACKED / "model.safetensors")
    (PACKED / "quantization_map.json").write_text(json.dumps(quantization_map(model)))
layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, QModuleMixin)}
export({f"{name}.weight": layer.weight.dequantize() for name, layer in layers.items()})
