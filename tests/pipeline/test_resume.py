"""A run that is killed with SIGKILL at any point goes on with `resume` and ends with the same bytes."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.pipeline.mini import MINI, TOKENS, digests

import subbyte
from subbyte.errors import OutputError
from subbyte.pipeline import Progress
from subbyte.recipe import Recipe
from subbyte.schemes import Scheme
from subbyte.solvers import Gptq
from subbyte.systems import awq, gptq, rtn, smoothquant
from subbyte.transforms import Smooth

# Runs in a process of its own, which ends itself with SIGKILL when the given step was reached for the given time: after
# a step of the file system (a file was written, synced or renamed) or after a report of progress.
SCRIPT = """
import os, signal, sys
from pathlib import Path
import numpy as np
import subbyte
from subbyte.recipe import Recipe

model, recipe, tokens, out, step, count = sys.argv[1:]
left = int(count)

def reach(name):
    global left
    if name == step:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

def watched(module, name):
    original = getattr(module, name)
    def wrapper(*args, **kwargs):
        result = original(*args, **kwargs)
        reach(name)
        return result
    setattr(module, name, wrapper)

for name in ("fsync", "replace", "rename", "mkdir", "rmdir", "unlink"):
    watched(os, name)
for name in ("replace", "rename", "mkdir", "rmdir", "unlink"):
    watched(Path, name)
recipe, tokens = Recipe.read(recipe), np.load(tokens)
subbyte.quantize(model, recipe, out, calibration=tokens, resume=True, progress=lambda now: reach(now.stage))
"""
POINTS = [("mkdir", 1), ("fsync", 5), ("replace", 4), ("block", 2), ("rest", 1), ("rename", 1), ("done", 1)]


def killed(folder: Path, recipe: Recipe, out: Path, step: str, count: int) -> int:
    """The exit code of a run that kills itself there."""
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    np.save(folder / "tokens.npy", TOKENS)
    arguments = [str(MINI), str(folder / "recipe.yaml"), str(folder / "tokens.npy"), str(out), step, str(count)]
    return subprocess.run([sys.executable, "-c", SCRIPT, *arguments], timeout=300).returncode


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return replace(gptq(bits=3, group_size=64, compensate=0.5), transforms=(Smooth(),))


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    subbyte.quantize(MINI, recipe, out, calibration=TOKENS)
    return out


def test_killed_again_and_again(recipe: Recipe, whole: Path, tmp_path: Path) -> None:
    """One run, killed at every point in turn, each time going on from what the last one left."""
    out = tmp_path / "out"
    kills = 0
    for step, count in POINTS:
        code = killed(tmp_path, recipe, out, step, count)
        kills += code == -signal.SIGKILL
        assert code in (0, -signal.SIGKILL), code
    assert kills >= 5
    subbyte.quantize(MINI, recipe, out, calibration=TOKENS, resume=True)
    assert digests(out) == digests(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "recipe.yaml", "tokens.npy"]


@pytest.mark.parametrize(("step", "count"), [("fsync", 8), ("verify", 1)])
def test_killed_once(recipe: Recipe, whole: Path, tmp_path: Path, step: str, count: int) -> None:
    out = tmp_path / "out"
    assert killed(tmp_path, recipe, out, step, count) == -signal.SIGKILL
    seen: list[Progress] = []
    subbyte.quantize(MINI, recipe, out, calibration=TOKENS, resume=True, progress=seen.append)
    assert digests(out) == digests(whole)
    assert [progress.stage for progress in seen][-1] == "done"


class _StopError(Exception):
    pass


def stopped(recipe: Recipe, out: Path, after: int, **options: object) -> None:
    """A run that ends by an exception of the caller after so many blocks."""

    def stop(progress: Progress) -> None:
        if progress.stage == "block" and progress.done == after:
            raise _StopError

    with pytest.raises(_StopError):
        subbyte.quantize(MINI, recipe, out, calibration=TOKENS, progress=stop, **options)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "recipe",
    [
        rtn(bits=2, group_size=32),
        awq(bits=3, group_size=32, grid=3),
        smoothquant(level="O3", extra_sites=True),
        gptq(bits=2, group_size=32, compensate=0.5),
        replace(gptq(bits=8, group_size=-1, symmetric=True), activations=Scheme.parse("int8/token")),
        replace(gptq(bits=3, group_size=32), solver=Gptq(act_order=True), overrides=(("*.0.*down_proj", "keep"),)),
    ],
    ids=["rtn", "awq", "smoothquant", "gptq-compensate", "gptq-w8a8", "gptq-index"],
)
def test_every_system_resumes_to_the_same_bytes(recipe: Recipe, tmp_path: Path) -> None:
    subbyte.quantize(MINI, recipe, tmp_path / "whole", calibration=TOKENS)
    stopped(recipe, tmp_path / "out", after=2)
    result = subbyte.quantize(MINI, recipe, tmp_path / "out", calibration=TOKENS, resume=True)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    assert len(result.blocks) == 4


def test_only_the_same_run_may_go_on(recipe: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stopped(recipe, out, after=1)
    before = digests(tmp_path)
    with pytest.raises(OutputError, match="unfinished run") as raised:
        subbyte.quantize(MINI, recipe, out, calibration=TOKENS)
    assert "--resume" in str(raised.value)
    for other, options, named in (
        (replace(recipe, name="other"), {"calibration": TOKENS}, "recipe"),
        (recipe, {"calibration": TOKENS[:2]}, "calibration"),
        (recipe, {"calibration": TOKENS, "seed": 1}, "seed"),
        (recipe, {"calibration": TOKENS, "format": "subbyte"}, "format"),
    ):
        with pytest.raises(OutputError, match=named):
            subbyte.quantize(MINI, other, out, resume=True, **options)  # type: ignore[call-overload]
    assert digests(tmp_path) == before, "a refused run changed the unfinished one"


def test_a_finished_run_is_recognised(recipe: Recipe, whole: Path) -> None:
    before = digests(whole)
    result = subbyte.quantize(MINI, recipe, whole, calibration=TOKENS, resume=True)
    assert digests(whole) == before
    assert len(result.blocks) == 4
    with pytest.raises(OutputError, match="not empty"):
        subbyte.quantize(MINI, replace(recipe, name="other"), whole, calibration=TOKENS, resume=True)
