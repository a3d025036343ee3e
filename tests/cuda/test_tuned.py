"""The table of measured choices: a made-up one is followed, and whatever is wrong in it passed over."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from subbyte.cuda import driver
from subbyte.cuda.gemm import tuned
from subbyte.cuda.gemm.split import split
from subbyte.cuda.gemm.tuned import KERNELS, OWN, choice_of, choose, forced, shape_class, tiles

CARD, SIZES = "A made-up card", (9, 4000, 4096)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Puts a text into the place of the table, on a card of that name."""

    def write(text: str) -> None:
        (tmp_path / "tuned.json").write_text(text)
        tuned._table.cache_clear()

    monkeypatch.setattr(tuned, "TABLE", tmp_path / "tuned.json")
    monkeypatch.setattr(driver, "name", lambda device: CARD)
    monkeypatch.setattr(driver, "capability", lambda device: (8, 0))
    tuned._table.cache_clear()
    yield write
    tuned._table.cache_clear()


def of(choice: Any, kernel: str = "w8a8", card: str = CARD, sizes: str = "16x4096x4096") -> str:
    return json.dumps({card: {kernel: {sizes: choice}}})


def test_follows_the_table(written: Callable[[str], None]) -> None:
    written(of([128, 4]))
    assert choose("w8a8", 0, SIZES) == (128, 4)
    assert choose("w8a8", 0, (16, 4096, 2049)) == (128, 4)  # of the same class
    assert choose("w8a8", 0, (17, 4096, 4096)) == (128, 0)
    assert choose("w8a8", 0, (8, 4096, 4096)) == (16, 0)
    assert choose("w4a8", 0, SIZES) == (16, 0)


@pytest.mark.parametrize(
    "text",
    [
        of([64, 4]),  # no tile of this kernel
        of([16, 17]),  # slices shorter than any that help
        of([16, -1]),
        of([True, 1]),
        of([16.0, 4]),
        of([16]),
        of("16"),
        of(None),
        of([128, 4], kernel="no_such"),
        of([128, 4], card="Another card"),
        json.dumps({CARD: [1]}),
        "[]",
        "1",
        "{",
        "",
    ],
)
def test_what_is_no_choice_falls_back(written: Callable[[str], None], text: str) -> None:
    written(text)
    assert choose("w8a8", 0, SIZES) == (16, 0)


def test_no_table_asks_for_no_name(written: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "name", lambda device: pytest.fail("asked"))
    assert choose("fp8", 0, (17, 8, 8)) == (64, 0)  # no file at all
    written("{}")
    assert choose("fp8", 0, (16, 8, 8)) == (16, 0)


def test_a_measurement_forces_its_choice(written: Callable[[str], None]) -> None:
    written(of([128, 4]))
    with forced((16, 2)):
        assert choose("w8a8", 0, SIZES) == (16, 2)
        assert choose("fp8", 0, SIZES) == (16, 2)
    assert choose("w8a8", 0, SIZES) == (128, 4)


def test_hopper_has_tiles_of_its_own(written: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(set(kernels) <= set(KERNELS) for kernels in OWN.values())
    for capability, rows in (((8, 0), [16, 64, 64, 64]), ((9, 0), [16, 64, 64, 128]), ((12, 0), [16, 64, 64, 64])):
        monkeypatch.setattr(driver, "capability", lambda device, capability=capability: capability)
        assert [choose("fp8", 0, (m, 8, 8))[0] for m in (16, 17, 64, 65)] == rows
        written(of([128, 2], "fp8", sizes="512x4096x4096"))
        assert choose("fp8", 0, (300, 4096, 4096)) == ((128, 2) if capability == (9, 0) else (64, 0))
        written("{}")


def test_blackwell_has_tiles_of_its_own(written: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    for capability, rows in (((12, 0), [16, 128, 128]), ((10, 0), [16, 128, 128]), ((12, 1), [16, 64, 64])):
        monkeypatch.setattr(driver, "capability", lambda device, capability=capability: capability)
        assert [choose("block_scaled_pair", 0, (m, 8, 8))[0] for m in (16, 17, 65)] == rows


def test_slices_of_a_choice() -> None:
    assert split(32, 4096, 132, 128, slices=4) == (4, 1024)
    assert split(32, 4096, 132, 128, slices=1) == (1, 4096)
    assert split(32, 300, 132, 128, slices=2) == (2, 256)
    assert split(32, 128, 132, 128, slices=3) == (1, 128)


def test_the_table_of_the_package_is_well() -> None:
    """Every choice in it is one that its kernel has."""
    for kernels in json.loads(tuned.TABLE.read_text()).values():
        for kernel, classes in kernels.items():
            for name, choice in classes.items():
                sizes = [int(each) for each in name.split("x")]
                assert shape_class(sizes) == name
                rows = {each for capability in ((8, 0), *OWN) for each in tiles(kernel, capability)}
                assert choice_of(sorted(rows), choice, sizes[2]) == tuple(choice)
