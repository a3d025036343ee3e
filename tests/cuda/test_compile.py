"""cuda/compile.py: PTX and cubin of every kernel for every architecture that the wheel serves."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from tests.emulator import CUDA

WNA16 = {
    f"wna16_w{bits}_{dtype}_{zero}" for bits in range(1, 9) for dtype in ("f16", "bf16") for zero in ("sym", "asym")
}
BLOCKED = ("nvfp4", "mxfp4", "mxfp8_e4m3fn", "mxfp8_e5m2")


def tokens(kernel: str) -> set[str]:
    """What cuda/common/tokens.cuh lists for a kernel."""
    return {f"{kernel}_{format}_{dtype}" for format in ("int8", "e4m3fn") for dtype in ("f32", "f16", "bf16")}


ENTRIES = {
    "csr": {
        f"csr_{x}_{values}_{columns}"
        for x in ("f16", "bf16")
        for values in ("f32", "f16", "bf16")
        for columns in ("u16", "i32")
    },
    "block_scaled": {
        f"block_scaled_{element}_{dtype}_m{tokens}"
        for element in ("e2m1", "e2m3", "e3m2", "e4m3fn", "e5m2", "int8", "int6", "int4")
        for dtype in ("f16", "bf16")
        for tokens in (8, 16)
    },
    "block_scaled_pair": {
        f"block_scaled_pair_{format}_m{rows}" for format in (*BLOCKED, "mxint8") for rows in (16, 64)
    },
    "block_scaled_pair_sm120a": {
        f"block_scaled_pair_sm120a_{format}_m{rows}" for format in BLOCKED for rows in (16, 128)
    },
    "block_scaled_pair_sm100a": {f"block_scaled_pair_sm100a_{format}_m128" for format in BLOCKED},
    "codebook_gemm": {
        f"codebook_gemm_e8p{bits}_{dtype}_m{tokens}"
        for bits in (2, 3, 4)
        for dtype in ("f16", "bf16")
        for tokens in (8, 16)
    },
    "codebook_gemm_vectors": {
        f"codebook_gemm_vectors_v{values}_{dtype}_m{tokens}"
        for values in (2, 4, 8)
        for dtype in ("f16", "bf16")
        for tokens in (8, 32)
    },
    "fp8": {f"fp8_{format}_m{rows}" for format in ("e4m3fn", "e5m2") for rows in (16, 64)},
    "fp8_sm90a": {f"fp8_sm90a_{format}_m{rows}" for format in ("e4m3fn", "e5m2") for rows in (64, 128)},
    "fp8_grouped": {f"fp8_grouped_{format}_m{rows}" for format in ("e4m3fn", "e5m2") for rows in (16, 64)},
    "fp8_grouped_sm90a": {f"fp8_grouped_sm90a_{format}_m{rows}" for format in ("e4m3fn", "e5m2") for rows in (64, 128)},
    "gather": {"gather"},
    "hadamard": {f"hadamard_{outer}{dtype}" for outer in ("", "outer_") for dtype in ("f32", "f16", "bf16")},
    "hadamard_quantize": tokens("hadamard_quantize") | tokens("hadamard_quantize_outer"),
    "int4_fp8_sm90a": {f"int4_fp8_sm90a_{scales}_m{rows}" for scales in ("e4m3fn", "bf16") for rows in (64, 128)},
    "int4_fp8": {f"int4_fp8_{scales}_m{rows}" for scales in ("e4m3fn", "bf16") for rows in (16, 64)},
    "lookup": {f"lookup_w{bits}_{dtype}" for bits in range(1, 9) for dtype in ("f16", "bf16")},
    "lookup_few": {
        f"lookup_few_w{bits}_{dtype}_e{eights}_{tables}_m{tokens}"
        for bits, eights in ((2, 4), (3, 4), (4, 4), (8, 4), (4, 1), (8, 1))
        for dtype in ("f16", "bf16")
        for tables in ("one", "own")
        for tokens in (8, 16)
    },
    "lookup_mma": {
        f"lookup_mma_w{bits}_{dtype}_{tables}"
        for bits in (2, 3, 4, 8)
        for dtype in ("f16", "bf16")
        for tables in ("one", "own")
    },
    "norm_quantize": tokens("norm_quantize"),
    "quantize_tokens": tokens("quantize_tokens"),
    "sum": {"sum_f16", "sum_bf16", "sum_f32"},
    "w4a4": {"w4a4_m16", "w4a4_m128", "w4a4_groups_m16", "w4a4_groups_m64"},
    "w4a8": {"w4a8_m16", "w4a8_m128"},
    "w8a8": {"w8a8_m16", "w8a8_m128", "w8a8_sum"},
    "w8a8_sm90a": {"w8a8_sm90a_m64", "w8a8_sm90a_m128"},
    "wna16": WNA16,
    "wna16_few": {
        f"wna16_few_w{bits}_{dtype}_e{eights}_m{tokens}"
        for bits, eights in ((2, 4), (3, 4), (4, 4), (8, 4), (4, 1), (8, 1))
        for dtype in ("f16", "bf16")
        for tokens in (8, 16)
    },
    "wna16_grouped": {
        f"wna16_grouped_w{bits}_{dtype}_{zero}_m{rows}"
        for bits in (2, 3, 4, 8)
        for dtype in ("f16", "bf16")
        for zero in ("sym", "asym")
        for rows in (16, 64)
    },
    "wna16_mma": {
        f"wna16_mma_w{bits}_{dtype}_{zero}_m{rows}"
        for bits in (2, 3, 4, 8)
        for dtype in ("f16", "bf16")
        for zero in ("sym", "asym", "float")
        for rows in (16, 64)
    },
}
# Registers of a thread: blocks of that many threads that are to share the 65,536 of a multiprocessor.
REGISTERS = {
    "csr": 64,
    "block_scaled": 128,
    "block_scaled_pair": 255,
    "block_scaled_pair_sm100a": 255,
    "block_scaled_pair_sm120a": 255,
    "codebook_gemm": 128,
    "codebook_gemm_vectors": 255,
    "fp8": 255,
    "fp8_sm90a": 255,
    "fp8_grouped": 255,
    "fp8_grouped_sm90a": 255,
    "gather": 32,
    "hadamard": 128,
    "hadamard_quantize": 128,
    "int4_fp8": 255,
    "int4_fp8_sm90a": 255,
    "lookup": 64,
    "lookup_few": 128,
    "lookup_mma": 255,
    "norm_quantize": 64,
    "quantize_tokens": 64,
    "sum": 64,
    "w4a4": 255,
    "w4a8": 255,
    "w8a8": 255,
    "w8a8_sm90a": 255,
    "wna16": 64,
    "wna16_few": 128,
    "wna16_grouped": 255,
    "wna16_mma": 255,
}


def kernels_of(architecture: str) -> set[str]:
    """Those that are built for it: a name may end in the one that a kernel is for; Blackwell's have no others."""
    own = {kernel: kernel.rpartition("_sm")[2] for kernel in ENTRIES if "_sm" in kernel}
    return {
        kernel
        for kernel in ENTRIES
        if (f"sm_{own[kernel]}" == architecture if kernel in own else architecture in ("sm_80", "sm_90a"))
    }


