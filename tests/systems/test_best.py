"""Best: our composition beats what it is made of, at no more bits, on both trained models."""

from __future__ import annotations

import pytest
from tests.systems.quality import Quality

from subbyte.errors import RecipeError
from subbyte.systems import best, gptq, quip_sharp, vptq

FEW = 8


def test_nearer_to_the_float_model_than_the_best_published_system(llama: Quality) -> None:
    """At equal bits, where activations have no outliers to speak of; the other systems are further away. By 3 to 5 per
    cent, as the processor's products round."""
    assert llama.divergence(best(2), FEW) < 0.99 * llama.divergence(quip_sharp(2), FEW)


def test_outliers_of_activations_do_not_decide_the_rounding(outliers: Quality) -> None:
    found = outliers.divergence(best(2), FEW)
    assert found < 0.4 * outliers.divergence(quip_sharp(2), FEW)
    assert found < 0.6 * outliers.divergence(gptq(bits=2), FEW)
    assert found < 0.8 * outliers.divergence(best(2, level=False), FEW)  # large outputs are outliers as well


def test_its_own_codebooks_beat_those_of_the_paper(llama: Quality) -> None:
    """At equal bits VPTQ, tuned, is the nearest of the published systems; docs/results.md has 4 bits too."""
    assert llama.divergence(best(3)) < 0.8 * llama.divergence(vptq(bits=3, vector_length=2))


def test_channels_that_stand_out_do_not_spoil_its_codebooks(outliers: Quality) -> None:
    assert outliers.divergence(best(4)) < 0.55 * outliers.divergence(vptq(bits=4, vector_length=2))


def test_has_the_widths_of_its_codebooks() -> None:
    assert [str(best(bits).weights) for bits in (2, 3, 4)] == [
        "e8p2/tensor/f32",
        "v2k64/tensor/f16",
        "v2k256/tensor/f16",
    ]
    assert best(2).allocate is best(4, allocate=False).allocate is None
    assert best(3).allocate is not None
    assert [str(scheme.element) for scheme in best(3).allocate.candidates] == [
        "v2k8",
        "v2k16",
        "v2k32",
        "v2k128",
        "v2k256",
    ]
    for bits in (1, 5, True):
        with pytest.raises(RecipeError, match="2, 3 or 4"):
            best(bits)
