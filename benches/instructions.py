"""Instructions that a few kernels execute, counted by valgrind: the same on a busy machine and on an idle one.

    python -m benches.instructions           count, and keep the counts in benches/results/instructions.json
    python -m benches.instructions --check   change nothing: fail where a kernel takes a tenth more than is kept

Each count is the difference between running a kernel twice and once (`rust/kernels/examples/repeat.rs`), so what starts
and ends a process is not in it. valgrind knows no AVX-512.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
STORE = ROOT / "benches" / "results" / "instructions.json"
PROGRAM = ROOT / "target" / "release" / "examples" / "repeat"
# The elements of the example's inputs; products: their multiply-adds.
ELEMENTS = {
    "pack": 64 * 4096,
    "encode_minifloat": 64 * 4096,
    "quantize_affine": 64 * 4096,
    "hadamard": 64 * 4096,
    "accumulate_gram": 192 * 256 * 257 // 2,
    "nearest_codeword": 256 * 256 * 8,
    "wna16": 256 * 1024,
}
PATHS = ("scalar", "avx2")
LOSS = 0.1


def executed(kernel: str, path: str, times: int) -> int:
    """Instructions of the whole process."""
    with tempfile.NamedTemporaryFile() as out:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out.name}", str(PROGRAM)]
        run = subprocess.run([*command, kernel, path, str(times)], check=True, capture_output=True, text=True)
    found = re.search(r"Collected\s*:\s*(\d+)", run.stderr)
    if found is None:
        raise SystemExit(f"valgrind printed no count:\n{run.stderr}")
    return int(found[1])


def count() -> dict[str, dict[str, float]]:
    """Instructions an element, by kernel and path."""
    subprocess.run(
        ["cargo", "build", "--quiet", "--release", "-p", "subbyte-kernels", "--example", "repeat"], check=True, cwd=ROOT
    )
    return {
        kernel: {path: round((executed(kernel, path, 2) - executed(kernel, path, 1)) / size, 4) for path in PATHS}
        for kernel, size in ELEMENTS.items()
    }


def main() -> None:
    """The command line; see above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with what is kept")
    given = parser.parse_args()
    counts = count()
    table = Table("kernel", *PATHS, title="instructions an element")
    for kernel, paths in counts.items():
        table.add_row(kernel, *(f"{paths[path]:.4g}" for path in PATHS))
    Console().print(table)
    if not given.check:
        STORE.write_text(json.dumps(counts, indent=1) + "\n", "utf-8")
        return
    kept = json.loads(STORE.read_text("utf-8"))
    worse = [
        f"{kernel} on {path}: {kept[kernel][path]:.4g} instructions an element before, {found:.4g} now"
        for kernel, paths in counts.items()
        for path, found in paths.items()
        if kernel in kept and found > (1 + LOSS) * kept[kernel][path]
    ]
    print("\n".join(worse) or "no kernel takes a tenth more instructions")
    sys.exit(bool(worse))


if __name__ == "__main__":
    main()