def test_ptx_names_its_version_target_and_entries(ptx: Path, compiler: ModuleType) -> None:
    files = {path.name for path in ptx.iterdir()}
    assert files == {f"{kernel}.{target}.ptx" for target in compiler.ARCHITECTURES for kernel in kernels_of(target)}
    for architecture in compiler.ARCHITECTURES:
        for kernel in kernels_of(architecture):
            text = (ptx / f"{kernel}.{architecture}.ptx").read_text()
            assert re.search(r"^\.version 8\.7$", text, re.MULTILINE)
            assert re.search(rf"^\.target {architecture}$", text, re.MULTILINE)
            assert set(re.findall(r"^\.visible \.entry (\w+)\(", text, re.MULTILINE)) == ENTRIES[kernel]
            assert str(CUDA.parent) not in text


def test_assembles_without_spills(ptx: Path, compiler: ModuleType) -> None:
    """By the notes of the assembler, which has run on each file that is there: else there would be none."""
    for path in ptx.iterdir():
        kernel = path.name.split(".")[0]
        resources = compiler.noted(path.read_text())
        assert {row.entry for row in resources} == ENTRIES[kernel]
        for row in resources:
            assert row.spill_stores == row.spill_loads == 0, row
            assert 0 < row.registers <= REGISTERS[kernel], row
            assert row.shared <= 48 * 1024, row


