"""The published systems: each a typed function that returns a recipe. A new one is one file here and one line below.

>>> from subbyte.systems import gptq
>>> str(gptq(bits=3, group_size=64).weights)
'int3/g64/asym'
"""

from __future__ import annotations

from subbyte.systems.adadim import adadim
from subbyte.systems.awq import awq
from subbyte.systems.best import best
from subbyte.systems.dmmv import dmmv
from subbyte.systems.gptq import gptq
from subbyte.systems.gwq import gwq
from subbyte.systems.hqq import hqq
from subbyte.systems.nupes import nupes
from subbyte.systems.powerquant import powerquant
from subbyte.systems.quantease import quantease
from subbyte.systems.quip import quip
from subbyte.systems.quip_sharp import quip_sharp
from subbyte.systems.registry import Option, System, find, registry, system
from subbyte.systems.rtn import rtn
from subbyte.systems.smoothquant import smoothquant
from subbyte.systems.spqr import spqr
from subbyte.systems.vptq import vptq

__all__ = [
    "Option",
    "System",
    "adadim",
    "awq",
    "best",
    "dmmv",
    "find",
    "gptq",
    "gwq",
    "hqq",
    "nupes",
    "powerquant",
    "quantease",
    "quip",
    "quip_sharp",
    "registry",
    "rtn",
    "smoothquant",
    "spqr",
    "system",
    "vptq",
]
