"""Raw: the bytes of one tensor as a NumPy array, with the dtype that they have in a safetensors file.

NumPy has no bf16 and no 8-bit floats; such tensors are arrays of u16 and u8 here, and the tag says what they mean.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from subbyte import kernels
from subbyte.errors import CheckpointError, DependencyError, DtypeError

if TYPE_CHECKING:
    import torch

__all__ = ["HELD_AS", "Raw"]

# safetensors' name of a dtype -> the NumPy dtype that holds its bytes
HELD_AS: dict[str, np.dtype[Any]] = {
    tag: np.dtype(held)
    for tag, held in {
        "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8",
        "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1",
        "F8_E8M0": "u1",
    }.items()
}  # fmt: skip
MINIFLOATS = {"BF16": "bf16", "F16": "f16", "F8_E4M3": "e4m3fn", "F8_E5M2": "e5m2"}
# the same names -> torch's, where they differ from NumPy's
TORCH = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu"}


@dataclass(frozen=True, eq=False, slots=True)
class Raw:
    """A tensor of a file: `dtype` is safetensors' name ("BF16", "I32", ...), `data` its bits as `HELD_AS[dtype]`."""

    dtype: str
    data: npt.NDArray[Any]

    @classmethod
    def of(cls, array: object) -> Raw:
        """The tensor in a NumPy array, a torch tensor (bf16 and 8-bit floats too) or a Raw; DtypeError for others."""
        if isinstance(array, Raw):
            return array
        if isinstance(array, np.ndarray):
            for tag, held in HELD_AS.items():
                if array.dtype == held:
                    return cls(tag, array)
            raise DtypeError("tensor to write", array.dtype, f"one of {', '.join(HELD_AS)}")
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(array, torch.Tensor):
            tensor = array.detach().cpu().contiguous()
            for tag, name in TORCH.items():
                if tensor.dtype == getattr(torch, name, None):
                    return cls(tag, tensor.view(getattr(torch, f"uint{8 * tensor.element_size()}")).numpy())
            return cls.of(tensor.numpy())
        raise DtypeError("tensor to write", type(array).__name__, "a NumPy array, a torch tensor or a Raw")

    @classmethod
    def from_floats(cls, values: npt.NDArray[np.float32], dtype: str) -> Raw:
        """f32 values rounded to the nearest of F32, F16 or BF16."""
        if dtype == "F32":
            return cls(dtype, values)
        codes = kernels.encode_minifloat(np.ascontiguousarray(values), MINIFLOATS[dtype])
        return cls(dtype, codes.view(HELD_AS[dtype]))

    def floats(self) -> npt.NDArray[np.float32]:
        """The values as f32 [same shape]; F64 is rounded. CheckpointError for integers."""
        if self.dtype in ("F32", "F64"):
            return np.ascontiguousarray(self.data, np.float32)
        if self.dtype not in MINIFLOATS:
            raise CheckpointError("tensor", self.dtype, "a float dtype", f"one of F32, F64, {', '.join(MINIFLOATS)}")
        codes = np.ascontiguousarray(self.data)
        values: npt.NDArray[np.float32] = kernels.decode_minifloat(
            codes.view(f"u{codes.itemsize}"), MINIFLOATS[self.dtype]
        )
        return values

    def torch(self) -> torch.Tensor:
        """The same memory as a torch tensor of the stored dtype."""
        try:
            import torch
        except ImportError as error:
            raise DependencyError("torch", "not installed", "torch", "pip install 'subbyte[torch]'") from error
        tensor = torch.from_numpy(self.data)
        return tensor.view(getattr(torch, TORCH[self.dtype])) if self.dtype in TORCH else tensor
