"""What of benches/gpu_check.py runs without a card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benches import gpu_check
from benches.gpu_check import Contestant, Row

from subbyte import cuda
from subbyte.errors import SubbyteError


def test_rates_and_the_file(tmp_path: Path) -> None:
    given = Contestant("w8a8", "subbyte", "1x2x3", lambda: None, bytes=4_000_000, flops=8_000_000)
    row = Row.of(given, cold_us=2.0, warm_us=1.0)
    assert (row.gb_per_s, row.tflops) == (2000.0, 4.0)
    path = gpu_check.write([row], "NVIDIA H100 80GB HBM3", "CUDA 12.8", tmp_path)
    assert path.name == "nvidia-h100-80gb-hbm3.json"
    report = json.loads(path.read_text())
    assert report["card"] == "NVIDIA H100 80GB HBM3"
    assert report["rows"][0]["cold_us"] == 2.0


def test_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        cuda.devices()
    except SubbyteError:
        assert gpu_check.main() == 1
        assert "needs an NVIDIA card" in capsys.readouterr().err
    else:
        pytest.skip("this machine has a card")
