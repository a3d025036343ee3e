"""Every error that subbyte raises on purpose: what was given, what was expected, what to do.

All derive from `SubbyteError` and from the built-in that an unsuspecting caller would catch. The four fields are the
exception's `args`, so that `--json`, pickling and tests read them without parsing prose.
"""

from __future__ import annotations

__all__ = [
    "ArchitectureError",
    "CalibrationError",
    "CheckpointError",
    "DependencyError",
    "DeviceError",
    "DriverError",
    "DtypeError",
    "NotFiniteError",
    "OutputError",
    "RangeError",
    "RecipeError",
    "SchemeError",
    "ShapeError",
    "SingularError",
    "StrideError",
    "SubbyteError",
    "UnknownNameError",
]


class SubbyteError(Exception):
    """The base: `what` names the argument, tensor or file; `hint` says what to do about it.

    >>> str(ShapeError("group_size", 96, "a divisor of 4096", "pass 64 or 128"))
    'group_size: given 96, expected a divisor of 4096; pass 64 or 128'
    """

    def __init__(self, what: str, given: object, expected: object, hint: str = "") -> None:
        super().__init__(what, given, expected, hint)
        self.args = (what, given, expected, hint)  # OSError's own __init__ keeps the first two only

    def __str__(self) -> str:
        what, given, expected, hint = self.args
        return f"{what}: given {given}, expected {expected}" + (f"; {hint}" if hint else "")


class ShapeError(SubbyteError, ValueError):
    """An array, group size or length that does not fit the others."""


class DtypeError(SubbyteError, TypeError):
    """An array of a dtype that the kernel does not take, or something that is no array."""


class StrideError(SubbyteError, ValueError):
    """An array that is not contiguous, or not aligned to its elements: kernels never copy silently."""


class DeviceError(SubbyteError, ValueError):
    """Arrays on different devices or of different frameworks, or a device that has no such kernel."""


class RangeError(SubbyteError, ValueError):
    """A number or an option outside what is allowed."""


class NotFiniteError(SubbyteError, ArithmeticError):
    """NaN or infinity in a weight, an activation or a loss."""


class SingularError(SubbyteError, ArithmeticError):
    """A Hessian that stays singular at every damping that was tried."""


class SchemeError(SubbyteError, ValueError):
    """A scheme that does not parse, or that the kernel, solver or format at hand cannot express."""


class RecipeError(SubbyteError, ValueError):
    """A recipe, or an option of a system, that is malformed."""


class UnknownNameError(SubbyteError, LookupError):
    """A system, option, order or checkpoint format that does not exist."""


class ArchitectureError(SubbyteError, ValueError):
    """A model whose parts cannot be found."""


class CheckpointError(SubbyteError, ValueError):
    """A missing, truncated or inconsistent file of a checkpoint."""


class CalibrationError(SubbyteError, ValueError):
    """Calibration or evaluation text that is missing, empty or too short."""


class OutputError(SubbyteError, OSError):
    """An output folder that is not empty, cannot be written, or has no space left."""


class DependencyError(SubbyteError, ImportError):
    """An optional package that is not installed; the hint says which extra brings it."""


class DriverError(SubbyteError, RuntimeError):
    """No CUDA driver, no device, or no PTX that the device takes."""
