"""One table of all kernels: time, ratio to the best peer, fraction of the machine's limit.

python -m benches.report RAW.json           keep what `pytest benches --benchmark-json RAW.json` measured, in
                                            benches/results/, beside the kernels that it left out; write
                                            docs/performance.md and print the table
python -m benches.report RAW.json --check   change nothing: compare with what is kept there of the same processor;
                                            fails where a ratio lost more than a quarter
python -m benches.report                    write docs/performance.md again from benches/results/
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benches" / "results"
PAGE = ROOT / "docs" / "performance.md"
OURS = "subbyte"
LOSS = 0.25
"""Of a ratio, beyond which `--check` fails."""

INTRO = """# Performance

Written by `make bench`; every number was measured by it, the peers and the limits in the same process as the kernel.

*x peer*: how many times as fast as the fastest other contestant, which is named. *of the limit*: the bytes a kernel
must move over those that a copy of as many bytes (or, where it says read, a sum over them) moves in the same time, or
its operations over those of a large product of f32 matrices (sgemm): whichever it is closer to. Operations are those of
the plain algorithm, so that one that skips some, or does them in 8 bits, can pass 100 %. A case is the kernel's shape;
what the formats and letters mean stands in `tests/oracles/KERNEL.py`. t: threads. onnxruntime computes in f32 beside
`wna16` (accuracy level 1) and rounds the activations to 8 bits beside `w4a8` (level 4), as those kernels do.
"""

BOUNDS = {
    "one row: wna16, lookup, block_scaled, fp8": (
        "Instructions of decoding while the codes are in a cache, bytes beyond: 64 affine codes of 4 bits take 13 "
        "shuffles and shifts and 9 multiplications, two of each a cycle, and as many codes of a table 25 "
        "(`gemm/nibbles.rs`); with AVX-512 a shift, a permutation and a multiplication for 16 of either "
        "(`gemm/words.rs`); other widths an unpacking, a cast and a subtraction for eight or sixteen. The sum of "
        "floats that *read* is does none of that."
    ),
    "one row: lookup of 5 to 8 bits": (
        "A load a weight: a shuffle chooses from 16 values, and gathers read them one by one. With AVX-512 up to "
        "eight permutations, of 32 values each, and seven choices for 16 weights. `wna16`, its peer here, computes "
        "its values."
    ),
    "one row: codebook_gemm, E8P": (
        "Loads: magnitudes, signs, shift and inputs for eight weights, and those of a second stage with 3 or 4 "
        "bits, two a cycle. `wna16` of as many bits loads codes and inputs only."
    ),
    "one row: codebook_gemm, stored codewords": (
        "The caches: a codeword from a random place for each `dim` weights, of a table of `4 k dim` bytes, 2 MiB "
        "where k is 65536. `wna16` of two bits, its peer here, has no table."
    ),
    "2 to 24 rows, with AVX2 to 48: weights decoded by rows": (
        "Decoding, once, and multiplications of f32: 12 for 7 loads (`gemm/decoded.rs`)."
    ),
    "csr": (
        "Reads from random places, a cache's. Its peer is given x and y transposed and the values in f32; `csr` lays x "
        "out anew and widens the values in every call."
    ),
    "kmeans, nearest_codeword": (
        "Multiplications of f32: each point meets each codeword, in the peer too (see *of sgemm*); in few dimensions "
        "also the second look, for the place of the least distance. From its second iteration on `kmeans` leaves out "
        "panels of codewords whose boxes are further from a point than its own (`codebook/bounds.rs`): most of them in "
        "2 to 6 dimensions; in 8 finding them takes about as long as it saves."
    ),
    "one row: w4a8, w4a4": (
        "Bytes beyond the caches, asked for ahead; inside, eight instructions for 128 codes with AVX-512 "
        "(`gemm/w4a8/blocks.rs`): two multiply, three part the codes, one takes off zero points and two scale sums."
    ),
    "w4a8 in groups of 32 columns": (
        "Floats: each 32 columns of each row of weights, a conversion and a multiplication that adds for each 16 rows "
        "of x, beside eight multiplications of bytes; and registers, of which sums of groups have half."
    ),
    "accumulate_gram, few tokens": (
        "The copy of one half to the other, and reading and writing all of the result for so few products: the peer "
        "computes both halves."
    ),
    "product_scan": (
        "Reading codes and writing sums, with one lookup for 64 of each: the peer keeps the nearest row of each query "
        "and writes no distance of the others."
    ),
    "product_encode": (
        "Multiplications of f32 and as many comparisons, in parts of few numbers: see *of sgemm*; then a second look, "
        "for the place of the least distance."
    ),
    "ldlq": (
        "The order: inside a block each column waits for what the one before it left, a product of a matrix and a "
        "vector. Only what blocks hand on is a product of matrices."
    ),
    "fit_affine": (
        "Groups: the least and the largest of 128 numbers are sixteen steps of two operations, and what follows, a "
        "division and roundings, is done for one group at a time. The peer's two passes are no more than reads."
    ),
    "bilevel": (
        "Its peer is GPTQ alone. SpQR also tries each weight of a group as an outlier, which fits the group's range "
        "without it, and quantizes scales and zero points."
    ),
    "casts and quantization of 1 MiB, two threads": (
        "Waking the second thread, which takes away what it saves (one thread is as fast): torch's threads spin "
        "between two calls, these sleep."
    ),
    "packing, casts, quantization beyond the caches": (
        "The pages of the result: it is a new array, and the operating system clears each page before it is written "
        "to. The copy that *of copy* compares with writes over an array that is there."
    ),
    "more rows": (
        "Multiplications of f32, in tiles of 14 by 32 sums (AVX-512) or 6 by 16 (AVX2) that stay in registers: see *of "
        "sgemm*; what is missing there is decoding and the copy of what was decoded. `w8a8` and `w4a8` multiply bytes."
    ),
}
"""What keeps the kernels of the table from their limits; no numbers but those that follow from the code."""


@dataclass(frozen=True)
class Row:
    """One kernel on one input and so many threads; times are medians in seconds."""

    kernel: str
    case: str
    threads: int
    seconds: float
    peers: dict[str, float]
    limit: str
    fraction: float

    @property
    def key(self) -> tuple[str, str, int]:
        """What stays the same from run to run."""
        return self.kernel, self.case, self.threads

    @property
    def peer(self) -> str:
        """The fastest of the others."""
        return min(self.peers, key=self.peers.__getitem__, default="")

    @property
    def ratio(self) -> float | None:
        """How many times as fast as that."""
        return self.peers[self.peer] / self.seconds if self.peers else None


def rows(raw: dict[str, Any]) -> list[Row]:
    """Of pytest-benchmark's JSON, in the order of the benches."""
    groups: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for bench in raw["benchmarks"]:
        info = bench["extra_info"]
        groups.setdefault((bench["group"], info["threads"]), {})[info["who"]] = bench
    found = []
    for (group, threads), contestants in groups.items():
        ours = contestants.pop(OURS, None)
        if ours is None:
            continue
        seconds, info = ours["stats"]["median"], ours["extra_info"]
        kernel, _, case = group.partition(" ")
        fractions = {
            name: info["flops" if name == "sgemm" else "bytes"] / seconds / reach
            for name, reach in info["limits"].items()
        }
        limit = max(fractions, key=fractions.__getitem__)
        peers = {who: bench["stats"]["median"] for who, bench in contestants.items()}
        found.append(Row(kernel, case, threads, seconds, peers, limit, fractions[limit]))
    return found


