"""How good a quantized model is and how much it takes: measurements, and reports that show them."""

from __future__ import annotations

from subbyte.evaluate.embeddings import Similarity, embeddings, similarity
from subbyte.evaluate.measure import Evaluation, Reference, evaluate
from subbyte.evaluate.report import Row
from subbyte.evaluate.size import Size, checkpoint_size, model_size

__all__ = [
    "Evaluation",
    "Reference",
    "Row",
    "Similarity",
    "Size",
    "checkpoint_size",
    "embeddings",
    "evaluate",
    "model_size",
    "similarity",
]
