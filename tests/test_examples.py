"""The scripts of examples/ run as a user would run them, and print what they are to show."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SHOWN = {
    "numpy_arrays": "relative error of the product: 0.1",
    "torch_compile": "agree: True",
    "jax_arrays": "rotated: error 0.",
    "fir_filter": "ripple",
    "tomography": "closer to the truth than SART at 2 and at 4 levels: True",
}


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_runs(name: str) -> None:
    if name == "jax_arrays" and find_spec("jax") is None:
        pytest.skip("JAX is not installed")
    run = subprocess.run([sys.executable, EXAMPLES / f"{name}.py"], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert SHOWN[name] in run.stdout