def processor(raw: dict[str, Any]) -> str:
    """Its name, as a file's."""
    info = raw["machine_info"]["cpu"]
    name = re.sub(r"[^a-z0-9]+", "-", info["brand_raw"].lower()).strip("-")
    extra = "avx512" if "avx512f" in info.get("flags", []) else "avx2" if "avx2" in info.get("flags", []) else "scalar"
    return f"{name}-{extra}"


def cells(row: Row) -> list[str]:
    """The row of the table."""
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    return [row.kernel, row.case, str(row.threads), time_of(row.seconds), ratio, row.peer,
            f"{row.fraction:.0%} of {row.limit}"]  # fmt: skip


HEAD = ["kernel", "case", "t", "time", "x peer", "peer", "of the limit"]


def time_of(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def page(stored: Iterable[dict[str, Any]], cards: Sequence[dict[str, Any]]) -> str:
    """docs/performance.md."""
    lines = [INTRO, "| where | what it is bound by |", "| --- | --- |"]
    lines += [f"| {where} | {bound} |" for where, bound in BOUNDS.items()] + [""]
    for store in stored:
        lines += [f"## {store['processor']}, {store['cores']} cores", "", store["versions"], ""]
        lines += ["| " + " | ".join(HEAD) + " |", "|" + " --- |" * len(HEAD)]
        lines += ["| " + " | ".join(cells(Row(**row))) + " |" for row in store["rows"]] + [""]
    return "\n".join([*lines, *gpu_lines(cards)])


def gpu_lines(cards: Sequence[dict[str, Any]]) -> list[str]:
    """What `make gpu-check` measured."""
    if not cards:
        return ["## GPUs", "", "Not yet measured (`make gpu-check`).", ""]
    lines = []
    for card in cards:
        lines += [f"## {card['card']}", "", f"Driver {card['driver']}, torch {card['torch']}; `make gpu-check`.", ""]
        columns = list(card["rows"][0])
        lines += ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        lines += ["| " + " | ".join(str(row[column]) for column in columns) + " |" for row in card["rows"]] + [""]
    return lines


def store(raw: dict[str, Any], kept: Iterable[Row]) -> dict[str, Any]:
    """What is kept of a processor: these rows, and what machine a run was made on."""
    import torch

    cpu = raw["machine_info"]["cpu"]
    return {
        "processor": f"{cpu['brand_raw']} ({processor(raw).rpartition('-')[2].upper()})",
        "cores": cpu["count"],
        "versions": f"Python {raw['machine_info']['python_version']}, torch {torch.__version__.partition('+')[0]}.",
        "rows": [asdict(row) for row in kept],
    }


def beside(before: Iterable[Row], now: Sequence[Row]) -> list[Row]:
    """A run, and what is kept of the kernels that it left out."""
    measured = {row.kernel for row in now}
    return sorted([*(row for row in before if row.kernel not in measured), *now], key=lambda row: row.kernel)


def lost(before: Iterable[Row], now: Iterable[Row]) -> list[str]:
    """What became slower by more than `LOSS`, beside the same peer or, without one, of the limit."""
    old = {row.key: row for row in before}
    found = []
    for row in now:
        then = old.get(row.key)
        if then is None:
            continue
        shared = [who for who in then.peers if who in row.peers]
        pairs = [(then.peers[who] / then.seconds, row.peers[who] / row.seconds, f"x {who}") for who in shared]
        pairs.append((then.fraction, row.fraction, f"of {row.limit}"))
        # A peer or a limit may have a bad day: only what all of them say is the kernel's own loss.
        if all(after < (1 - LOSS) * earlier for earlier, after, _ in pairs):
            earlier, after, unit = pairs[0]
            found.append(f"{' '.join(map(str, row.key))} threads: {earlier:.2f} {unit} before, {after:.2f} now")
    return found


def main() -> None:
    """The command line; see above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", nargs="?", type=Path, help="JSON of pytest-benchmark")
    parser.add_argument("--check", action="store_true", help="compare with what is kept")
    given = parser.parse_args()
    if given.raw is not None:
        raw = json.loads(given.raw.read_text("utf-8"))
        path = RESULTS / f"{processor(raw)}.json"
        known = [Row(**row) for row in json.loads(path.read_text("utf-8"))["rows"]] if path.exists() else []
        if given.check:
            if not known:
                sys.exit(f"nothing is kept of this processor ({path.name}): run `make bench` on the version before")
            worse = lost(known, rows(raw))
            print("\n".join(worse) or "no kernel lost more than a quarter")
            sys.exit(bool(worse))
        path.write_text(json.dumps(store(raw, beside(known, rows(raw))), indent=1) + "\n", "utf-8")
        table = Table(*HEAD)
        for row in rows(raw):
            table.add_row(*cells(row))
        Console().print(table)
    kept = [json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    PAGE.write_text(page([k for k in kept if "processor" in k], [k for k in kept if "card" in k]), "utf-8")
    print(PAGE.relative_to(ROOT))


if __name__ == "__main__":
    main()
