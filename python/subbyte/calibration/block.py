"""One block of a model: its linears, its forward pass over the calibration set, and reruns of its inner modules."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from subbyte.calibration.storage import allocate
from subbyte.errors import CalibrationError, ShapeError, UnknownNameError
from subbyte.modules import replace_linear

__all__ = ["Block", "Call", "Observer"]

Observer = Callable[[torch.Tensor], None]


class _Served(Exception):
    """Ends a pass whose observers all had their inputs."""


@dataclass(frozen=True)
class Call:
    """The arguments of one call of a module, tensors included."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


class Block:
    """Block `index` of a model, with weights, run on [S, T, H] in small batches of sequences.

    name     its prefix in the checkpoint, such as "model.layers.3"
    module   transformers' own block; linears may be replaced at any time (`replace`)
    fused    full names of linears that read the same input tensor
    call     the arguments beside the hidden states, as the whole model passes them (masks, position embeddings);
             None where no tokens were embedded: such a block has weights, but cannot run
    batch    sequences at a time. Results of one sequence do not depend on the others.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        linears: Sequence[str],
        fused: Sequence[Sequence[str]] = (),
        call: Call | None = None,
        batch: int = 1,
    ) -> None:
        self.name = name
        self.module = module
        self.fused = [list(group) for group in fused]
        self._linears = list(linears)
        self._call = call
        self._batch = batch

    @property
    def linears(self) -> dict[str, nn.Module]:
        """The quantizable linears as they are now, by full name."""
        return {name: self.get(name) for name in self._linears}

    def copy(self) -> Block:
        """The same block with weights of its own."""
        return Block(self.name, copy.deepcopy(self.module), self._linears, self.fused, self._call, self._batch)

    def get(self, name: str) -> nn.Module:
        """The module with that full name (the block itself included). Raises UnknownNameError."""
        inner = self._inner(name)
        try:
            return self.module.get_submodule(inner)
        except AttributeError as missing:
            raise UnknownNameError("module", name, f"a module below {self.name}") from missing

    def replace(self, name: str, module: nn.Module) -> None:
        """Puts `module` where the module with that full name was."""
        replace_linear(self.module, self._inner(name), module)

    def parameters(self) -> dict[str, nn.Parameter]:
        """All parameters by their full tensor names."""
        return {f"{self.name}.{name}": parameter for name, parameter in self.module.named_parameters()}

    def _inner(self, name: str) -> str:
        if name != self.name and not name.startswith(f"{self.name}."):
            raise UnknownNameError("module", name, f"a name below {self.name}")
        return name[len(self.name) + 1 :]

    @torch.no_grad()
    def forward(
        self, hidden: torch.Tensor, observers: Mapping[str, Observer] | None = None, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The block's outputs [S, T, H] f32 for inputs of the same shape.

        observers   full name of a linear -> function that gets each input of it as [n, C]
        out         None: a new tensor; `hidden` itself: overwritten in place
        """
        if out is not None and out.shape != hidden.shape:
            raise ShapeError("out", list(out.shape), list(hidden.shape))
        target = allocate(tuple(hidden.shape)) if out is None else out
        with self._observed(observers or {}):
            for rows, call in self.calls(hidden):
                target[rows] = self.run_module(self.module, call)
        return target

    @torch.no_grad()
    def observe(self, hidden: torch.Tensor, observers: Mapping[str, Observer], batch: int | None = None) -> None:
        """`forward` for the observers' sake: outputs are dropped, what lies behind the last observer is not run."""
        waiting: set[str] = set()

        def last(name: str, observer: Observer) -> Observer:
            def watched(x: torch.Tensor) -> None:
                observer(x)
                waiting.discard(name)
                if not waiting:
                    raise _Served

            return watched

        with self._observed({name: last(name, observer) for name, observer in observers.items()}):
            for _, call in self.calls(hidden, batch):
                waiting.update(observers)
                with suppress(_Served):
                    self.run_module(self.module, call)

    def through(self, hidden: torch.Tensor) -> torch.Tensor:
        """`forward`, differentiable: [S, T, H] f32, newly allocated."""
        return torch.cat([self.run_module(self.module, call) for _, call in self.calls(hidden)])

    def backward(self, hidden: torch.Tensor, upstream: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """The gradients of the linears' weights, by full name, and that of the inputs, for one sequence.

        hidden, upstream   [1, T, H]: inputs, and the gradient to the outputs; f32
        """
        weights = {name: linear.weight for name, linear in self.linears.items() if hasattr(linear, "weight")}
        ((_, call),) = self.calls(hidden)
        x = call.args[0].detach().requires_grad_()
        for weight in weights.values():
            weight.requires_grad_(True)
        try:
            with torch.enable_grad():
                output = self.run_module(self.module, Call((x, *call.args[1:]), call.kwargs))
            # An expert that no token reached has no part in the output.
            found = torch.autograd.grad(output, [x, *weights.values()], upstream, allow_unused=True)
        finally:
            for weight in weights.values():
                weight.requires_grad_(False)
        gradients = zip(weights.items(), found[1:], strict=True)
        return {name: torch.zeros_like(w) if g is None else g for (name, w), g in gradients}, found[0]

    @torch.no_grad()
    def capture(self, name: str, hidden: torch.Tensor, batch: int | None = None) -> list[Call]:
        """How the inner module `name` (full name) is called while the block runs on `hidden`: one Call a batch, of at
        most `batch` sequences."""
        calls: list[Call] = []

        def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls.append(Call(args, kwargs))

        handle = self.get(name).register_forward_pre_hook(keep, with_kwargs=True)
        try:
            self.observe(hidden, {}, batch)
        finally:
            handle.remove()
        return calls

    @torch.no_grad()
    def run(self, name: str, calls: Sequence[Call]) -> torch.Tensor:
        """The outputs of the inner module `name` for captured calls, one after the other: [n, C] f32."""
        module = self.get(name)
        outputs = [self.run_module(module, call) for call in calls]
        return torch.cat([output.reshape(-1, output.shape[-1]).float() for output in outputs])

    def calls(self, hidden: torch.Tensor, batch: int | None = None) -> Iterator[tuple[slice, Call]]:
        """How the block is called for each batch of sequences, of at most `batch`: which rows of `hidden`, and the
        arguments."""
        if self._call is None:
            raise CalibrationError(
                f"inputs of {self.name}",
                "no tokens embedded",
                "Stream.embed first",
                "masks and positions come from there",
            )
        size = self._batch if batch is None else min(batch, self._batch)
        for start in range(0, len(hidden), size):
            rows = slice(start, start + size)
            yield rows, Call((hidden[rows], *self._call.args), self._call.kwargs)

    @staticmethod
    def run_module(module: nn.Module, call: Call) -> torch.Tensor:
        """The first output of one call."""
        output = module(*call.args, **call.kwargs)
        result: torch.Tensor = output[0] if isinstance(output, tuple | list) else output
        return result

    @contextmanager
    def _observed(self, observers: Mapping[str, Observer]) -> Iterator[None]:
        def hook(observer: Observer) -> Callable[[nn.Module, tuple[Any, ...]], None]:
            return lambda _, args: observer(args[0].reshape(-1, args[0].shape[-1]))

        handles = [self.get(name).register_forward_pre_hook(hook(observer)) for name, observer in observers.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
