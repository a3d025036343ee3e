"""A model without weights, built by transformers' own classes, whose module names are the checkpoint's tensor names.

Parameters stand on the meta device until `materialise` reads them; buffers (rotary frequencies, embedding scales) are
real from the start, because no checkpoint holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from subbyte.errors import ArchitectureError, CheckpointError, DependencyError, NotFiniteError, UnknownNameError
from subbyte.modules.moe import MoE

if TYPE_CHECKING:
    from subbyte.anatomy import Anatomy, Experts

__all__ = ["linear_names", "materialise", "release", "replace_linear", "skeleton", "submodule"]


def skeleton(config: Mapping[str, Any], anatomy: Anatomy) -> nn.Module:
    """The causal language model, or the encoder, of `config` on the meta device, in evaluation mode.

    config   the contents of config.json; its quantization_config is ignored.
    anatomy  of the same checkpoint: where experts are stored one by one, transformers' fused module gives way to `MoE`
             under the checkpoint's names; tied heads share the embedding's parameter.
    Attention runs through torch's scaled_dot_product_attention, or spelled out where transformers says that the model
    cannot use that (Gemma2 caps its logits).
    Raises DependencyError (extra `hf` missing), ArchitectureError (a model that transformers does not build, or whose
    modules do not carry the checkpoint's names).
    """
    try:
        from accelerate import init_empty_weights  # type: ignore[import-untyped]
        from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    except ImportError as missing:
        raise DependencyError(
            "package", f"no {missing.name}", "transformers and accelerate", "pip install 'subbyte[hf]'"
        ) from missing
    model_type = config.get("model_type")
    if model_type not in CONFIG_MAPPING:
        raise ArchitectureError(
            "config model_type",
            model_type,
            "a model type of the installed transformers",
            "models that ship code are not run",
        )
    data = {key: value for key, value in config.items() if key not in ("quantization_config", "model_type")}
    try:
        settings = AutoConfig.for_model(str(model_type), **data)
        with init_empty_weights(include_buffers=False):
            model = _build(AutoModel if anatomy.encoder else AutoModelForCausalLM, settings)
    except Exception as problem:  # transformers' validators raise classes of their own, and many built-in ones
        raise ArchitectureError(
            f"config of {anatomy.architecture}", problem, "a causal language model or an encoder of transformers"
        ) from problem
    model.eval()
    model.requires_grad_(False)
    if anatomy.experts is not None:
        for i in range(anatomy.n_blocks):
            _unfuse(submodule(model, anatomy.block(i)), settings, anatomy.experts)
    if anatomy.tied:
        _tie(model)
    modules = dict(model.named_modules())
    wanted = [name for i in range(anatomy.n_blocks) for name in anatomy.linears(i)]
    if not anatomy.generic and (absent := [name for name in wanted if not isinstance(modules.get(name), nn.Linear)]):
        raise ArchitectureError(
            f"modules of {anatomy.architecture}", f"no linear {', '.join(absent[:4])}", "the checkpoint's names"
        )
    if anatomy.blocks not in modules:
        raise ArchitectureError(
            f"modules of {anatomy.architecture}", f"no {anatomy.blocks}", "the prefix of the checkpoint's blocks"
        )
    return model


def _build(auto: Any, settings: Any) -> nn.Module:
    return cast("nn.Module", auto.from_config(settings, dtype=torch.float32))


def _unfuse(block: nn.Module, settings: Any, experts: Experts) -> None:
    """Puts `MoE` in place of transformers' fused experts, under the checkpoint's name."""
    with torch.device("meta"):
        moe = MoE(
            settings.hidden_size, settings.intermediate_size, experts.count, experts.chosen, settings.hidden_act,
            names=(experts.router, experts.gate, experts.up, experts.down),
        )  # fmt: skip
    delattr(block, experts.attribute)
    setattr(block, experts.module, moe.eval().requires_grad_(False))
    if experts.attribute != experts.module:
        # The block's forward calls the attribute. A plain alias, not a second registration: the names of parameters
        # stay unique, and copying the block keeps both at the same object.
        block.__dict__[experts.attribute] = getattr(block, experts.module)


def _tie(model: Any) -> None:
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and embedding is not None:
        head.weight = embedding.weight


def submodule(root: nn.Module, name: str) -> nn.Module:
    """The module called `name` under root ("" is root itself). Raises UnknownNameError."""
    try:
        return root.get_submodule(name)
    except AttributeError as missing:
        raise UnknownNameError("module", name, f"a module of {type(root).__name__}") from missing


def replace_linear(root: nn.Module, name: str, new: nn.Module) -> None:
    """Puts `new` where the module `name` of root was. Raises UnknownNameError."""
    submodule(root, name)
    parent, _, leaf = name.rpartition(".")
    setattr(submodule(root, parent), leaf, new)


def linear_names(root: nn.Module) -> list[str]:
    """Full names of all nn.Linear of root, in the order of registration."""
    return [name for name, module in root.named_modules() if isinstance(module, nn.Linear)]


def materialise(
    root: nn.Module,
    prefix: str,
    read: Callable[[str], torch.Tensor],
    dtype: torch.dtype = torch.float32,
    *,
    origin: str = "",
    skip: Collection[str] = (),
) -> None:
    """Reads every parameter below `prefix` that still stands on the meta device.

    root    the skeleton, or a part of it whose own name is `origin`; prefix is relative to root ("" takes all of it).
    read    full tensor name -> tensor; any float dtype. It raises its own error for a missing tensor.
    skip    full module names whose parameters stay on meta, because something else takes their place.
    A parameter shared by two modules (a tied head) is read once, by the first of its names, and stays shared.
    Raises CheckpointError (shape), NotFiniteError (NaN or infinity; both name the tensor).
    """
    places: dict[int, list[str]] = {}
    for name, parameter in root.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(name)
    inside = f"{prefix}." if prefix else ""
    full = f"{origin}." if origin else ""
    for names in places.values():
        first = root.get_parameter(names[0])
        if not first.is_meta or not any(name.startswith(inside) for name in names):
            continue
        if all(f"{full}{name}".rpartition(".")[0] in skip for name in names):
            continue
        tensor = read(f"{full}{names[0]}")
        if tuple(tensor.shape) != tuple(first.shape):
            raise CheckpointError(f"shape of {full}{names[0]}", list(tensor.shape), list(first.shape))
        tensor = tensor.to(dtype, copy=True)  # the source may map its file: fold engines write in place
        if not torch.isfinite(tensor).all():
            raise NotFiniteError(full + names[0], "NaN or infinity", "finite weights", "the checkpoint is damaged")
        parameter = nn.Parameter(tensor, requires_grad=False)
        for name in names:
            parent, _, leaf = name.rpartition(".")
            setattr(root.get_submodule(parent), leaf, parameter)


def release(root: nn.Module, prefix: str) -> None:
    """Undoes `materialise`: the parameters below `prefix` go back to the meta device and out of memory.

    Parameters that are shared stay shared.
    """
    places: dict[int, list[str]] = {}
    for name, parameter in root.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(name)
    for names in places.values():
        if not any(name.startswith(f"{prefix}.") for name in names):
            continue
        empty = nn.Parameter(torch.empty_like(root.get_parameter(names[0]), device="meta"), requires_grad=False)
        for name in names:
            parent, _, leaf = name.rpartition(".")
            setattr(root.get_submodule(parent), leaf, empty)
