"""Readers and writers of model folders: other people's formats and our own (docs/format.md).

`Source` reads a folder of safetensors tensor by tensor, `write_shard` writes one file at once or not at all,
`formats` turns quantized layers into the tensors and the config of a checkpoint format and back, `load` gives a model
that runs on the codes, `inspect` says what a folder holds. Nothing here unpickles anything, and only `load` and
`Source.read` need torch.
"""

from __future__ import annotations

from subbyte.checkpoint import formats
from subbyte.checkpoint.files import write_json, write_shard
from subbyte.checkpoint.inspection import TensorReport, inspect
from subbyte.checkpoint.loading import load
from subbyte.checkpoint.raw import Raw
from subbyte.checkpoint.source import Source

__all__ = ["Raw", "Source", "TensorReport", "formats", "inspect", "load", "write_json", "write_shard"]
