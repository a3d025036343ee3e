"""What of benches/gpu_check.py runs without a card."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from benches import gpu_check
from benches.gpu_check import Contestant, Row

from subbyte import cuda
from subbyte.cuda import driver
from subbyte.cuda.gemm.tuned import choose
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


def test_choices_are_timed_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each candidate runs as the choice that it is, and the fastest goes into the table, beside other cards."""
    monkeypatch.setattr(driver, "capability", lambda device: (8, 0))
    tried: list[tuple[int, int]] = []
    given = Contestant("w8a8", "subbyte", "9x4000x1100", lambda: tried.append(choose("w8a8", 0, (9, 4000, 1100))), 0, 0)

    def clock(given: Contestant) -> float:
        given.call()
        return abs(tried[-1][0] - 128) + abs(tried[-1][1] - 2)

    assert gpu_check.best(given, clock) == (128, 2)
    assert tried == [(16, 1), (16, 2), (128, 1), (128, 2)]
    assert gpu_check.best(replace(given, who="torch"), clock) is None
    assert gpu_check.best(replace(given, kernel="csr"), clock) is None
    path = tmp_path / "tuned.json"
    for card in ("One", "Another", "One"):
        gpu_check.write_choices({"w8a8": {"16x4096x2048": (128, 2)}}, card, path)
    assert json.loads(path.read_text()) == {card: {"w8a8": {"16x4096x2048": [128, 2]}} for card in ("One", "Another")}


def test_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        cuda.devices()
    except SubbyteError:
        assert gpu_check.main() == 1
        assert "needs an NVIDIA card" in capsys.readouterr().err
    else:
        pytest.skip("this machine has a card")
