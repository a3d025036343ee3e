"""What every kernel owes its callers, whatever it computes: frameworks, memory, refusals, the interpreter's lock."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import pytest

from subbyte import _rust, kernels
from subbyte.errors import DeviceError, DtypeError, ShapeError, StrideError, SubbyteError
from subbyte.kernels._array import ON_CUDA
from tests.calls import Call, calls

CALLS = calls()
IN_PLACE = "accumulate_gram"
ARGUMENTS = [(kernel, name) for kernel, call in CALLS.items() for name in call.arrays]
every_kernel = pytest.mark.parametrize("kernel", CALLS)
every_argument = pytest.mark.parametrize(("kernel", "name"), ARGUMENTS, ids=[f"{k}({n})" for k, n in ARGUMENTS])


def results(kernel: str, arrays: dict[str, Any], options: dict[str, Any]) -> list[Any]:
    """What a kernel returns, or leaves in its argument, as a list."""
    returned = getattr(kernels, kernel)(**arrays, **options)
    if kernel == IN_PLACE:
        assert returned is None
        return [arrays["gram"]]
    return list(returned) if isinstance(returned, tuple) else [returned]


def run(kernel: str, change: Callable[[str, np.ndarray], Any] = lambda _, array: array) -> list[Any]:
    """The kernel on its small call, each array changed first."""
    call = CALLS[kernel]
    arrays = {name: change(name, array.copy()) for name, array in call.arrays.items()}
    return results(kernel, arrays, dict(call.options))


def only(name: str, change: Callable[[np.ndarray], Any]) -> Callable[[str, np.ndarray], Any]:
    """Changes one argument."""
    return lambda given, array: change(array) if given == name else array


def same_bits(got: list[Any], expected: list[np.ndarray]) -> None:
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        a = np.asarray(a)
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes()


class Foreign:
    """Somebody else's array: DLPack and nothing more, in the version before flags."""

    def __init__(self, array: np.ndarray, device: tuple[int, int] = (1, 0)) -> None:
        self.array, self.device = array, device

    def __dlpack__(self, stream: object = None) -> Any:
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


def test_the_calls_are_those_of_all_kernels() -> None:
    assert sorted(CALLS) == kernels.__all__


@every_kernel
def test_numpy_gets_numpy_that_it_may_write(kernel: str) -> None:
    for result in run(kernel):
        assert type(result) is np.ndarray
        assert result.flags.writeable
        assert result.flags.c_contiguous


@every_kernel
def test_jax_gets_jax(kernel: str) -> None:
    jnp = pytest.importorskip("jax.numpy")
    if kernel == IN_PLACE:
        with pytest.raises(StrideError, match="immutable"):
            run(kernel, lambda _, array: jnp.asarray(array))
        return
    got = run(kernel, lambda _, array: jnp.asarray(array))
    assert all(isinstance(result, jnp.ndarray) for result in got)
    same_bits(got, run(kernel))


@every_kernel
def test_torch_gets_torch(kernel: str) -> None:
    torch = pytest.importorskip("torch")
    got = run(kernel, lambda _, array: torch.from_numpy(array))
    assert all(isinstance(result, torch.Tensor) for result in got)
    same_bits(got, run(kernel))


@every_kernel
def test_anybody_else_gets_numpy(kernel: str) -> None:
    kept = {}

    def foreign(name: str, array: np.ndarray) -> Foreign:
        kept[name] = array
        return Foreign(array)

    got = run(kernel, foreign)
    same_bits([kept["gram"]] if kernel == IN_PLACE else got, run(kernel))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bit_activations_come_back_in_their_dtype(dtype: str) -> None:
    torch, jnp = pytest.importorskip("torch"), pytest.importorskip("jax.numpy")
    call = CALLS["wna16"]
    words, zero = call.arrays["words"], call.arrays["zero"]
    x, scale = (torch.from_numpy(call.arrays[name]).to(getattr(torch, dtype)) for name in ("x", "scale"))
    wide = kernels.wna16(x.float(), torch.from_numpy(words), scale.float(), torch.from_numpy(zero), **call.options)
    got = kernels.wna16(x, torch.from_numpy(words), scale, torch.from_numpy(zero), **call.options)
    assert got.dtype == x.dtype
    assert torch.equal(got, wide.to(x.dtype))
    parts = (jnp.asarray(x.float().numpy(), dtype), words, jnp.asarray(scale.float().numpy(), dtype), zero)
    via_jax = kernels.wna16(*map(jnp.asarray, parts), **call.options)
    assert str(via_jax.dtype) == dtype
    assert np.array_equal(np.asarray(via_jax, np.float32), wide.to(x.dtype).float().numpy())


