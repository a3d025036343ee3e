"""QuIP#: its sheet's checks that need more than the kernels (the others: tests/kernels)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.pipeline.mini import MINI, TOKENS, digests
from tests.systems.quality import Quality

import subbyte
from subbyte import kernels
from subbyte.checkpoint import Source, formats, load
from subbyte.errors import SchemeError
from subbyte.modules import QuantizedLinear
from subbyte.recipe import Recipe
from subbyte.schemes import Scheme
from subbyte.systems import gptq, quip_sharp
from subbyte.tensors import CodebookTensor, QuantizedLayer, Rotated

#: Mean squared errors of standard normal numbers at the codebooks' own scales, by bits: the sheet's, C.
ERRORS = {2: (1.03, 0.0915), 3: (0.98, 0.030), 4: (1.03, 0.0101)}


@pytest.mark.parametrize("bits", ERRORS)
def test_the_codebooks_errors_are_the_published_ones(bits: int) -> None:
    x = np.random.default_rng(2).standard_normal((4000, 64)).astype(np.float32)
    scale, published = ERRORS[bits]
    back = kernels.e8p_decode(kernels.e8p_encode(x * np.float32(scale), bits), bits) / scale
    error = float(np.square(back - x).mean(dtype=np.float64))
    # the two-stage ones are round numbers, from a search that was not exact
    assert (0.99 if bits == 2 else 0.9) < error / published < 1.01


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("columns", [8, 40, 96])
def test_packing_is_exact_and_counts_every_bit(bits: int, columns: int) -> None:
    codes = np.random.default_rng(3).integers(0, 1 << 8 * bits, (5, columns // 8)).astype(np.uint32).view(np.int32)
    tensor = CodebookTensor.from_codes(codes, np.ones((1, 1), np.float32), Scheme.parse(f"e8p{bits}/tensor/f32"))
    np.testing.assert_array_equal(tensor.codes(), codes)
    assert tensor.nbytes == 5 * 4 * -(-columns * bits // 32) + 4
    x = torch.randn(2, columns)
    expected = x @ torch.from_numpy(tensor.dequantize()).T
    torch.testing.assert_close(QuantizedLinear(QuantizedLayer(tensor))(x), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(SchemeError, match="float inputs"):
        QuantizedLinear(QuantizedLayer(tensor, Scheme.parse("int8/token")))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_what_is_written_runs_as_what_was_solved(bits: int, tmp_path: Path) -> None:
    recipe = quip_sharp(bits=bits, tune_iterations=1)
    assert Recipe.from_data(recipe.to_data()) == recipe
    result = subbyte.quantize(MINI, recipe, tmp_path / "out", calibration=TOKENS)
    assert result.verified is not None
    source = Source.open(tmp_path / "out")
    form = formats.detect(source.config)
    assert form is not None
    assert form.name == "subbyte"
    for name in form.layers(source):
        weight = form.read(source, name).weight
        assert isinstance(weight, Rotated)
        rows, columns = weight.shape
        assert weight.bits_per_weight == bits + (16 * (rows + columns) + 32) / (rows * columns)
        stored = sum(source.nbytes(f"{name}.{part}") for part in form.parts if f"{name}.{part}" in source)
        assert stored == weight.nbytes + 16  # its shape
    with torch.no_grad():
        logits = load(tmp_path / "out")(input_ids=torch.from_numpy(TOKENS[:2])).logits
    assert torch.isfinite(logits).all()
    if bits == 2:
        subbyte.quantize(MINI, recipe, tmp_path / "again", calibration=TOKENS)
        assert digests(tmp_path / "again") == digests(tmp_path / "out")


@pytest.mark.parametrize("options", [{"codebook": "integers", "bits": 3}, {"incoherence": "kronecker"}], ids=str)
def test_the_ablations_run(options: dict[str, Any]) -> None:
    model = subbyte.quantize(MINI, quip_sharp(**options, tune_iterations=0), calibration=TOKENS[:2])
    assert any(isinstance(module, QuantizedLinear) and module.rotated for module in model.modules())


def test_the_lattice_beats_a_scalar_grid_and_gptq_at_two_bits(llama: Quality) -> None:
    """At fewer true bits, 2.09 against 2.14."""
    sharp = llama.loss(quip_sharp(tune_iterations=0, true_sequential=False), samples=8)
    assert sharp < llama.loss(gptq(bits=2))
