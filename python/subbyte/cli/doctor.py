"""`subbyte doctor`: what this machine and this installation can run, and what is missing for the rest."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from subbyte import __version__
from subbyte.cli.output import as_json, fact, table
from subbyte.errors import SubbyteError

# Package -> the extra of subbyte that brings it ("" for what is always there).
PACKAGES = {
    "numpy": "",
    "safetensors": "",
    "torch": "torch",
    "transformers": "hf",
    "tokenizers": "hf",
    "accelerate": "hf",
    "compressed-tensors": "hf",
    "pyyaml": "hf",
    "cuda-bindings": "cuda",
    "cuda-core": "cuda",
    "matplotlib": "plot",
    "jinja2": "plot",
}


def doctor(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show what this machine can run.

    CPU paths, CUDA driver, GPUs, PTX and optional packages. Nothing has to be there beyond a CPU: each thing that is
    missing comes with what brings it.
    """
    report = examine()
    if json:
        as_json(report)
        return
    cpu, cuda = report["cpu"], report["cuda"]
    for name in ("subbyte", "python", "platform"):
        fact(name, report[name])
    fact("CPU paths", ", ".join(cpu["paths"]))
    fact("in use", f"{cpu['path']}, {cpu['threads']} threads (SUBBYTE_SIMD and SUBBYTE_THREADS choose others)")
    fact("CUDA driver", f"for CUDA {cuda['driver']}" if cuda["driver"] else cuda["problem"])
    for gpu in cuda["gpus"]:
        fact("GPU", f"{gpu['name']}, compute capability {gpu['capability']}, {gpu['memory_gib']} GiB")
    if not report["ptx"]:
        fact("PTX", "none: the wheel brings it; in a checkout `python cuda/compile.py` makes it (no GPU needed)")
    print()
    if report["ptx"]:
        columns = ["PTX of", "architecture", "version", "driver needed", "this driver"]
        table(columns, [_ptx_cells(entry) for entry in report["ptx"]], right=5)
        print()
    rows = [[p["name"], p["version"] or "missing", "" if p["version"] else p["hint"]] for p in report["packages"]]
    table(["package", "version", "how to get it"], rows, right=3)


def examine() -> dict[str, Any]:
    """Everything that `doctor` prints, as data."""
    from subbyte import kernels

    path, threads = kernels.machine()
    cuda, driver = _cuda()
    return {
        "subbyte": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": {"paths": list(kernels.paths()), "path": path, "threads": threads},
        "cuda": cuda,
        "ptx": _ptx(driver),
        "packages": [
            {
                "name": name,
                "version": _version(name),
                "hint": f"pip install 'subbyte[{extra}]'" if extra else f"pip install {name}",
            }
            for name, extra in PACKAGES.items()
        ],
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cuda() -> tuple[dict[str, Any], tuple[int, int] | None]:
    """The driver's CUDA version and its GPUs, or the problem in words where there is none."""
    from subbyte.cuda import devices, driver_version

    found: dict[str, Any] = {"driver": None, "gpus": [], "problem": ""}
    driver = None
    try:
        driver = driver_version()
        found["driver"] = "{}.{}".format(*driver)
        found["gpus"] = [
            {
                "name": device.name,
                "capability": "{}.{}".format(*device.capability),
                "memory_gib": round(device.memory / 2**30, 1),
            }
            for device in devices()
        ]
    except SubbyteError as error:
        _, given, _, hint = error.args
        found["problem"] = f"{given}" + (f" ({hint})" if hint else "")
    return found, driver


def _ptx(driver: tuple[int, int] | None) -> list[dict[str, Any]]:
    """One entry per PTX file of the installation, and whether the driver is new enough for it."""
    from subbyte.cuda import ptx

    entries = []
    for file in ptx():
        needed = _needed(file.version)
        entries.append(
            {
                "kernel": file.kernel,
                "architecture": file.architecture,
                "version": file.version,
                "driver_needed": "CUDA {}.{}".format(*needed) if needed else "unknown",
                "driver_takes_it": driver >= needed if driver and needed else None,
            }
        )
    return entries


def _needed(ptx: str) -> tuple[int, int] | None:
    """The first CUDA release that takes a version of PTX.

    >>> _needed("8.7"), _needed("8.6"), _needed("9.0"), _needed("unknown")
    ((12, 8), (12, 7), (13, 0), None)
    """
    major, _, minor = ptx.partition(".")
    if major not in ("8", "9") or not minor.isdigit():
        return None
    # PTX 8.x goes with CUDA 12 and 9.x with 13, number by number, except that CUDA 12.6 brought no new PTX.
    skipped = major == "8" and int(minor) > 5
    return int(major) + 4, int(minor) + skipped


def _ptx_cells(entry: dict[str, Any]) -> list[str]:
    takes = {None: "none", True: "takes it", False: "too old: update it"}[entry["driver_takes_it"]]
    return [entry["kernel"], entry["architecture"], entry["version"], entry["driver_needed"], takes]
