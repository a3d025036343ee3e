"""cuda/gemm/codebook_gemm_vectors.cu on the CPU, beside NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from subbyte.cuda.gemm.codebook_gemm_vectors import SUMS, Problem, check
from subbyte.errors import RangeError, ShapeError
from tests.cuda.test_emulated import DTYPES, POISON, add
from tests.cuda.test_loader import on_gpu
from tests.emulator import Emulated
from tests.oracles.case import Case
from tests.oracles.codebook_gemm import decoded, table

# M, N, K; v, codewords of both stages, groups: strips that end short, one value a vector and more than a tile has,
# counts that are no powers of two, codes of no bits and across words, groups that begin within a wide load, many tiles.
KINDS = [
    (8, (4096, 16), 1),
    (2, (256, 0), 1),
    (6, (5, 3), 2),
    (12, (300, 0), 4),
    (1, (1, 0), 1),
    (3, (9, 700), 3),
    (16, (2, 32768), 1),
]
CASES = [(shape, kind) for kind in KINDS for shape in ((1, 37, 24), (8, 70, 60), (35, 21, 36))]
CASES += [((2, 66, 1152), KINDS[0]), ((3, 20, 1116), KINDS[5])]
LARGE = 227 * 1024


def given(shape: tuple[int, int, int], kind: tuple[int, tuple[int, int], int], dtype: str) -> Case:
    """A case of the oracle, with x and codewords of that dtype."""
    one, to = table(*shape, *kind), DTYPES[dtype]
    books = {name: each.astype(to) if isinstance(each, np.ndarray) else each for name, each in one.kwargs.items()}
    return replace(one, args=(one.args[0].astype(to), one.args[1]), kwargs=books)


def problem_of(one: Case) -> Problem:
    (x, words), books = one.args, [one.kwargs[name] for name in ("codebook", "residual")]
    views = [
        None if book is None else on_gpu(name, book.shape, "f16", 2) for name, book in zip("cr", books, strict=True)
    ]
    return check(on_gpu("x", x.shape, "f16", 2), on_gpu("words", words.shape, "i32", 4), *views, one.kwargs["outputs"])


def run(
    emulated: Emulated,
    one: Case,
    room: int = LARGE,
    summed: Emulated | None = None,
    depth: int = 0,
    blocks: int = 3,
    **options: bool | int,
) -> np.ndarray:
    """Launched as for a device whose blocks have `room` bytes of shared memory, by a few blocks for all tiles."""
    (x, words), problem = one.args, problem_of(one)
    name = {dtype: name for name, dtype in DTYPES.items()}[x.dtype]
    m, n, k = problem.m, problem.n, problem.k
    y, depth = np.full((m, n), POISON, np.uint16), depth or k
    slices = -(-k // depth)
    parts = np.zeros((slices, m, n), np.float32) if slices > 1 else None
    shared, inside = problem.memory(room)
    numbers = [number for book, within in zip(problem.books, inside, strict=True) for number in (*book, int(within))]
    books = [
        None if each is None else each.view(np.uint16) for each in (one.kwargs["codebook"], one.kwargs["residual"])
    ]
    args = [x.view(np.uint16), words.view(np.uint32), *books, y, parts, m, n, k, problem.group, problem.vector]
    entry, out = f"codebook_gemm_vectors_v{problem.values}_{name}_m{problem.tokens}", [y] if parts is None else [parts]
    grid, shared = (min(problem.tiles, blocks), slices, 1), shared - SUMS * problem.tokens
    emulated.launch(entry, grid, (256, 1, 1), [*args, *numbers, depth], out=out, shared=shared, **options)
    if summed is not None and parts is not None:
        add(summed, parts, y, name)
    assert not (y == POISON).any()
    return y.view(x.dtype)


def compare(got: np.ndarray, one: Case) -> None:
    """Within roundings of f32 on the sum of magnitudes of both stages, and one of the dtype."""
    (x, words), n = one.args, one.kwargs["outputs"]
    stages = [decoded(words, x.shape[1], 0, one.kwargs["codebook"], None)] if one.kwargs["residual"] is None else []
    if not stages:
        nothing = np.zeros_like(one.kwargs["codebook"]), np.zeros_like(one.kwargs["residual"])
        stages.append(decoded(words, x.shape[1], 0, one.kwargs["codebook"], nothing[1]))
        stages.append(decoded(words, x.shape[1], 0, nothing[0], one.kwargs["residual"]))
    wide = x.astype(np.float64)
    y, size = (wide @ sum(stages)[:n].T, abs(wide) @ sum(map(abs, stages))[:n].T)
    step = 2.0**-11 if x.dtype == np.float16 else 2.0**-8
    exact = (2 * x.shape[1] + 3) * 2.0**-23 * size
    error, bound = abs(got.astype(np.float64) - y), exact + (abs(y) + exact) * step + 2.0**-25
    assert (error <= bound).all(), (error / bound).max()


@pytest.fixture(scope="module")
def emulated(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate("codebook_gemm_vectors")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "kind"), CASES, ids=str)
def test_agrees_with_numpy(
    emulated: Emulated, shape: tuple[int, int, int], kind: tuple[int, tuple[int, int], int], dtype: str
) -> None:
    """With all codewords in shared memory, and with as many as a small one holds: the same bits."""
    one = given(shape, kind, dtype)
    got = run(emulated, one, reverse=shape[0] % 2 == 0)
    compare(got, one)
    for room in (0, 48 * 1024):
        assert np.array_equal(got, run(emulated, one, room), equal_nan=True)


@pytest.mark.parametrize("m", [2, 9])
def test_slices_of_k(emulated: Emulated, emulate: Callable[[str], Emulated], m: int) -> None:
    """Slices begin and end within a group, and the last is a short one."""
    one = given((m, 21, 1116), (6, (60, 9), 2), "f16")
    compare(run(emulated, one, summed=emulate("sum"), depth=512), one)


def test_rows_do_not_touch(emulated: Emulated) -> None:
    one = given((35, 21, 72), KINDS[2], "f16")
    clean = run(emulated, one)
    one.args[0][33, 39] = np.nan
    got = run(emulated, one)
    assert np.isnan(got[33]).all()
    assert np.array_equal(np.delete(got, 33, axis=0), np.delete(clean, 33, axis=0))


@pytest.mark.parametrize("room", [LARGE, 0])
def test_codes_without_codeword(emulated: Emulated, room: int) -> None:
    """Nothing strays, and what they stand for is no number; their neighbours stay."""
    one = given((3, 24, 40), (8, (9, 0), 1), "f16")
    clean = run(emulated, one, room)
    one.args[1][1, 2] = -1  # codes of 15
    got = run(emulated, one, room)
    assert np.isnan(got[:, 8:16]).all()
    assert np.array_equal(np.delete(got, range(8, 16), axis=1), np.delete(clean, range(8, 16), axis=1))


def test_columns_of_the_next_group_do_not_count(emulated: Emulated) -> None:
    """Infinite x is infinite where its own codewords are positive: it has met no zeros of those before."""
    one = given((3, 16, 24), (8, (16, 0), 2), "f16")
    one.kwargs["codebook"][1] = 1
    one.args[0][1, 12:] = np.inf
    assert (run(emulated, one)[1] == np.inf).all()


def test_every_instance_is_covered(emulated: Emulated) -> None:
    seen = {(problem_of(given(*case, "f16")).values, problem_of(given(*case, "f16")).tokens) for case in CASES}
    assert len(emulated.entries) == len(seen) * len(DTYPES)


def test_what_is_refused() -> None:
    x, words = on_gpu("x", (3, 64), "f16", 2), on_gpu("words", (5, 24), "i32", 4)
    book, rest = on_gpu("codebook", (2, 256, 8), "f16", 2), on_gpu("residual", (2, 16, 8), "f16", 2)
    problem = check(x, words, book, rest, 37)
    assert (problem.m, problem.n, problem.k, problem.group, problem.books) == (3, 37, 64, 32, ((256, 8), (16, 4)))
    assert check(x, words, book, rest, None).n == 40
    for wrong in (
        (book, rest, 41),
        (book, rest, -1),
        (book, None, None),
        (book, on_gpu("residual", (2, 16, 4), "f16", 2), None),
        (on_gpu("codebook", (3, 256, 8), "f16", 2), None, None),
        (on_gpu("codebook", (2, 0, 8), "f16", 2), rest, None),
        (on_gpu("codebook", (2, 8), "f16", 2), rest, None),
    ):
        with pytest.raises(ShapeError):
            check(x, words, *wrong)
    with pytest.raises(RangeError, match="given 33 bits"):
        check(x, words, on_gpu("codebook", (1, 2**17, 8), "f16", 2), on_gpu("residual", (1, 2**16, 8), "f16", 2), None)


def test_what_lies_in_shared_memory() -> None:
    problem = Problem(1, 4096, 4096, 4096, 8, ((4096, 12), (65536, 16)))
    assert problem.memory(LARGE)[1] == [True, False]
    assert problem.memory(48 * 1024)[1] == [False, False]
