"""GPTQ by llm-compressor; see this folder's `__init__.py` for the arguments."""

import time

started = time.perf_counter()

import json
import sys

import numpy as np
import torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from transformers import AutoModelForCausalLM

model_path, tokens_path, out, bits, group = sys.argv[1:6]
torch.set_num_threads(2)
tokens = np.load(tokens_path)
model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
weights = {"num_bits": int(bits), "type": "int", "symmetric": False, "strategy": "group", "group_size": int(group)}
recipe = GPTQModifier(
    config_groups={"group_0": {"targets": ["Linear"], "weights": weights}},
    ignore=["lm_head"],
    dampening_frac=0.01,
    actorder=None,
)
data = Dataset.from_dict({"input_ids": tokens.tolist(), "attention_mask": np.ones_like(tokens).tolist()})
start = time.perf_counter()
oneshot(
    model=model,
    dataset=data,
    recipe=recipe,
    max_seq_length=tokens.shape[1],
    num_calibration_samples=len(tokens),
    pipeline="sequential",
)
seconds = time.perf_counter() - start
model.save_pretrained(out, save_compressed=True)
print(json.dumps({"seconds": seconds, "whole": time.perf_counter() - started}))
