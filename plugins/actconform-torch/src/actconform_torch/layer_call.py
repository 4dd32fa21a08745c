"""The call of one layer in a run of a user's module: what it read, and what the layer alone gives for that."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from actconform import Unsupported
from actconform.plugin.call_source import call_source, called_path
from actconform.text import one_line
from actconform.types.trained import LayerCall
from actconform_torch.layer_recorder import copied, every_function_seen
from actconform_torch.trained_call import output_tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arguments = tuple[tuple[Any, ...], dict[str, Any]]

MOST_LETTERS = 300  # of a layer in words


class _Seen(BaseException):
    """Ends a run at the call that is looked for; no code of the user's catches it as an Exception."""


def called_layer(
    module: torch.nn.Module, arguments: Arguments, layer: str
) -> tuple[LayerCall, torch.nn.Module, Arguments]:
    """Return the call of a layer, or of the next one around it that can be written down, without outputs; its module, and its arguments.

    Raises Unsupported where not even the call of the model itself can be written.
    """
    path, number = called_path(layer, (path for path, _ in module.named_modules()))
    while True:
        part = module.get_submodule(path) if path else module
        called = _arguments_of(module, arguments, part, number) if path else copy.deepcopy(arguments)
        around = path.rpartition(".")[0] if path else None
        if called is not None:
            try:
                return _written(part, called, path, around), part, called
            except Unsupported:
                if around is None:
                    raise
        assert around is not None
        path, number = around, 1


def outputs_of(part: torch.nn.Module, arguments: Arguments) -> tuple[NDArray[Any], ...]:
    """Return the tensors that a module gives, flat; the arguments stay as they are."""
    args, kwargs = copy.deepcopy(arguments)
    return tuple(copied(tensor) for tensor in output_tensors(part(*args, **kwargs)).values())


def widened(arguments: Arguments) -> Arguments:
    """Return arguments with floats in float64."""

    def wide(leaf: object) -> object:
        return leaf.double() if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf

    args, kwargs = pytree.tree_map(wide, arguments)
    return args, kwargs


def _arguments_of(
    module: torch.nn.Module, arguments: Arguments, part: torch.nn.Module, number: int
) -> Arguments | None:
    """Return the arguments of a call of `part` in a run of `module`; None where it is not called, as a list of layers."""
    if isinstance(part, torch.jit.ScriptModule):  # takes no hooks
        return None
    called: list[Arguments] = []

    def see(_: torch.nn.Module, args: Any, kwargs: Any) -> None:
        called.append(copy.deepcopy((args, kwargs)))
        if len(called) == number:
            raise _Seen

    handle = part.register_forward_pre_hook(see, with_kwargs=True)
    args, kwargs = copy.deepcopy(arguments)
    try:
        with suppress(_Seen), every_function_seen():
            module(*args, **kwargs)
    finally:
        handle.remove()
    return called[-1] if called else None


def _written(part: torch.nn.Module, arguments: Arguments, path: str, around: str | None) -> LayerCall:
    tensors: list[torch.Tensor] = []

    def name_of(value: object) -> str | None:
        if isinstance(value, torch.Tensor):
            if value.dtype is torch.bfloat16 or value.is_complex():
                raise Unsupported(f"reads {value.dtype}, which no .npz holds")
            tensors.append(value)
            return f"input_{len(tensors) - 1}"
        return repr(value) if isinstance(value, torch.dtype) else None

    source = call_source(*arguments, name_of)
    about = one_line(repr(part), MOST_LETTERS)
    return LayerCall(
        path=path, about=about, around=around, arguments=source, inputs=tuple(map(copied, tensors)), outputs=()
    )
