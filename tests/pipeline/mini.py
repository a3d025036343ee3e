"""The embedded model as a folder, small calibration tokens, and ways to damage a copy of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

import subbyte

MINI = Path(subbyte.__file__).parent / "data" / "pydoc-mini"
TOKENS = np.random.default_rng(5).integers(2, 4096, (4, 32))


def digests(folder: Path) -> dict[str, str]:
    """The hash of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def copied(folder: Path, change: Callable[[Path], None] | None = None) -> Path:
    """A copy of the model in `folder`, changed."""
    shutil.copytree(MINI, folder)
    for path in [folder, *folder.iterdir()]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    if change is not None:
        change(folder)
    return folder


def with_config(**changes: object) -> Callable[[Path], None]:
    """Sets keys of config.json; None removes one."""

    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config.update(changes)
        kept = {key: value for key, value in config.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(kept))

    return change


def with_value(name: str, value: int) -> Callable[[Path], None]:
    """Sets the first element of a bf16 tensor to the 16 bits of `value`."""

    def change(folder: Path) -> None:
        import torch
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        tensors[name].view(torch.uint16).view(-1)[0] = value
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return change


def rewritten(folder: Path, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> None:
    """Rewrites the tensors of a folder as f32 arrays."""
    import torch
    from safetensors.torch import load_file as load_torch

    tensors = {name: t.to(torch.float32).numpy() for name, t in load_torch(folder / "model.safetensors").items()}
    save_file(change(tensors), folder / "model.safetensors", {"format": "pt"})
    assert load_file(folder / "model.safetensors")