def test_builds_again_only_what_changed(ptx: Path, compiler: ModuleType, tmp_path: Path) -> None:
    kept = sorted(ptx.glob("*.sm_80.ptx"))
    for path in kept:
        shutil.copy(path, tmp_path)
    changed = tmp_path / "w8a8.sm_80.ptx"
    whole = changed.read_bytes()
    changed.write_bytes(b"// of other sources\n" + whole)
    (tmp_path / "gone.sm_80.ptx").write_text("of a kernel that is no more")
    outputs = compiler.build(tmp_path, ["sm_80"])
    assert [output.path for output in outputs if output.fresh] == [changed]
    assert changed.read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in kept]


def test_shows_the_log_of_what_does_not_compile(compiler: ModuleType, tmp_path: Path) -> None:
    broken = tmp_path / "broken.cu"
    broken.write_text('extern "C" __global__ void broken(int* x) { *x = missing; }\n')
    with pytest.raises(compiler.CompileError, match=r'broken\.cu.*sm_80[^$]*identifier "missing" is undefined'):
        compiler.compile_source(broken, "sm_80")


def test_inline_ptx_is_assembled(compiler: ModuleType, tmp_path: Path) -> None:
    """Making PTX alone, for a virtual architecture, would let it pass."""
    wrong = tmp_path / "wrong.cu"
    wrong.write_text('extern "C" __global__ void wrong(int* x) { asm("no.such.instruction %0;" : "+r"(*x)); }\n')
    with pytest.raises(compiler.CompileError, match=r"no\.such|instruction"):
        compiler.compile_source(wrong, "sm_80")


def test_notes_what_the_assembler_says(compiler: ModuleType, tmp_path: Path) -> None:
    """Spills, shared memory and registers of a kernel that needs more than it may have."""
    greedy = tmp_path / "greedy.cu"
    greedy.write_text("""extern "C" __global__ void __launch_bounds__(1024, 2) greedy(float* y) {
    __shared__ float kept[100];
    float x[64];
    kept[threadIdx.x % 100] = y[threadIdx.x];
    __syncthreads();
    for (int i = 0; i < 64; i++) x[i] = y[i * 1024 + threadIdx.x] + kept[i];
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < 64; i++) x[i] = x[i] * x[(i * 7 + 13) % 64] + kept[i + round];
    for (int i = 0; i < 64; i++) y[i * 1024 + threadIdx.x] = x[i];
}
""")
    made = compiler.compile_source(greedy, "sm_80")
    assert made.cubin.startswith(b"\x7fELF")
    (row,) = compiler.resources(made.log)
    assert (row.entry, row.registers, row.shared) == ("greedy", 32, 400)
    assert row.spill_stores > 0
    assert row.spill_loads > 0


def test_a_wgmma_that_the_assembler_waits_for_is_an_error(compiler: ModuleType, tmp_path: Path) -> None:
    waiting = tmp_path / "waiting.cu"
    waiting.write_text("""#include "common/wgmma.cuh"
extern "C" __global__ void waiting(float* y, unsigned long long a, unsigned n) {
    float sum[64] = {};
    for (unsigned i = 0; i < n; i++) {
        wgmma_fence();
        wgmma(sum, a, a, true, E4m3{});
        wgmma_commit();
        y[i] = sum[0];
        wgmma_wait<0>(sum);
    }
    y[n] = sum[1];
}
""")
    with pytest.raises(compiler.CompileError, match="serialized"):
        compiler.compile_source(waiting, "sm_90a")


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


def test_command_line(
    compiler: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "sources", lambda: [CUDA / "quantize" / "quantize_tokens.cu"])
    assert compiler.main(["--arch", "sm_80", "--cubin", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "registers" in printed
    assert re.search(r"^ +quantize_tokens_int8_f32 +\d+ +0 +0 +\d+$", printed, re.MULTILINE)
    assert (tmp_path / "quantize_tokens.sm_80.cubin").read_bytes().startswith(b"\x7fELF")
    assert compiler.main(["--arch", "sm_80", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'quantize_tokens.sm_80.ptx'} (up to date)\n"
    assert compiler.main(["--arch", "sm_1", str(tmp_path)]) == 1
    assert "gpu-architecture" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        compiler.main(["--cubin"])
