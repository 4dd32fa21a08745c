"""The modules of TorchScript in a user's model, of which every call gets copies: what a call writes to their attributes can be undone in no other way."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from actconform import Unsupported
from actconform_torch.script_steps import branches_on_dtype, kept_tensors, marked_copy, python_class_of
from actconform_torch.wide_arithmetic import WIDE

if TYPE_CHECKING:
    from collections.abc import Iterator


class ScriptCopies:
    """The modules of TorchScript that a module has, or is; those within one of them are part of it."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self._parts: dict[str, torch.jit.ScriptModule] = {}
        for path, part in module.named_modules():
            if isinstance(part, torch.jit.ScriptModule) and not any(
                path.startswith(f"{outer}.") or not outer for outer in self._parts
            ):
                self._parts[path] = part

    def __bool__(self) -> bool:
        return bool(self._parts)

    @cached_property
    def _marked(self) -> dict[str, torch.jit.ScriptModule]:
        """Those that tell of their steps, the others as they are."""
        return {path: marked_copy(part) or part for path, part in self._parts.items()}

    @cached_property
    def _wide(self) -> dict[str, torch.jit.ScriptModule]:
        """Those that tell of their steps and have float64 in their code, the others as they are."""
        return {path: marked_copy(part, wide=True) or part for path, part in self._parts.items()}

    @contextmanager
    def in_place(self, *, layers: bool, wide: bool) -> Iterator[torch.nn.Module]:
        """Yield the module with copies in place of its parts, which with `layers` tell of their steps, with `wide` hold float64.

        Raises Unsupported where the code of one would go another way in float64.
        """
        parts = self._wide if wide else self._marked if layers else self._parts
        with torch.no_grad():  # else weights would be no leaves: torch copies them as a step of the computation
            copies = {path: copy.deepcopy(part) for path, part in parts.items()}
        for path, part in copies.items() if wide else ():
            _widen_attributes(path, part)
        if "" in copies:
            yield copies[""]
            return
        for path, part in copies.items():
            self._put(path, part)
        try:
            yield self._module
        finally:
            for path, part in self._parts.items():
                self._put(path, part)

    def _put(self, path: str, part: torch.nn.Module) -> None:
        parent, _, name = path.rpartition(".")
        self._module.get_submodule(parent)._modules[name] = part  # noqa: SLF001  setattr would refuse what add_module has


def _widen_attributes(path: str, module: torch.jit.ScriptModule) -> None:
    """Widen the tensors that are neither parameters nor buffers; those are widened where all of a model's are."""
    if branches_on_dtype(module):
        name = path or python_class_of(module)
        raise Unsupported(
            f"the code of {name} asks whether a tensor has a certain dtype: in float64 it would go another way"
        )
    registered = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    for part, name in kept_tensors(module):
        tensor = getattr(part, name)
        if tensor.dtype in WIDE and id(tensor) not in registered:
            setattr(part, name, tensor.to(WIDE[tensor.dtype]))
