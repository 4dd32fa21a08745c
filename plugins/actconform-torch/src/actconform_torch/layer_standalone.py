"""How a layer of a user's torch model is loaded, called and exported, for a program that stands alone: the text of this file is copied into it."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch


def opened(source: str, kind: str, *, trusted: bool) -> Any:
    """Return the model that the user names: "package.module:factory", or the path of a file."""
    if kind == "torchscript":
        return torch.jit.load(source, map_location="cpu")
    if kind == "pt2":
        if not trusted:
            os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
        return torch.export.unflatten(torch.export.load(source))
    module, _, path = source.partition(":")
    model: Any = importlib.import_module(module)
    for name in path.split("."):
        model = getattr(model, name)
    if not isinstance(model, torch.nn.Module | torch.export.ExportedProgram):
        model = model()
    model = model[0] if isinstance(model, tuple | list) else model
    if isinstance(model, torch.export.ExportedProgram):
        return torch.export.unflatten(model)
    return getattr(model, "_orig_mod", model).eval()


def layer_at(model: Any, path: str) -> Any:
    """Return the layer of that path; "" is the model itself."""
    return model.get_submodule(path) if path else model


def computed(layer: Any, call: Callable[..., Any], inputs: list[Any]) -> list[Any]:
    """Return the arrays that a layer gives for arrays, flat."""
    with torch.no_grad():
        return [tensor.detach().cpu().numpy() for tensor in _tensors(call(layer, *_on_its_device(layer, inputs)))]


def _on_its_device(layer: Any, inputs: list[Any]) -> list[torch.Tensor]:
    device = next((tensor.device for tensor in (*layer.parameters(), *layer.buffers())), torch.device("cpu"))
    return [torch.from_numpy(array).to(device) for array in inputs]


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
        return
    if dataclasses.is_dataclass(value) and not isinstance(value, Mapping):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    for part in value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ():
        yield from _tensors(part)


class Layer(torch.nn.Module):
    """A layer of tensors alone, as an exporter takes it."""

    def __init__(self, layer: Any, call: Callable[..., Any]) -> None:
        super().__init__()
        self.layer = layer
        self._call = call
        self.training = False

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the layer's tensors, flat."""
        return tuple(_tensors(self._call(self.layer, *tensors)))


def _batched(tensors: list[torch.Tensor]) -> list[bool]:
    """Return of which tensors the first axis is the batch, to be dynamic: a size of 1 is taken for a constant."""
    size = next((len(tensor) for tensor in tensors if tensor.dim()), 1)
    return [bool(tensor.dim()) and len(tensor) == size > 1 for tensor in tensors]


def export_dynamo(layer: Any, call: Callable[..., Any], inputs: list[Any], path: str) -> None:
    """Write the graph that torch.onnx.export makes by way of torch.export; the batch is dynamic where torch lets it be."""
    tensors = _on_its_device(layer, inputs)
    batch = torch.export.Dim("batch")
    dynamic = tuple({0: batch} if batched else None for batched in _batched(tensors))

    def exported(**options: Any) -> Any:
        return torch.onnx.export(
            Layer(layer, call),
            tuple(tensors),
            dynamo=True,
            input_names=[f"input_{k}" for k in range(len(tensors))],
            verbose=False,
            **options,
        )

    try:
        program = exported(dynamic_shapes=(dynamic,)) if any(dynamic) else exported()
    except Exception:
        if not any(dynamic):
            raise
        program = exported()
    program.save(path)


def export_torchscript(layer: Any, call: Callable[..., Any], inputs: list[Any], path: str) -> None:
    """Write the graph that torch.onnx.export makes by tracing; the batch is dynamic."""
    tensors = _on_its_device(layer, inputs)
    names = [f"input_{k}" for k in range(len(tensors))]
    dynamic = {name: {0: "batch"} for name, batched in zip(names, _batched(tensors), strict=True) if batched}
    torch.onnx.export(Layer(layer, call), tuple(tensors), path, dynamo=False, dynamic_axes=dynamic, input_names=names)
