"""What is shipped: a source distribution that builds, and a wheel that works where nobody has the repository.

The build backend is called as pip calls it, in a process of its own inside the unpacked source distribution, so the
wheel proves that nothing was left out. Cargo's folder is the repository's, so that only our two crates are compiled.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BINARY = {".so", ".safetensors", ".npy", ".png"}
#: Kernels that are compiled for the wheel in any case, the quickest of those that have headers.
COMPILED = ("gather.", "quantize_tokens.")
HOOK = "import sys; sys.path.insert(0, 'python'); import build_backend; build_backend.{}(sys.argv[1])"


def call(hook: str, source: Path, out: Path) -> Path:
    """Runs a PEP 517 hook in a source tree and returns the one file that it made."""
    if shutil.which("cargo") is None:
        pytest.skip("needs Rust: cargo is not on the path")
    for module in ("maturin", "nvidia.cuda_nvrtc"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs the build requirements of pyproject.toml: no {module}")
    environment = os.environ | {
        "CARGO_TARGET_DIR": str(ROOT / "target"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # where pip would have put maturin
    }
    out.mkdir()
    run = subprocess.run(
        [sys.executable, "-c", HOOK.format(hook), str(out)],
        cwd=source,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(call("build_sdist", ROOT, folder / "made")) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return unpacked


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of it, where PTX of the checkout lies: what was made of the same files is not made again."""
    folder = tmp_path_factory.mktemp("wheel")
    source = shutil.copytree(sdist, folder / "source")
    ptx = Path("python", "subbyte", "cuda", "ptx")
    (source / ptx).mkdir(exist_ok=True)
    for path in (ROOT / ptx).glob("*.ptx"):
        if not path.name.startswith(COMPILED):
            shutil.copy(path, source / ptx)
    return call("build_wheel", source, folder / "made")


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def inside(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def of_the_package() -> set[str]:
    """What of python/subbyte is source: not what is compiled into it, or cached."""
    files = inside(ROOT / "python" / "subbyte")
    built = (".so", ".pyc", ".ptx")
    return {file for file in files if not file.endswith(built) and not Path(file).name.startswith(".")}


def test_sdist_carries_all_sources_and_nothing_built(sdist: Path) -> None:
    files = inside(sdist)
    assert {f"python/subbyte/{file}" for file in of_the_package()} <= files
    for folder, kinds in (("cuda", (".cu", ".cuh", ".py")), ("rust", (".rs", ".toml"))):
        assert {f"{folder}/{file}" for file in inside(ROOT / folder) if file.endswith(kinds)} <= files
    assert {"Cargo.toml", "Cargo.lock", "LICENSE", "README.md", "pyproject.toml", "python/build_backend.py"} <= files
    assert not [file for file in files if file.endswith((".so", ".ptx", ".cubin", ".pyc", ".whl"))]
    assert not [file for file in files if file.startswith(("target/", "tests/", ".venv"))]


def test_wheel_is_one_for_every_python_from_3_11(wheel: Path, installed: Path) -> None:
    assert re.fullmatch(r"subbyte-[\w.]+-cp311-abi3-(many)?linux\w+\.whl", wheel.name)
    (info,) = installed.glob("*.dist-info")
    assert "Tag: cp311-abi3-" in (info / "WHEEL").read_text()
    assert [file for file in inside(installed) if file.endswith(".so")] == ["subbyte/_rust.abi3.so"]
    metadata = (info / "METADATA").read_text()
    needed = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", metadata, re.MULTILINE)
    assert sorted(needed) == ["numpy", "rich", "safetensors", "typer"]


def test_wheel_carries_the_package_its_data_and_ptx(installed: Path) -> None:
    files = inside(installed / "subbyte")
    assert of_the_package() <= files
    assert {"py.typed", "anatomy/families.toml", "data/pydoc-mini/model.safetensors"} <= files
    for kernel, architecture in (
        ("wna16", "sm_80"),
        ("wna16", "sm_90a"),
        ("block_scaled_pair_sm100a", "sm_100a"),
        ("block_scaled_pair_sm120a", "sm_120a"),
    ):
        text = (installed / "subbyte" / "cuda" / "ptx" / f"{kernel}.{architecture}.ptx").read_text()
        assert f"\n.version 8.7\n.target {architecture}\n" in text
    assert {path.name.split("-")[0] for path in installed.iterdir()} == {"subbyte"}


def test_no_path_of_this_machine_is_shipped(sdist: Path, wheel: Path, installed: Path) -> None:
    for folder in (sdist, installed):
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix not in BINARY:
                text = path.read_text(encoding="utf-8")
                for place in (ROOT, sdist.parent, wheel.parents[1], Path.home()):
                    assert f"{place}/" not in text, f"{path.relative_to(folder)} names {place}"


def test_wheel_works_outside_the_repository(installed: Path, tmp_path: Path) -> None:
    """Imports, runs a kernel, and finds its data and its PTX; nothing comes from the checkout."""
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import subbyte
from importlib.resources import files
from pathlib import Path
from subbyte import anatomy, cuda, kernels
assert Path(subbyte.__file__).is_relative_to(sys.argv[1]), subbyte.__file__
codes = np.arange(16, dtype=np.uint8).reshape(1, 16)
assert (kernels.unpack(kernels.pack(codes, 4), 4, 16) == codes).all()
assert {found.architecture for found in cuda.ptx()} == {"sm_80", "sm_90a", "sm_100a", "sm_120a"}
assert (files("subbyte") / "data" / "pydoc-mini" / "config.json").is_file()
assert not [name for name, module in sys.modules.items()
            if name.startswith("subbyte") and not str(module.__file__).startswith(sys.argv[1])]
"""
    run = subprocess.run(
        [sys.executable, "-P", "-c", code, str(installed)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