def test_numpy_has_float16_but_no_bfloat16() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    [half] = run("wna16", only("x", lambda x: x.astype(np.float16)))
    assert half.dtype == np.float16
    with pytest.raises(DtypeError, match=r"x: .*NumPy has no bf16.*torch or JAX"):
        run("wna16", only("x", lambda x: x.astype(ml_dtypes.bfloat16)))


def test_too_large_for_float16_is_infinity() -> None:
    words = kernels.pack(np.full((2, 32), 15, np.uint8), bits=4)
    x = np.full((1, 32), 60000, np.float16)
    got = kernels.wna16(x, words, np.ones((2, 1), np.float16), np.array([[0], [16]], np.uint8) * 1, bits=4)
    assert np.isposinf(got[0, 0])
    assert np.isneginf(got[0, 1])


@every_kernel
def test_read_only_arrays_may_be_read(kernel: str) -> None:
    def frozen(name: str, array: np.ndarray) -> np.ndarray:
        array.flags.writeable = name == "gram"
        return array

    same_bits(run(kernel, frozen), run(kernel))


def test_what_is_written_must_be_writable_and_apart() -> None:
    def frozen(array: np.ndarray) -> np.ndarray:
        array.flags.writeable = False
        return array

    with pytest.raises(StrideError, match="gram: given a read-only array"):
        run(IN_PLACE, only("gram", frozen))
    memory = np.zeros((100, 64), np.float32)
    with pytest.raises(StrideError, match="x: given memory shared with gram"):
        kernels.accumulate_gram(memory[:64], memory[63:])
    kernels.accumulate_gram(memory[:64], memory[64:])


@pytest.mark.parametrize("kernel", [kernel for kernel, call in CALLS.items() if call.empty])
def test_nothing_to_do_is_no_error(kernel: str) -> None:
    call = CALLS[kernel]
    got = results(kernel, call.without_rows(), dict(call.options))
    assert all(result.size == 0 or not result.any() for result in got)
    assert [result.dtype for result in got] == [result.dtype for result in run(kernel)]


@every_argument
def test_strided_arrays_are_refused_by_name(kernel: str, name: str) -> None:
    for stride in (2, -1):
        with pytest.raises(StrideError) as refusal:
            run(kernel, only(name, lambda array, stride=stride: np.repeat(array, abs(stride), axis=-1)[..., ::stride]))
        assert refusal.value.args[0] == name


@every_kernel
def test_strides_of_axes_of_length_one_say_nothing(kernel: str) -> None:
    call = CALLS[kernel]
    if kernel in ("pack", "quantize_tokens", "hadamard", "unpack"):
        name, array = next(iter(call.arrays.items()))
        odd = np.repeat(array, 3, axis=0)[::3][:1]
        assert odd.strides[0] == 3 * array.strides[0]
        plain = getattr(kernels, kernel)(**{name: array[:1].copy()}, **call.options)
        got = getattr(kernels, kernel)(**{name: odd}, **call.options)
        same_bits(list(got) if isinstance(got, tuple) else [got], list(plain) if isinstance(plain, tuple) else [plain])


@every_argument
def test_misaligned_arrays_are_refused_by_name(kernel: str, name: str) -> None:
    def shifted(array: np.ndarray) -> np.ndarray:
        memory = np.zeros(array.nbytes + 1, np.uint8)
        memory[1:] = np.frombuffer(array.tobytes(), np.uint8)
        return memory[1:].view(array.dtype).reshape(array.shape)

    size = CALLS[kernel].arrays[name].itemsize
    if size == 1:
        same_bits(run(kernel, only(name, shifted)), run(kernel))
        return
    with pytest.raises(StrideError, match=f"{name}: given an address 1 past a multiple of {size}"):
        run(kernel, only(name, shifted))


@every_argument
@pytest.mark.parametrize("dtype", [np.float64, np.int16, np.bool_, np.complex64])
def test_other_dtypes_are_refused_by_name(kernel: str, name: str, dtype: type) -> None:
    with pytest.raises(DtypeError) as refusal:
        run(kernel, only(name, lambda array: array.astype(dtype)))
    assert refusal.value.args[0] == name


@every_argument
@pytest.mark.parametrize("convert", [lambda array: array.tolist(), lambda array: array.flat[0], lambda _: "array"])
def test_what_is_no_array_is_refused_by_name(kernel: str, name: str, convert: Callable[[Any], Any]) -> None:
    with pytest.raises(DtypeError) as refusal:
        run(kernel, only(name, convert))
    assert refusal.value.args[0] == name
    assert "DLPack" in str(refusal.value)


