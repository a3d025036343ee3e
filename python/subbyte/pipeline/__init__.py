"""Streaming quantization: block by block, resumable, memory bounded by one block and the calibration activations."""

from __future__ import annotations

from subbyte.pipeline.progress import BlockReport, Callback, LayerReport, Plan, Progress, Result
from subbyte.pipeline.run import quantize

__all__ = ["BlockReport", "Callback", "LayerReport", "Plan", "Progress", "Result", "quantize"]
