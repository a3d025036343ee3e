"""The rules of the house that a machine can check: one name on every floor, and something that holds each promise."""

from __future__ import annotations

import ast
import inspect
import re
from functools import cache
from pathlib import Path

import pytest

from subbyte import _rust, errors, kernels

ROOT = Path(__file__).resolve().parents[1]
TESTS, RUST = ROOT / "tests", ROOT / "rust"
#: A cast is one pair of functions in Rust, generic over the format.
RUST_NAMES = {"encode_minifloat": "encode", "decode_minifloat": "decode"}

every_kernel = pytest.mark.parametrize("kernel", kernels.__all__)


@cache
def text(folder: Path, pattern: str) -> str:
    """Everything below a folder, as one string."""
    return "\n".join(path.read_text() for path in sorted(folder.rglob(pattern)))


def test_the_kernels_are_listed_in_order() -> None:
    assert kernels.__all__ == sorted(kernels.__all__)


@every_kernel
@pytest.mark.parametrize(
    "place", ["tests/oracles/{}.py", "tests/kernels/test_{}.py", "benches/bench_{}.py"], ids=["oracle", "test", "bench"]
)
def test_a_kernel_has_its_files(kernel: str, place: str) -> None:
    path = ROOT / place.format(kernel)
    assert path.is_file(), f"{path.relative_to(ROOT)} is missing"
    assert kernel in path.read_text()


@every_kernel
def test_a_kernel_has_one_rust_function_in_the_room_of_the_same_name(kernel: str) -> None:
    room = inspect.getmodule(getattr(kernels, kernel)).__name__.rpartition(".")[2]
    name = RUST_NAMES.get(kernel, kernel)
    assert re.search(rf"^pub fn {name}\b", text(RUST / "kernels" / "src" / room, "*.rs"), re.MULTILINE)
    assert re.search(rf"^pub fn {kernel}\b", (RUST / "python" / "src" / f"{room}.rs").read_text(), re.MULTILINE)


@every_kernel
def test_a_kernel_and_its_binding_take_the_same_arguments(kernel: str) -> None:
    front = inspect.signature(getattr(kernels, kernel)).parameters.values()
    *binding, on = inspect.signature(getattr(_rust, kernel)).parameters.values()
    assert on.name == "on"
    # PyO3 writes an ellipsis for a default that is not a plain literal, such as -1.
    known = {p.name: p.default for p in binding if p.default is not ...}
    assert [p.name for p in front] == [p.name for p in binding]
    assert {p.name: p.default for p in front} | known == {p.name: p.default for p in front}


@every_kernel
def test_a_docstring_tells_shapes_dtypes_and_errors_and_shows_a_call(kernel: str) -> None:
    documentation = inspect.getdoc(getattr(kernels, kernel)) or ""
    assert re.search(r"\[[A-Z., 0-9/a-z()*]+\] (i8|u8|i32|f32)", documentation), "no shape with a dtype"
    assert f">>> {kernel}(" in documentation or f"= {kernel}(" in documentation, "no doctest that calls it"
    named = set(re.findall(r"\w+Error", documentation))
    assert {"DtypeError", "StrideError", "DeviceError"} <= named <= set(errors.__all__)
    parameters = inspect.signature(getattr(kernels, kernel)).parameters.values()
    arrays = [parameter.name for parameter in parameters if "Array" in parameter.annotation]
    assert arrays
    assert all(re.search(rf"\b{name}\b", documentation) for name in arrays)


@every_kernel
def test_a_kernel_is_called_by_the_tests_that_all_share(kernel: str) -> None:
    from tests.calls import calls

    assert kernel in calls()
    assert "torch.library.opcheck" in (TESTS / "test_torch_ops.py").read_text()


def test_the_stub_names_what_is_no_kernel() -> None:
    stub = ast.parse((ROOT / "python" / "subbyte" / "_rust.pyi").read_text())
    classes = {node.name: node for node in stub.body if isinstance(node, ast.ClassDef)}
    functions = {node.name for node in stub.body if isinstance(node, ast.FunctionDef)} - {"__getattr__"}
    assert set(_rust.__all__) == {name for name in dir(_rust) if not name.startswith("__")}
    assert set(_rust.__all__) - set(kernels.__all__) == functions | set(classes)
    for name, node in classes.items():
        methods = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
        assert all(hasattr(getattr(_rust, name), method) for method in methods)
        public = {method for method in dir(getattr(_rust, name)) if not method.startswith("_")}
        assert public <= methods


@every_kernel
def test_a_binding_takes_what_the_kernel_documents(kernel: str) -> None:
    documented = inspect.signature(getattr(kernels, kernel)).parameters
    *built, on = inspect.signature(getattr(_rust, kernel)).parameters.values()
    assert [one.name for one in built] == list(documented)
    assert on.name == "on"
    for one in built:  # an ellipsis: a default that has no literal, such as the whole row as a group
        assert one.default in (documented[one.name].default, ...), one.name


@pytest.mark.parametrize("name", errors.__all__)
def test_an_error_has_a_test_that_raises_it(name: str) -> None:
    kind = getattr(errors, name)
    if kind is errors.SubbyteError:
        return
    bases = [base for base in kind.__mro__ if not issubclass(base, errors.SubbyteError)]
    assert bases[0] not in (Exception, BaseException, object), f"{name} is not of a built-in kind"
    assert re.search(rf"raises\(\s*\(?[\w., ]*\b{name}\b", text(TESTS, "test_*.py")), f"no test raises {name}"
    assert kind.__doc__


def test_the_errors_are_listed_in_order() -> None:
    defined = [name for name, kind in vars(errors).items() if isinstance(kind, type)]
    assert errors.__all__ == sorted(defined)


def systems() -> list[str]:
    """The registered systems, by name."""
    from subbyte.systems import registry

    return sorted(registry())


@pytest.mark.parametrize("system", systems())
def test_a_system_has_its_file_and_its_test(system: str) -> None:
    assert (ROOT / "python" / "subbyte" / "systems" / f"{system}.py").is_file()
    path = TESTS / "systems" / f"test_{system}.py"
    assert path.is_file(), f"{path.relative_to(ROOT)} is missing"
    assert system in path.read_text()


def test_a_file_has_its_name_in_one_room_only() -> None:
    rooms = {inspect.getmodule(getattr(kernels, kernel)).__name__.rpartition(".")[2] for kernel in kernels.__all__}
    directories = {path.name for path in (RUST / "kernels" / "src").iterdir() if path.is_dir()}
    assert rooms == directories
