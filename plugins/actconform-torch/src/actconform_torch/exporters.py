"""torch.onnx.export as exporters: by way of torch.export, and by TorchScript's tracing."""

from __future__ import annotations

import logging
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from actconform import Artifact, Exporter
from actconform.plugin.framework import exported
from actconform.plugin.import_failure import imported
from actconform.types.model import LOSS, OUTPUT
from actconform_torch.export_refusal import refusal_of_export
from actconform_torch.kernels import implement
from actconform_torch.models import Network
from actconform_torch.torch_module import import_torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor
    from torch.nn import Module

    from actconform import Kernel, Model, TrainedModel
    from actconform.types import Bundle

TORCH_DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}

INSTALL = 'pip install "actconform[torch]"'

# The sizes exported at: none is 0 or 1, which exporters take for constants, no two are equal, n can be halved.
SIZES = {"b": 5, "n": 6, "m": 3}

_FUNCTION = """import functools

import torch

FUNCTION = $function


class Function(torch.nn.Module):
    def forward(self, x):
        return FUNCTION(x)


"""
DYNAMO = (
    _FUNCTION
    + """def export(path):
    x = torch.zeros(6, dtype=torch.$dtype)
    shapes = ({0: torch.export.Dim("n")},)
    program = torch.onnx.export(
        Function().eval(), (x,), dynamo=True, dynamic_shapes=shapes, input_names=["x"], output_names=["y"], verbose=False
    )
    program.save(path)
"""
)
TORCHSCRIPT = (
    _FUNCTION
    + """def export(path):
    x = torch.zeros(6, dtype=torch.$dtype)
    torch.onnx.export(
        Function().eval(), (x,), path, dynamo=False, dynamic_axes={"x": {0: "n"}}, input_names=["x"], output_names=["y"]
    )
"""
)


class TorchDynamo(Exporter):
    """`torch.onnx.export(dynamo=True)` at its default opset, every dimension a `torch.export.Dim`."""

    name: ClassVar[str] = "torch-dynamo"
    source: ClassVar[str] = "torch"

    @classmethod
    def reproduction(cls) -> str:
        return DYNAMO

    @classmethod
    def layer_reproduction(cls) -> str:
        return _layer_program("export_dynamo")

    def export(self, kernel: Kernel, dtype: str) -> Artifact:
        return _dynamo(_kernel_call(kernel, dtype))

    def export_model(self, model: Model, dtype: str, constants: Bundle | None) -> Artifact:
        return _dynamo(_model_call(model, dtype, constants))

    def export_trained(self, model: TrainedModel, inputs: Bundle, *, training: bool = False) -> Artifact:
        return _export_trained("exported_dynamo", model, inputs, training=training)


class TorchScript(Exporter):
    """`torch.onnx.export(dynamo=False)` at its default opset, every dimension in `dynamic_axes`."""

    name: ClassVar[str] = "torch-torchscript"
    source: ClassVar[str] = "torch"

    @classmethod
    def reproduction(cls) -> str:
        return TORCHSCRIPT

    @classmethod
    def layer_reproduction(cls) -> str:
        return _layer_program("export_torchscript")

    def export(self, kernel: Kernel, dtype: str) -> Artifact:
        return _torchscript(_kernel_call(kernel, dtype))

    def export_model(self, model: Model, dtype: str, constants: Bundle | None) -> Artifact:
        return _torchscript(_model_call(model, dtype, constants))

    def export_trained(self, model: TrainedModel, inputs: Bundle, *, training: bool = False) -> Artifact:
        return _export_trained("exported_torchscript", model, inputs, training=training)


class Call(NamedTuple):
    """What is exported: a module of *tensors, samples of them, by input the names of its dynamic axes, its outputs' names."""

    module: Module
    samples: tuple[Tensor, ...]
    dynamic: dict[str, dict[int, str]]
    outputs: tuple[str, ...]


