from __future__ import annotations

from pathlib import Path

import pytest
import torch

from subbyte.calibration.storage import allocate
from subbyte.errors import OutputError


def test_large_tensors_live_in_a_nameless_file(tmp_path: Path) -> None:
    tensor = allocate((3, 5, 7), limit=4 * 105 - 1, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert (tensor.shape, tensor.dtype) == ((3, 5, 7), torch.float32)
    tensor.copy_(torch.arange(105.0).reshape(3, 5, 7))
    assert tensor[2, 4, 6] == 104


def test_small_tensors_do_not() -> None:
    assert allocate((3, 5, 7), limit=4 * 105, folder=Path("/nowhere")).shape == (3, 5, 7)


def test_no_space_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="GiB of free space"):
        allocate((1 << 20, 1 << 22), limit=0, folder=tmp_path)  # 16 TiB
    assert list(tmp_path.iterdir()) == []
