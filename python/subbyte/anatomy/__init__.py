"""Where the norms, linears, heads and experts of each family are: data (families.toml), by checkpoint tensor names."""

from __future__ import annotations

from subbyte.anatomy.families import Anatomy, Block, Experts, Pair, architectures, find

__all__ = ["Anatomy", "Block", "Experts", "Pair", "architectures", "find"]