def _layer_program(function: str) -> str:
    text = Path(__file__).with_name("layer_standalone.py").read_text(encoding="utf-8")
    return f"{text}\n\nexport_layer = {function}\n"


def _export_trained(function: str, model: TrainedModel, inputs: Bundle, *, training: bool) -> Artifact:
    import_torch()
    imported("onnxscript", INSTALL, plugin="actconform-torch")
    from actconform_torch import trained_export  # it imports torch

    artifact: Artifact = getattr(trained_export, function)(model, inputs, training=training)
    return artifact


def _dynamo(call: Call) -> Artifact:
    torch = import_torch()
    # What torch lacks without it shows only in the midst of an export.
    imported("onnxscript", INSTALL, plugin="actconform-torch")
    # It says at every export that torchvision's operators are not there: nothing about the graph.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    dims = {name: torch.export.Dim(name) for axes in call.dynamic.values() for name in axes.values()}
    shapes = tuple({axis: dims[name] for axis, name in axes.items()} for axes in call.dynamic.values())
    try:
        program = torch.onnx.export(
            call.module,
            call.samples,
            dynamo=True,
            dynamic_shapes=(shapes,),  # of *tensors: one tuple
            input_names=list(call.dynamic),
            output_names=list(call.outputs),
            verbose=False,
        )
        model = program.model_proto.SerializeToString()
    except Exception as error:
        raise refusal_of_export(error) from error
    return exported(model, "dynamo")


def _torchscript(call: Call) -> Artifact:
    torch = import_torch()
    written = BytesIO()
    try:
        torch.onnx.export(
            call.module,
            call.samples,
            written,
            dynamo=False,
            dynamic_axes={name: axes for name, axes in call.dynamic.items() if axes},
            input_names=list(call.dynamic),
            output_names=list(call.outputs),
            # By default it exports in inference mode whatever the module's own.
            training=torch.onnx.TrainingMode.PRESERVE,
        )
    except Exception as error:
        raise refusal_of_export(error) from error
    return exported(written.getvalue(), "torchscript")


def _kernel_call(kernel: Kernel, dtype: str) -> Call:
    function: Callable[..., Tensor] = implement(kernel).function
    samples = tuple(_sample([SIZES[dim] for dim in kernel.dims(name)], dtype) for name in kernel.inputs)
    dynamic = {name: dict(enumerate(kernel.dims(name))) for name in kernel.inputs}
    return Call(_module(function).eval(), samples, dynamic, ("y",))


def _model_call(model: Model, dtype: str, constants: Bundle | None) -> Call:
    """Return a model as its users export it: parameters as inputs for the sake of gradients, or folded in, as they ship it."""
    network = Network(model)
    inputs = [tensor for tensor in model.inputs if constants is None or tensor.role != "target"]
    dynamic: dict[str, dict[int, str]] = {tensor.name: {0: "batch"} for tensor in inputs}
    samples = [_sample([SIZES["b"], *tensor.shape], dtype) for tensor in inputs]
    if constants is not None:
        return Call(network.shipped(constants), tuple(samples), dynamic, (OUTPUT,))
    dynamic |= {tensor.name: {} for tensor in model.parameters}
    samples += [_sample(tensor.shape, dtype) for tensor in model.parameters]

    def values(*tensors: Tensor) -> tuple[Tensor, ...]:
        values = network(dict(zip(dynamic, tensors, strict=True)))
        return values[model.output], values[LOSS], *values.values()

    outputs = (OUTPUT, LOSS, *(f"layer.{layer.name}" for layer in model.layers))
    return Call(_module(values).train(model.training), tuple(samples), dynamic, outputs)


def _module(function: Callable[..., Any]) -> Module:
    torch = import_torch()

    class Wrapped(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, *tensors: Tensor) -> Any:
            return function(*tensors)

    return Wrapped()


def _sample(shape: Sequence[int], dtype: str) -> Tensor:
    torch = import_torch()
    zeros: Tensor = torch.zeros(tuple(shape), dtype=getattr(torch, TORCH_DTYPES[dtype]))
    return zeros
