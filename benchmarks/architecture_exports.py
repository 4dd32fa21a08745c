"""Exports of an architecture to ONNX by its framework alone, as in a script of its user; a process of its own for each.

python -m benchmarks.architecture_exports resnet torch-dynamo resnet.onnx
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import click

from benchmarks.architecture_models import ARCHITECTURES, FAULTY

if TYPE_CHECKING:
    from collections.abc import Callable

MODES = ("evaluation", "training", "dropout")
"""As trained models are shipped; all layers in training mode; Dropout alone, which somebody forgot."""


def torch_dynamo(built: tuple[Any, Any], path: str, mode: str) -> None:
    """Write what `torch.onnx.export` gives by way of torch.export; the first axis is dynamic where it may be."""
    import torch

    module, example = _in_mode(built, mode)
    keywords = example if isinstance(example, dict) else {}
    program: Any = torch.onnx.export(
        module, () if keywords else tuple(example), kwargs=keywords or None, dynamo=True, verbose=False
    )
    program.save(path)


def torch_torchscript(built: tuple[Any, Any], path: str, mode: str) -> None:
    """Write what `torch.onnx.export` gives by tracing; first and second axes of whole numbers are dynamic: batch and length."""
    import torch

    module, example = _in_mode(built, mode)
    names = list(example) if isinstance(example, dict) else [f"input_{i}" for i in range(len(example))]
    tensors = tuple(example.values()) if isinstance(example, dict) else tuple(example)
    dynamic = {
        name: {0: "batch"} if tensor.is_floating_point() else {0: "batch", 1: "length"}
        for name, tensor in zip(names, tensors, strict=True)
    }
    torch.onnx.export(
        _positional(module, names) if isinstance(example, dict) else module,
        tensors,
        path,
        dynamo=False,
        input_names=names,
        dynamic_axes=dynamic,
        training=torch.onnx.TrainingMode.EVAL if mode == "evaluation" else torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=mode == "evaluation",
    )


def tf2onnx(built: tuple[Any, Any], path: str, mode: str) -> None:
    """Write what tf2onnx makes of the function that calls the model."""
    import tensorflow as tf
    import tf2onnx as exporter

    model, _ = built
    signature = [tf.TensorSpec((None, *each.shape[1:]), each.dtype, each.name) for each in model.inputs]

    def call(*inputs: Any) -> Any:
        return model(inputs if len(inputs) > 1 else inputs[0], training=mode == "training")

    function = tf.function(call, input_signature=signature)
    exporter.convert.from_function(function, signature, opset=18, output_path=path)


def _positional(module: Any, names: list[str]) -> Any:
    """Return a module of tensors by place, as tracing has them, that calls `module` by name."""
    import torch

    class Positional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: Any) -> Any:
            return self.module(**dict(zip(names, tensors, strict=True)))

    return Positional()


def _in_mode(built: tuple[Any, Any], mode: str) -> tuple[Any, Any]:
    import torch

    module, example = built
    for layer in module.modules():
        if mode == "training" or (mode == "dropout" and isinstance(layer, torch.nn.Dropout)):
            layer.train()
    return module, example


EXPORTERS: dict[str, Callable[[tuple[Any, Any], str, str], None]] = {
    "torch-dynamo": torch_dynamo,
    "torch-torchscript": torch_torchscript,
    "tf2onnx": tf2onnx,
}


BUILDERS = {each.name: each for each in (*ARCHITECTURES, FAULTY)}


@click.command()
@click.argument("name", type=click.Choice(list(BUILDERS)))
@click.argument("exporter", type=click.Choice(list(EXPORTERS)))
@click.argument("path")
@click.option("--mode", type=click.Choice(MODES), default="evaluation")
def main(name: str, exporter: str, path: str, mode: str) -> None:
    """Write the architecture NAME as ONNX to PATH."""
    factory = getattr(importlib.import_module(f"benchmarks.{BUILDERS[name].module}"), name)
    EXPORTERS[exporter](factory(), path, mode)


if __name__ == "__main__":
    main()
