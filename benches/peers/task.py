"""What these scripts share: arguments, what is printed, and float checkpoints of what only their packages read."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers.models.llama.modeling_llama  # noqa: F401 - some packages would import it only as they load a model
from safetensors.torch import load_file, save_file

MODEL, TOKENS, OUT = (Path(name) for name in sys.argv[1:4])
SYSTEM = sys.argv[4]
BITS, GROUP = (int(number) for number in sys.argv[5:7])
PACKED = OUT.with_suffix(".packed")
"""What a package saves that only itself can read."""


@contextmanager
def measured() -> Iterator[None]:
    """Around everything from a model on disk to the result on disk; what a script does afterwards does not count."""
    start = time.perf_counter()
    yield
    print("saved", time.perf_counter() - start, flush=True)


def export(tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes MODEL to OUT as f32, with these tensors in the place of its own: dequantized ones, and folded norms."""
    own = load_file(MODEL / "model.safetensors")
    if strange := tensors.keys() - own.keys():
        raise SystemExit(f"{MODEL} has no {sorted(strange)}")
    held = {name: tensors.get(name, tensor).detach().float().contiguous() for name, tensor in own.items()}
    OUT.mkdir()
    shutil.copyfile(MODEL / "tokenizer.json", OUT / "tokenizer.json")
    config = json.loads((MODEL / "config.json").read_text())
    (OUT / "config.json").write_text(json.dumps(config | {"dtype": "float32"}))
    save_file(held, OUT / "model.safetensors", metadata={"format": "pt"})