@every_argument
def test_other_byte_orders_are_refused_by_name(kernel: str, name: str) -> None:
    if CALLS[kernel].arrays[name].itemsize > 1:
        with pytest.raises(DtypeError, match=f"{name}: "):
            run(kernel, only(name, lambda array: array.astype(array.dtype.newbyteorder(">"))))


ANY_WIDTH = {
    ("fp8_grouped", "rows"),
    ("wna16_grouped", "rows"),
    ("product_decode", "codebooks"),
    ("quantize_table", "bounds"),
    ("dequantize_table", "table"),
    ("min_max", "levels"),
}


@every_argument
def test_wrong_shapes_are_refused(kernel: str, name: str) -> None:
    call = CALLS[kernel]
    first = name == next(iter(call.arrays))
    changes: list[Callable[[np.ndarray], np.ndarray]] = []
    if not (first and call.any_axes):
        changes.append(lambda array: array[None])
    # Codebooks of a product may be of any width, that of the result, and tables have as many values as they like.
    if not first and (kernel, name) not in ANY_WIDTH:
        changes.append(lambda array: np.concatenate([array, array], axis=-1))
        changes.append(lambda array: array[..., :0].copy())
    for change in changes:
        with pytest.raises(ShapeError):
            run(kernel, only(name, change))
    if name == "x" and kernel in ("hadamard", "wna16"):
        with pytest.raises(ShapeError, match="x: given shape"):
            run(kernel, only(name, lambda array: np.array(array[0, 0])))


@pytest.mark.parametrize("kernel", [kernel for kernel, call in CALLS.items() if len(call.arrays) > 1])
def test_frameworks_do_not_mix(kernel: str) -> None:
    torch, jnp = pytest.importorskip("torch"), pytest.importorskip("jax.numpy")
    last = list(CALLS[kernel].arrays)[-1]
    for convert in (torch.from_numpy, jnp.asarray, Foreign):
        with pytest.raises(DeviceError) as refusal:
            run(kernel, only(last, convert))
        assert refusal.value.args[3]
    with pytest.raises(DeviceError):
        run(kernel, lambda name, array: jnp.asarray(array) if name == last else torch.from_numpy(array))


@every_kernel
def test_devices_without_the_kernel_are_refused_by_name(kernel: str) -> None:
    for device in ((8, 0), (10, 1)):
        with pytest.raises(DeviceError, match=kernel):
            run(kernel, lambda _, array, device=device: Foreign(array, device))
    if kernel not in ON_CUDA:
        with pytest.raises(DeviceError, match=kernel):
            run(kernel, lambda _, array: Foreign(array, (2, 0)))


