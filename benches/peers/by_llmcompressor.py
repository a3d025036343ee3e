"""RTN, GPTQ and AWQ by llm-compressor; see this folder's `__init__.py` for the arguments."""

import os

import numpy as np
import torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.pipelines.cache import IntermediatesCache
from task import BITS, GROUP, MODEL, OUT, SYSTEM, TOKENS, measured
from transformers import AutoModelForCausalLM

torch.set_num_threads(os.cpu_count() or 1)
IntermediatesCache.pin_memory = lambda *_: None  # its AWQ pins memory for a GPU, which raises where there is none
weights = {"num_bits": BITS, "type": "int", "symmetric": False, "strategy": "group", "group_size": GROUP}
scheme = {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}, "ignore": ["lm_head"]}
recipe = {
    "rtn": lambda: QuantizationModifier(**scheme),
    "gptq": lambda: GPTQModifier(**scheme, dampening_frac=0.01, actorder=None),
    "awq": lambda: [AWQModifier(duo_scaling=True, n_grid=20), QuantizationModifier(**scheme)],
}[SYSTEM]()
tokens = np.load(TOKENS)
data = Dataset.from_dict({"input_ids": tokens.tolist(), "attention_mask": np.ones_like(tokens).tolist()})
calibration = {
    "dataset": data,
    "max_seq_length": tokens.shape[1],
    "num_calibration_samples": len(tokens),
    "pipeline": "sequential",
}
with measured():
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    oneshot(model=model, recipe=recipe, **({} if SYSTEM == "rtn" else calibration))
    model.save_pretrained(OUT, save_compressed=True)
