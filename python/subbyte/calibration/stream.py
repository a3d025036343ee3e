"""A model that passes through memory block by block."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from subbyte.anatomy import Anatomy
from subbyte.calibration.block import Block, Call
from subbyte.calibration.storage import allocate
from subbyte.errors import ArchitectureError, CalibrationError, DtypeError, NotFiniteError
from subbyte.modules import linear_names, materialise, release, skeleton, submodule

__all__ = ["TOKENS", "Stream"]

TOKENS = 2048
"""Tokens of a batch: enough to keep the cores busy, few enough that a block's inner activations stay small."""


class _AllCaptured(Exception):
    """Ends the outer model's forward pass behind its last block."""


class Stream:
    """The parts of one model, read when they are needed and dropped when nobody holds them any more.

    config, anatomy   of the checkpoint; an anatomy that is generic is narrowed to the linears that the model really has
                      (`stream.anatomy`).
    read              full tensor name -> tensor, such as `checkpoint.Source.read`
    dtype             of the weights while calibrating; hidden states are f32 in any case

    The outer model is run once with every block replaced by a recorder, so that masks, position embeddings and whatever
    else transformers hands to each block are exactly its own. Memory: embedding or head, one block, the activations.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        anatomy: Anatomy,
        read: Callable[[str], torch.Tensor],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._model: Any = skeleton(config, anatomy)
        if anatomy.generic:
            names = set(linear_names(self._model))
            anatomy = anatomy.restricted([n for i in range(anatomy.n_blocks) for n in anatomy.linears(i) if n in names])
            if not any(anatomy.linears(i) for i in range(anatomy.n_blocks)):
                raise ArchitectureError(
                    f"architecture {anatomy.architecture}", f"no torch linear under {anatomy.blocks}", "linear layers"
                )
        self.anatomy = anatomy
        self._read = read
        self._dtype = dtype
        self._calls: list[Call | None] = [None] * anatomy.n_blocks
        self._batch = 1
        self._tuples = False

    @torch.no_grad()
    def embed(self, tokens: torch.Tensor | NDArray[np.int64]) -> torch.Tensor:
        """Hidden states [S, T, H] f32 in front of block 0, for tokens [S, T] i64; prepares every block's arguments.

        Raises CalibrationError (no tokens, or tokens outside the vocabulary), DtypeError, NotFiniteError.
        """
        tokens = torch.as_tensor(tokens)
        self._check(tokens)
        # What a block gets beside the hidden states must fit every sequence: it is taken from a batch of one and
        # broadcasts. Unknown families may unfold the batch into another axis, so they go one by one.
        self._batch = 1 if self.anatomy.generic else max(1, TOKENS // tokens.shape[1])
        hidden: torch.Tensor | None = None
        calls: list[Call | None] = [None] * self.anatomy.n_blocks
        rows = slice(0, 1)

        def record(i: int, x: torch.Tensor, call: Call) -> torch.Tensor:
            nonlocal hidden
            if i == 0:
                hidden = allocate((*tokens.shape, x.shape[-1])) if hidden is None else hidden
                hidden[rows] = x
            if calls[i] is None:
                calls[i] = call
                if i == 0 and self.anatomy.generic:
                    self._tuples = self._returns_tuple(x, call)
            elif self.anatomy.generic and rows.start == 1:
                self._same(i, calls[i], call)
            if i == self.anatomy.n_blocks - 1 or (rows.start > 1 and i == 0):
                raise _AllCaptured
            return x

        outside = self._outside(head=False)
        for name in outside:
            materialise(self._model, name, self._read, self._dtype)
        try:
            starts = [0, *range(1, len(tokens), self._batch)]
            for start, stop in zip(starts, [*starts[1:], len(tokens)], strict=True):
                rows = slice(start, stop)
                self._run_outer(tokens[rows], record)
        finally:
            self._release(outside)
        if hidden is None or any(call is None for call in calls):
            raise ArchitectureError(
                f"model of {self.anatomy.architecture}", f"blocks under {self.anatomy.blocks} that never ran",
                "every block once, in order",
            )  # fmt: skip
        if not torch.isfinite(hidden).all():
            raise NotFiniteError("embedded tokens", "NaN or infinity", "finite activations")
        self._calls = calls
        return hidden

    def block(self, i: int, skip: Collection[str] = ()) -> Block:
        """Block i with its weights read, on its own: it leaves memory with the last reference to it.

        skip   full names of linears whose weights are not read, because the caller replaces them.
        """
        name = self.anatomy.block(i)
        module = copy.deepcopy(submodule(self._model, name))
        materialise(module, "", self._read, self._dtype, origin=name, skip=skip)
        return Block(name, module, self.anatomy.linears(i), self.anatomy.fused(i), self._calls[i], self._batch)

    @contextmanager
    def head(self) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
        """Final norm, head, and whatever the family does with them (projections, caps), in memory for a while.

        From hidden states [S, T, H] behind the last block to logits [S, T, V] f32, of an encoder its last hidden states
        [S, T, H]; differentiable.
        """

        def logits(hidden: torch.Tensor) -> torch.Tensor:
            x = hidden.to(self._dtype)
            tokens = torch.zeros(x.shape[:2], dtype=torch.int64)
            output = self._run_outer(tokens, lambda i, inner, _: x if i == 0 else inner)
            found: torch.Tensor = output.last_hidden_state if self.anatomy.encoder else output.logits
            return found.float()

        outside = self._outside(head=True)
        for name in outside:
            materialise(self._model, name, self._read, self._dtype)
        try:
            yield logits
        finally:
            self._release(outside)

    @torch.no_grad()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """What `head` gives for hidden states [S, T, H] behind the last block, a few sequences at a time.

        Raises CalibrationError (no sequence).
        """
        if not len(hidden):
            raise CalibrationError("hidden states", f"shape {list(hidden.shape)}", "at least one sequence")
        with self.head() as head:
            return torch.cat([head(hidden[n : n + self._batch]) for n in range(0, len(hidden), self._batch)])

    def loss(
        self, hidden: torch.Tensor, tokens: torch.Tensor, seed: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean next-token cross entropy of each sequence [S] f32, and its gradient [S, T, H] f32 to hidden states.

        An encoder predicts nothing: instead of that loss, the product of its output with random signs, over T. Squares
        of its gradients are, on average, the diagonal of J^T J, J the Jacobian of the output.

        hidden   [S, T, H] behind the last block
        tokens   [S, T] i64 that they come from, T at least 2
        seed     None: the next tokens are those of the text; else they are drawn from the model's own predictions, and
                 T - 1 times the gradient's square is on average that of a token: the Fisher information
        Raises CalibrationError (sequences without a next token).
        """
        if tokens.shape[1] < 2:
            raise CalibrationError("tokens", f"sequences of {tokens.shape[1]}", "at least 2 tokens", "one to predict")
        losses, gradient = torch.empty(len(hidden)), allocate(tuple(hidden.shape))
        drawn = torch.Generator().manual_seed(seed or 0)
        with self.head() as head, torch.enable_grad():
            for n in range(len(hidden)):
                x = hidden[n : n + 1].to(self._dtype).detach().requires_grad_()
                last = head(x)[0]
                if self.anatomy.encoder:
                    signs = 2.0 * torch.randint(2, last.shape, generator=drawn) - 1
                    loss = (last * signs).sum() / len(last)
                else:
                    labels = tokens[n, 1:]
                    if seed is not None:
                        labels = torch.multinomial(last[:-1].detach().softmax(-1), 1, generator=drawn)[:, 0]
                    loss = torch.nn.functional.cross_entropy(last[:-1], labels)
                (found,) = torch.autograd.grad(loss, x)
                losses[n], gradient[n] = loss.detach(), found[0]
        return losses, gradient

    def _run_outer(self, tokens: torch.Tensor, instead: Callable[[int, torch.Tensor, Call], torch.Tensor]) -> Any:
        with self._blocks_replaced(instead), self._embedding_for(tokens):
            try:
                return self._model(input_ids=tokens, use_cache=False)
            except _AllCaptured:
                return None

    @contextmanager
    def _blocks_replaced(self, instead: Callable[[int, torch.Tensor, Call], torch.Tensor]) -> Iterator[None]:
        """Every block's forward is `instead` for a while; attributes that the outer model reads stay reachable."""
        blocks = [submodule(self._model, self.anatomy.block(i)) for i in range(self.anatomy.n_blocks)]

        def forward(i: int) -> Callable[..., Any]:
            def replaced(*args: Any, **kwargs: Any) -> Any:
                x, *rest = args if args else (kwargs.pop("hidden_states"),)
                x = instead(i, x, Call(tuple(rest), kwargs))
                return (x,) if self._tuples else x

            return replaced

        for i, block in enumerate(blocks):
            block.forward = forward(i)
        try:
            yield
        finally:
            for block in blocks:
                del block.forward

    @contextmanager
    def _embedding_for(self, tokens: torch.Tensor) -> Iterator[None]:
        """Zeros in place of an embedding that was not read: `logits` overwrites the hidden states anyway."""
        embedding = self._model.get_input_embeddings()
        if not embedding.weight.is_meta:
            yield
            return
        zeros = torch.zeros(*tokens.shape, embedding.weight.shape[1], dtype=self._dtype)
        embedding.forward = lambda *_, **__: zeros
        try:
            yield
        finally:
            del embedding.forward

    def _outside(self, head: bool) -> list[str]:
        """Modules with parameters outside the blocks: those up to the blocks, or those needed for the head.

        A head or embedding that is tied is the same parameter, and read in both cases.
        """
        prefix = f"{self.anatomy.blocks}."
        embedding, output = self._model.get_input_embeddings(), self._model.get_output_embeddings()
        names = []
        for name, module in self._model.named_modules():
            unused = (embedding if head else output) is module and not self.anatomy.tied
            if name and not name.startswith(prefix) and module._parameters and not unused:
                names.append(name)
        return names

    def _release(self, names: Collection[str]) -> None:
        for name in names:
            release(self._model, name)

    def _returns_tuple(self, x: torch.Tensor, call: Call) -> bool:
        """Whether the blocks of an unknown family return a tuple: block 0 runs for real, once."""
        block = copy.deepcopy(submodule(self._model, self.anatomy.block(0)))
        del block.forward
        materialise(block, "", self._read, self._dtype, origin=self.anatomy.block(0))
        return isinstance(block(x, *call.args, **call.kwargs), tuple)

    def _same(self, i: int, first: Call | None, second: Call) -> None:
        def differs(a: Any, b: Any) -> bool:
            if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
                return a.shape != b.shape or not torch.equal(a, b)
            if isinstance(a, tuple | list) and isinstance(b, tuple | list):
                return len(a) != len(b) or any(map(differs, a, b))
            if isinstance(a, dict) and isinstance(b, dict):
                return a.keys() != b.keys() or any(differs(a[key], b[key]) for key in a)
            return False

        if first is None or differs(first.args, second.args) or differs(first.kwargs, second.kwargs):
            raise ArchitectureError(
                f"model of {self.anatomy.architecture}", f"arguments of block {i} that depend on the tokens",
                "hidden states as the only input that does", "this family cannot be streamed block by block",
            )  # fmt: skip

    def _check(self, tokens: torch.Tensor) -> None:
        if tokens.dtype != torch.int64:
            raise DtypeError("tokens", tokens.dtype, torch.int64)
        if tokens.ndim != 2 or 0 in tokens.shape:
            raise CalibrationError("tokens", f"shape {list(tokens.shape)}", "[sequences, tokens], both at least 1")
        known = self._model.get_input_embeddings().weight.shape[0]
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= known:
            raise CalibrationError(
                "tokens", f"token {low if low < 0 else high}", f"0 to {known - 1}", "use this model's own tokenizer"
            )
