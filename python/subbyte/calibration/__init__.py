"""Blocks of a model and their inputs, what is gathered from them, the text they run on, one-dimensional searches."""

from __future__ import annotations

from subbyte.calibration.block import Block, Call
from subbyte.calibration.gradients import gradients
from subbyte.calibration.search import grid_search, halving_search
from subbyte.calibration.staged import Staged, waiting_bytes
from subbyte.calibration.statistics import Collector, Statistics, Twin, Wanted, gather, measure
from subbyte.calibration.stream import Stream
from subbyte.calibration.text import Bos, pydoc_text, tokens, windows

__all__ = [
    "Block",
    "Bos",
    "Call",
    "Collector",
    "Staged",
    "Statistics",
    "Stream",
    "Twin",
    "Wanted",
    "gather",
    "gradients",
    "grid_search",
    "halving_search",
    "measure",
    "pydoc_text",
    "tokens",
    "waiting_bytes",
    "windows",
]
