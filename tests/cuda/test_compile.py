"""cuda/compile.py: PTX and cubin of every kernel for every architecture that the wheel serves."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.emulator import CUDA

WNA16 = {
    f"wna16_w{bits}_{dtype}_{zero}" for bits in range(1, 9) for dtype in ("f16", "bf16") for zero in ("sym", "asym")
}


def test_ptx_names_its_version_target_and_entries(ptx: Path, compiler: ModuleType) -> None:
    files = sorted(path.name for path in ptx.iterdir())
    assert files == ["wna16.sm_80.ptx", "wna16.sm_90a.ptx"]
    for architecture in compiler.ARCHITECTURES:
        text = (ptx / f"wna16.{architecture}.ptx").read_text()
        assert re.search(r"^\.version 8\.7$", text, re.MULTILINE)
        assert re.search(rf"^\.target {architecture}$", text, re.MULTILINE)
        assert set(re.findall(r"^\.visible \.entry (\w+)\(", text, re.MULTILINE)) == WNA16
        assert str(CUDA.parent) not in text


def test_assembles_without_spills(compiler: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The assembler alone reads inline PTX. 64 registers let four blocks share a multiprocessor."""
    outputs = compiler.build(tmp_path, cubin=True)
    assert sorted(output.path.name for output in outputs) == ["wna16.sm_80.cubin", "wna16.sm_90a.cubin"]
    for output in outputs:
        assert output.path.read_bytes().startswith(b"\x7fELF")
        assert {row.entry for row in output.resources} == WNA16
        for row in output.resources:
            assert row.spill_stores == row.spill_loads == 0, row
            assert 0 < row.registers <= 64, row
            assert 0 < row.shared <= 48 * 1024, row


def test_builds_again_only_what_changed(compiler: ModuleType, tmp_path: Path) -> None:
    first = compiler.build(tmp_path, ["sm_80"])
    again = compiler.build(tmp_path, ["sm_80"])
    assert [output.fresh for output in (*first, *again)] == [True, False]
    path = first[0].path
    whole = path.read_bytes()
    path.write_bytes(b"// of other sources\n" + whole)
    (tmp_path / "gone.sm_80.ptx").write_text("of a kernel that is no more")
    assert [output.fresh for output in compiler.build(tmp_path, ["sm_80"])] == [True]
    assert path.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["wna16.sm_80.ptx"]


def test_shows_the_log_of_what_does_not_compile(compiler: ModuleType, tmp_path: Path) -> None:
    broken = tmp_path / "broken.cu"
    broken.write_text('extern "C" __global__ void broken(int* x) { *x = missing; }\n')
    with pytest.raises(compiler.CompileError, match=r'broken\.cu.*sm_80[^$]*identifier "missing" is undefined'):
        compiler.compile_source(broken, "sm_80")


def test_only_the_assembler_sees_inline_ptx(compiler: ModuleType, tmp_path: Path) -> None:
    """Why the suite makes cubins at all."""
    wrong = tmp_path / "wrong.cu"
    wrong.write_text('extern "C" __global__ void wrong(int* x) { asm("no.such.instruction %0;" : "+r"(*x)); }\n')
    data, _ = compiler.compile_source(wrong, "sm_80")
    assert b"no.such.instruction" in data
    with pytest.raises(compiler.CompileError, match=r"no\.such|instruction"):
        compiler.compile_source(wrong, "sm_80", cubin=True)


def test_a_warning_is_an_error(compiler: ModuleType, tmp_path: Path) -> None:
    careless = tmp_path / "careless.cu"
    careless.write_text('extern "C" __global__ void careless() { int unused = 1; }\n')
    with pytest.raises(compiler.CompileError, match="warning"):
        compiler.compile_source(careless, "sm_80")


def test_two_kernels_of_one_name(compiler: ModuleType, tmp_path: Path) -> None:
    for room in ("gemm", "pack"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "same.cu").touch()
    with pytest.raises(compiler.CompileError, match="same"):
        compiler.sources(tmp_path)


def test_command_line(compiler: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compiler.main(["--arch", "sm_80", "--cubin", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "registers" in printed
    assert "wna16_w4_f16_sym" in printed
    assert compiler.main(["--arch", "sm_1", str(tmp_path)]) == 1
    assert "gpu-architecture" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        compiler.main(["--cubin"])