@pytest.mark.parametrize("device", [(2, 1), (13, 0)], ids=["device", "managed"])
def test_cuda_arrays_go_to_the_cuda_kernel(device: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    import subbyte.cuda

    monkeypatch.setattr(subbyte.cuda, "wna16", lambda **given: given)
    arrays = {name: Foreign(array, device) for name, array in CALLS["wna16"].arrays.items()} | {"zero": None}
    assert kernels.wna16(**arrays, **CALLS["wna16"].options) == arrays | CALLS["wna16"].options
    with pytest.raises(DeviceError, match="words: given DLPack device 1:0"):
        kernels.wna16(**{**arrays, "words": Foreign(CALLS["wna16"].arrays["words"])}, bits=4)


def test_the_binding_itself_checks_the_device_before_the_export() -> None:
    class Never(Foreign):
        def __dlpack__(self, stream: object = None) -> Any:
            raise AssertionError("exported")

    with pytest.raises(DeviceError, match="host memory"):
        _rust.pack(Never(np.zeros((1, 8), np.uint8), (2, 0)), 4)


@pytest.mark.parametrize("answer", [None, 7, "capsule"])
def test_exports_that_are_none_are_refused(answer: object) -> None:
    class Broken(Foreign):
        def __dlpack__(self, stream: object = None) -> Any:
            return answer

    with pytest.raises(DtypeError, match="codes"):
        kernels.pack(Broken(np.zeros((1, 8), np.uint8)), bits=4)


def test_an_exporter_that_fails_is_the_cause() -> None:
    class Failing(Foreign):
        def __dlpack__(self, stream: object = None) -> Any:
            raise BufferError("not today")

    with pytest.raises(DtypeError, match="not today") as refusal:
        kernels.pack(Failing(np.zeros((1, 8), np.uint8)), bits=4)
    assert isinstance(refusal.value.__cause__, BufferError)


@pytest.mark.parametrize("value", [0, 9, -1, 2**40])
def test_bits_are_checked_before_anything_is_allocated(value: int) -> None:
    for kernel, call in CALLS.items():
        if "bits" in call.options:
            arrays = {name: array.copy() for name, array in call.arrays.items()}
            with pytest.raises(SubbyteError, match="bits"):
                getattr(kernels, kernel)(**arrays, **{**call.options, "bits": value})


@pytest.mark.parametrize("group", [0, -2, 7, 2**62])
def test_groups_must_divide_the_columns(group: int) -> None:
    for kernel, call in CALLS.items():
        if "group" in call.options:
            with pytest.raises(ShapeError, match="group"):
                results(kernel, dict(call.arrays), {**call.options, "group": group})


def test_a_number_of_columns_alone_allocates_nothing() -> None:
    for cols in (2**62, 2**40, 65, 56, -1):
        with pytest.raises(SubbyteError):
            kernels.unpack(CALLS["unpack"].arrays["words"], bits=4, cols=cols)


def test_given_grids_come_together() -> None:
    arrays = dict(CALLS["gptq"].arrays)
    del arrays["zero"]
    with pytest.raises(ShapeError, match="given 2 of them, expected all three"):
        kernels.gptq(**arrays, bits=4)
    with pytest.raises(SubbyteError, match="index"):
        kernels.gptq(**{**CALLS["gptq"].arrays, "index": np.full(64, -1, np.int32)}, bits=4)


def test_every_export_of_a_result_shares_its_memory() -> None:
    buffer = _rust.pack(np.ones((1, 8), np.uint8), 4)
    first, second = np.from_dlpack(buffer), np.from_dlpack(buffer)
    first[...] = 7
    assert second[0, 0] == 7
    assert buffer.__dlpack_device__() == (1, 0)
    with pytest.raises(BufferError):
        buffer.__dlpack__(copy=True)
    with pytest.raises(BufferError):
        buffer.__dlpack__(dl_device=(2, 0))
    legacy, versioned = buffer.__dlpack__(), buffer.__dlpack__(max_version=(1, 0))
    assert '"dltensor"' in repr(legacy)
    assert '"dltensor_versioned"' in repr(versioned)


def test_results_are_aligned_for_every_vector_and_for_jax() -> None:
    for kernel in CALLS:
        if kernel != IN_PLACE:
            assert all(result.ctypes.data % 64 == 0 for result in run(kernel))


@every_kernel
def test_results_outlive_the_inputs_which_are_let_go(kernel: str) -> None:
    call = CALLS[kernel]
    arrays = {name: array.copy() for name, array in call.arrays.items()}
    before = {name: sys.getrefcount(array) for name, array in arrays.items()}
    got = results(kernel, arrays, dict(call.options))
    if kernel != IN_PLACE:
        assert before == {name: sys.getrefcount(array) for name, array in arrays.items()}
    expected = [result.copy() for result in got]
    for array in arrays.values():
        array.fill(1)
    if kernel != IN_PLACE:
        del arrays, array
        gc.collect()
        [np.full(1 << 16, 0xAA, np.uint8) for _ in range(64)]
        same_bits(got, expected)


@pytest.mark.parametrize("framework", ["numpy", "torch", "jax"])
def test_no_memory_is_lost_over_many_calls(framework: str) -> None:
    convert: Callable[[np.ndarray], Any] = {
        "numpy": lambda: np.asarray,
        "torch": lambda: pytest.importorskip("torch").from_numpy,
        "jax": lambda: pytest.importorskip("jax.numpy").asarray,
    }[framework]()
    x, bad = convert(np.ones((64, 1024), np.float32)), convert(np.ones((64, 1024), np.int32))
    process = psutil.Process()

    def hundred() -> int:
        for _ in range(100):
            kernels.hadamard(x)
            kernels.fit_affine(x, bits=4)
            with pytest.raises(DtypeError):
                kernels.hadamard(bad)
        gc.collect()
        return process.memory_info().rss

    hundred()
    before = hundred()
    for _ in range(5):
        after = hundred()
    # 500 lost results would be 128 MiB.
    assert after - before < 16 << 20


@pytest.fixture
def one_thread_at_a_time() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("one_thread_at_a_time")
def test_other_threads_run_while_a_kernel_does() -> None:
    x = np.zeros((4096, 4096), np.float32)
    steps, done = 0, threading.Event()

    def count() -> None:
        nonlocal steps
        while not done.is_set():
            steps += 1
            time.sleep(0)

    worker = threading.Thread(target=count)
    worker.start()
    # With this switch interval the lock changes hands only where somebody lets go of it: here, in the kernel.
    before = steps
    with kernels.forced("scalar", threads=1):
        _rust.hadamard(x, on=kernels._machine.current())
    after = steps
    done.set()
    worker.join()
    assert after > before


def test_many_threads_may_call_at_once() -> None:
    expected = {kernel: run(kernel) for kernel in CALLS}
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                for kernel in CALLS:
                    same_bits(run(kernel), expected[kernel])
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def python(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    import os

    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_importing_the_kernels_imports_no_framework() -> None:
    code = "import sys, subbyte.kernels; print(sorted({'torch', 'jax', 'cupy', 'cuda'} & set(sys.modules)))"
    assert python(code) == "[]"


def test_a_forked_child_does_not_wait_for_threads_that_it_does_not_have() -> None:
    code = """
        import os, warnings
        import numpy as np
        from subbyte import kernels
        warnings.simplefilter("ignore")
        x = np.random.default_rng(0).standard_normal((512, 4096)).astype(np.float32)
        gram = np.zeros((4096, 4096), np.float32)
        with kernels.forced(threads=2):
            expected = kernels.hadamard(x)
            child = os.fork()
            if child == 0:
                kernels.accumulate_gram(gram, x)
                os._exit(0 if np.array_equal(kernels.hadamard(x), expected) else 1)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert python(code) == "0"


def test_the_environment_chooses_the_machine() -> None:
    code = "from subbyte import kernels; print(kernels.machine())"
    assert python(code, SUBBYTE_SIMD="scalar", SUBBYTE_THREADS="3") == "('scalar', 3)"
    assert python(code, SUBBYTE_SIMD="", SUBBYTE_THREADS="") == python(code)


@pytest.mark.parametrize(
    ("variable", "value", "error"),
    [
        ("SUBBYTE_SIMD", "sse9", "UnknownNameError"),
        ("SUBBYTE_THREADS", "0", "RangeError"),
        ("SUBBYTE_THREADS", "many", "RangeError"),
    ],
)
def test_an_impossible_environment_is_an_error_that_names_the_variable(variable: str, value: str, error: str) -> None:
    code = """
        import numpy as np
        from subbyte import errors, kernels
        for _ in range(2):
            try:
                kernels.hadamard(np.ones((1, 2), np.float32))
            except errors.SubbyteError as failure:
                print(type(failure).__name__, failure.args[0])
    """
    assert python(code, **{variable: value}) == f"{error} {variable}\n{error} {variable}"


def test_forced_nests_and_stays_in_its_thread() -> None:
    outside = kernels.machine()
    seen: list[tuple[str, int]] = []
    with kernels.forced("scalar"):
        assert kernels.machine() == ("scalar", outside[1])
        with kernels.forced(threads=5):
            assert kernels.machine() == ("scalar", 5)
        thread = threading.Thread(target=lambda: seen.append(kernels.machine()))
        thread.start()
        thread.join()
    assert seen == [outside] == [kernels.machine()]


def test_forced_refuses_what_is_not_there() -> None:
    from subbyte.errors import RangeError, UnknownNameError

    with pytest.raises(UnknownNameError, match="scalar, avx2, avx512, amx"), kernels.forced("neon"):
        pass
    with pytest.raises(RangeError, match="threads"), kernels.forced(threads=0):
        pass
    for path in {"avx2", "avx512", "amx"} - set(kernels.paths()):
        with pytest.raises(DeviceError, match=path), kernels.forced(path):
            pass
    machine = _rust.Machine("scalar", 2)
    assert machine == _rust.Machine("scalar", 2) != _rust.Machine("scalar", 1)
    assert repr(machine) == 'Machine(path="scalar", threads=2)'


@pytest.mark.parametrize("path", kernels.paths())
def test_every_path_gives_the_same_for_any_number_of_threads(path: str) -> None:
    for kernel in CALLS:
        with kernels.forced(path, threads=1):
            expected = run(kernel)
        for threads in (2, 7):
            with kernels.forced(path, threads=threads):
                same_bits(run(kernel), expected)


def test_a_call_describes_itself() -> None:
    assert CALLS["w8a8"].without_rows()["x"].shape == (0, 64)
    assert Call({}).without_rows() == {}
