"""Function-preserving rewrites of a block before it is rounded. A new one is one file and one line in TRANSFORMS."""

from __future__ import annotations

from subbyte.transforms.activation_aware import ActivationAwareClip, ActivationAwareScale
from subbyte.transforms.balance import Balance
from subbyte.transforms.base import Transform, Work
from subbyte.transforms.choose_dimension import ChooseDimension
from subbyte.transforms.fold import fold
from subbyte.transforms.smooth import Smooth

__all__ = [
    "TRANSFORMS",
    "ActivationAwareClip",
    "ActivationAwareScale",
    "Balance",
    "ChooseDimension",
    "Smooth",
    "Transform",
    "Work",
    "fold",
]

TRANSFORMS: dict[
    str,
    type[ActivationAwareClip] | type[ActivationAwareScale] | type[Balance] | type[ChooseDimension] | type[Smooth],
] = {
    "smooth": Smooth,
    "balance": Balance,
    "activation_aware_scale": ActivationAwareScale,
    "activation_aware_clip": ActivationAwareClip,
    "choose_dimension": ChooseDimension,
}
"""The names that recipes use."""
