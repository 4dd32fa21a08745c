"""In which layer of a user's module an error was raised, while it ran or was exported: told by the frames of the error."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def failed_layer(error: BaseException, module: torch.nn.Module) -> str | None:
    """Return the path of the innermost module in whose code an error was raised, or whose operator was being exported; None where it is not known."""
    names = {id(part): name for name, part in module.named_modules()}
    place = None
    for variables in _variables(error):
        holder = variables.get("self")
        if isinstance(holder, torch.nn.Module) and id(holder) in names:
            place = names[id(holder)]
        node = variables.get("node")
        if isinstance(node, torch.fx.Node) and (stack := node.meta.get("nn_module_stack")):
            return str(list(stack.values())[-1][0])
        if isinstance(node, torch._C.Node) and (scope := node.scopeName()):  # noqa: SLF001  what TorchScript's exporter has
            return str(scope.rpartition("/")[2].rpartition("::")[2])
    return place


def _variables(error: BaseException) -> Iterator[Mapping[str, object]]:
    """Yield the local variables of the frames that an error and its causes passed through, the outermost first."""
    cause: BaseException | None = error
    while cause is not None:
        for frame, _ in traceback.walk_tb(cause.__traceback__):
            yield frame.f_locals
        cause = cause.__cause__
