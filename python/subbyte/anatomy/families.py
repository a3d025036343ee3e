"""Finds the parts of a model from its configuration and the names of its checkpoint tensors.

The families are data (families.toml). An architecture that is not listed gets the generic anatomy: every linear of the
repeated blocks, no pairs, one stage.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal, cast

from subbyte.errors import ArchitectureError

__all__ = ["Anatomy", "Block", "Experts", "Pair", "architectures", "find"]

Kind = Literal["norm", "linear", "gate", "value_output"]

# What marks a module as something other than a linear when only names are known. Narrowed later to real nn.Linear.
_NOT_LINEAR = re.compile(r"norm|embed|rotary|conv|(^|[._])ln(_|\d|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """A producer and the linears that read its output: a scale s > 0 per channel can move from one to the other.

    The consumers' input columns are multiplied by s and the producer is divided by it; the model's output stays.

    kind
        "norm"          the producer is a norm: its weight is divided (see `norm_offset`), and its bias if it has one.
        "linear"        the producer is a linear behind which only a function that commutes with s > 0 stands (ReLU).
        "gate"          the producer is the linear half of a gated MLP (up): its product with the gate is the input.
        "value_output"  the producer is the value projection: each head's rows reach the consumer through the attention
                        weights. Input channel h * head_dim + d of the consumer comes from value row
                        (h // repeats) * head_dim + d; with repeats > 1 (grouped queries) s must be equal over the
                        query heads of one key-value head.
    A linear producer is divided in its LAST len(s) output rows (and bias): joined projections hold values and up last.

    inspect      the smallest module that contains all consumers: AWQ compares its output.
    norm_offset  what the norm adds to its stored weight: effective weight = weight + norm_offset.
    floats       consumers that are scaled but stay in float, such as a router.
    heads, kv_heads, head_dim   set for "value_output".
    """

    producer: str
    consumers: tuple[str, ...]
    inspect: str
    kind: Kind
    norm_offset: float = 0.0
    floats: tuple[str, ...] = ()
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0

    @property
    def repeats(self) -> int:
        """How many query heads share one key-value head; 1 for every other kind of pair."""
        return self.heads // self.kv_heads if self.kv_heads else 1


@dataclass(frozen=True)
class Experts:
    """How experts are stored: "<block>.<module>.<router>" and "<block>.<module>.experts.<n>.<gate|up|down>".

    attribute  the block's attribute that transformers calls (it fuses the experts into three-dimensional parameters
               there; `modules.skeleton` puts ours in its place, under the checkpoint's names).
    count      number of experts; `chosen` of them see each token.
    """

    module: str
    attribute: str
    router: str
    gate: str
    up: str
    down: str
    count: int
    chosen: int


@dataclass(frozen=True)
class Block:
    """The parts of one block, by names relative to it."""

    stages: tuple[tuple[str, ...], ...]
    fused: tuple[tuple[str, ...], ...] = ()
    pairs: tuple[Pair, ...] = ()


@dataclass(frozen=True)
class Anatomy:
    """The parts of a model, by the module names that its checkpoint tensors carry (without ".weight").

    blocks      prefix of the repeated blocks; block i is "<blocks>.<i>".
    tied        the head is the embedding: the checkpoint holds no tensor of its own for it, or must not use it.
    encoder     there is no head: what the model puts out are the hidden states behind the last block.
    generic     the architecture is not in families.toml; `note` says so in words for the user.
    """

    architecture: str
    blocks: str
    n_blocks: int
    embedding: tuple[str, ...]
    norm: str
    head: str
    tied: bool
    parts: tuple[Block, ...] = field(repr=False)
    experts: Experts | None = None
    encoder: bool = False
    generic: bool = False
    note: str = ""

    def block(self, i: int) -> str:
        """The prefix of block i, such as "model.layers.3"."""
        if not 0 <= i < self.n_blocks:
            raise ArchitectureError("block", i, f"0 to {self.n_blocks - 1}")
        return f"{self.blocks}.{i}"

    def linears(self, i: int) -> list[str]:
        """Full names of the quantizable linears of block i."""
        return [name for stage in self.stages(i) for name in stage]

    def stages(self, i: int) -> list[list[str]]:
        """The same in the order of true-sequential quantization: each stage reads what the ones before it wrote."""
        prefix = self.block(i)
        return [[f"{prefix}.{name}" for name in stage] for stage in self.parts[i].stages]

    def fused(self, i: int) -> list[list[str]]:
        """Linears that read the same input and that servers join: they want the same bits, group and symmetry."""
        prefix = self.block(i)
        return [[f"{prefix}.{name}" for name in group] for group in self.parts[i].fused]

    def pairs(self, i: int, grouped: bool = False) -> list[Pair]:
        """The pairs of block i. `grouped` adds value -> output where several query heads share a key-value head."""
        prefix = self.block(i)
        return [
            replace(
                pair,
                producer=f"{prefix}.{pair.producer}",
                consumers=tuple(f"{prefix}.{name}" for name in pair.consumers),
                inspect=f"{prefix}.{pair.inspect}",
                floats=tuple(f"{prefix}.{name}" for name in pair.floats),
            )
            for pair in self.parts[i].pairs
            if grouped or pair.repeats == 1
        ]

    def restricted(self, linears: Collection[str]) -> Anatomy:
        """The same anatomy with only those linears (full names); stages and pairs that become empty are dropped.

        Pairs lose nothing: a consumer that is not quantized must still be scaled, so it moves to `floats`.
        """
        allowed = set(linears)

        def narrow(i: int, part: Block) -> Block:
            prefix = self.block(i)

            def keep(names: Iterable[str]) -> tuple[str, ...]:
                return tuple(name for name in names if f"{prefix}.{name}" in allowed)

            stages = tuple(kept for stage in part.stages if (kept := keep(stage)))
            fused = tuple(kept for group in part.fused if len(kept := keep(group)) > 1)
            pairs = tuple(
                replace(pair, consumers=kept, floats=pair.floats + tuple(n for n in pair.consumers if n not in kept))
                for pair in part.pairs
                if (kept := keep(pair.consumers))
            )
            return Block(stages, fused, pairs)

        return replace(self, parts=tuple(narrow(i, part) for i, part in enumerate(self.parts)))


@cache
def _families() -> dict[str, dict[str, Any]]:
    """families.toml with every `like` resolved."""
    raw = tomllib.loads(files("subbyte.anatomy").joinpath("families.toml").read_text(encoding="utf-8"))

    def resolve(name: str) -> dict[str, Any]:
        table = dict(raw[name])
        base = table.pop("like", None)
        return {**resolve(base), **table} if base else table

    return {name: resolve(name) for name in raw}


def architectures() -> list[str]:
    """The architectures that families.toml knows.

    >>> "LlamaForCausalLM" in architectures()
    True
    """
    return sorted(_families())


def find(config: Mapping[str, Any], names: Iterable[str] | Mapping[str, Sequence[int]]) -> Anatomy:
    """The anatomy of a checkpoint.

    config  the contents of config.json; numbers may stand in its "text_config".
    names   the names of all tensors, or a mapping from names to shapes (the generic anatomy is surer with shapes).
    Raises ArchitectureError: no architecture in config, parts missing from the checkpoint (named), nothing block-like.
    """
    architecture = (config.get("architectures") or [None])[0]
    if not isinstance(architecture, str):
        raise ArchitectureError(
            "config", "no architectures", '"architectures": ["<class>"]', "config.json must name the model's class"
        )
    text = config.get("text_config")
    numbers = {**text, **config} if isinstance(text, Mapping) else dict(config)
    shapes = dict(names) if isinstance(names, Mapping) else dict.fromkeys(names)
    family = _families().get(architecture)
    return _generic(architecture, numbers, shapes) if family is None else _known(architecture, family, numbers, shapes)


def _known(
    architecture: str, family: Mapping[str, Any], config: Mapping[str, Any], names: Mapping[str, Sequence[int] | None]
) -> Anatomy:
    n_blocks = config.get("num_hidden_layers")
    if not isinstance(n_blocks, int) or n_blocks < 1:
        raise ArchitectureError("config num_hidden_layers", n_blocks, "a positive integer")
    experts = None
    if layout := family.get("experts"):
        fields = {key: value for key, value in layout.items() if key not in ("count", "chosen")}
        experts = Experts(**fields, count=_number(config, layout["count"]), chosen=_number(config, layout["chosen"]))
    part = Block(
        stages=tuple(tuple(_expand(stage, experts)) for stage in family["stages"]),
        fused=tuple(group for pattern in family["fused"] for group in _expand_together(pattern, experts)),
        pairs=tuple(pair for data in family["pairs"] for pair in _pairs(data, family, config, experts)),
    )
    modules = {name.rpartition(".")[0] for name in names}
    needed = [
        family["embedding"][0],
        *(f"{family['blocks']}.{i}.{n}" for i in range(n_blocks) for s in part.stages for n in s),
    ]
    if missing := [name for name in needed if name not in modules]:
        shown = ", ".join(missing[:6]) + (f" and {len(missing) - 6} more" if len(missing) > 6 else "")
        raise ArchitectureError(
            f"{architecture} checkpoint",
            f"no tensors for {shown}",
            f"all {len(needed)} modules of this architecture",
            "config.json and the safetensors files do not belong together, or the files are incomplete",
        )
    encoder = not family["head"]
    absent = not encoder and family["head"] not in modules
    if absent and config.get("tie_word_embeddings") is False:
        raise ArchitectureError(f"{architecture} checkpoint", f"no tensors for {family['head']}", "an untied head")
    return Anatomy(
        architecture=architecture,
        blocks=family["blocks"],
        n_blocks=n_blocks,
        embedding=tuple(name for name in family["embedding"] if name in modules),
        norm=family["norm"],
        head=family["head"],
        tied=not encoder and (absent or config.get("tie_word_embeddings") is True),
        parts=(part,) * n_blocks,
        experts=experts,
        encoder=encoder,
    )


def _number(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise ArchitectureError(f"config {key}", value, "a positive integer")
    return value


def _expand(names: Sequence[str], experts: Experts | None) -> list[str]:
    """Replaces "*" by every expert's number, expert by expert."""
    return [name for group in _expand_together(names, experts) for name in group]


def _expand_together(names: Sequence[str], experts: Experts | None) -> list[tuple[str, ...]]:
    if experts is None or not any("*" in name for name in names):
        return [tuple(names)]
    return [tuple(name.replace("*", str(n)) for name in names) for n in range(experts.count)]


def _pairs(
    data: Mapping[str, Any], family: Mapping[str, Any], config: Mapping[str, Any], experts: Experts | None
) -> list[Pair]:
    """The pairs of one table entry: none where the config rules it out, one per expert where the producer has a "*"."""
    if any(config.get(key, wanted) != wanted for key, wanted in data.get("requires", {}).items()):
        return []
    shape = {}
    if data["kind"] == "value_output":
        heads = _number(config, "num_attention_heads")
        shape = {
            "heads": heads,
            "kv_heads": config.get("num_key_value_heads") or heads,
            "head_dim": config.get("head_dim") or _number(config, "hidden_size") // heads,
        }

    def pair(producer: str, consumers: Sequence[str], inspect: str) -> Pair:
        return Pair(
            producer=producer,
            consumers=tuple(_expand(consumers, experts)),
            inspect=inspect,
            kind=cast("Kind", data["kind"]),
            norm_offset=float(family.get("norm_offset", 0.0)) if data["kind"] == "norm" else 0.0,
            floats=tuple(data.get("floats", ())),
            **shape,
        )

    one_each = (data["producer"], data["inspect"], *data["consumers"])
    if "*" in data["producer"]:
        return [pair(p, consumers, inspect) for p, inspect, *consumers in _expand_together(one_each, experts)]
    return [pair(data["producer"], data["consumers"], data["inspect"])]


def _generic(architecture: str, config: Mapping[str, Any], names: Mapping[str, Sequence[int] | None]) -> Anatomy:
    """Every linear of the repeated blocks: those under the prefix "<prefix>.<number>." with the most 2-D weights."""
    found: dict[str, dict[int, list[str]]] = {}
    for name, shape in names.items():
        module, _, leaf = name.rpartition(".")
        quantized = leaf not in ("weight", "bias")  # packed codes of an output of ours or of others
        if not quantized and (leaf != "weight" or (shape is not None and len(shape) != 2)):
            continue
        match = re.match(r"(.*?)\.(\d+)\.(.+)", module)
        if match is None or _NOT_LINEAR.search(match[3]):
            continue
        parts = found.setdefault(match[1], {}).setdefault(int(match[2]), [])
        if match[3] not in parts:
            parts.append(match[3])
    if not found:
        raise ArchitectureError(
            f"architecture {architecture}", "no tensors named <prefix>.<number>.<part>.weight", "repeated blocks"
        )
    sizes = Counter({prefix: sum(map(len, blocks.values())) for prefix, blocks in found.items()})
    prefix, _ = max(sizes.items(), key=lambda item: (item[1], -len(item[0])))
    blocks = found[prefix]
    if sorted(blocks) != list(range(len(blocks))):
        raise ArchitectureError(
            f"blocks under {prefix}", sorted(blocks), "numbers without a gap", "a shard may be missing"
        )
    modules = {name.rpartition(".")[0] for name in names}
    head = next((name for name in ("lm_head", "embed_out", "output") if name in modules), "")
    embedding = [n for n in modules if "embed" in n and not n.startswith(f"{prefix}.")]
    return Anatomy(
        architecture=architecture,
        blocks=prefix,
        n_blocks=len(blocks),
        embedding=tuple(sorted(embedding)),
        norm="",
        head=head,
        tied=not head or config.get("tie_word_embeddings") is True,
        parts=tuple(Block(stages=(tuple(blocks[i]),)) for i in range(len(blocks))),
        generic=True,
        note=f"{architecture} is not a known family: all linears under {prefix} are one stage, and no scales move",
    )
