"""A user's trained model as an ONNX graph, by torch.onnx.export as its users call it: the batch dynamic where torch lets it be."""

from __future__ import annotations

import copy
import logging
from collections import Counter
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import torch
from torch.utils import _pytree as pytree

from actconform import Artifact, SourceError
from actconform.plugin.framework import exported
from actconform.types.trained import RunMode
from actconform_torch.module_state import as_for_call
from actconform_torch.trained_call import output_tensors
from actconform_torch.trained_model import TRAINING_SEED, TorchTrainedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from actconform import TrainedModel
    from actconform.types import Bundle

BATCH = "batch"


class TrainedCall(NamedTuple):
    """What is exported: a module or program, its arguments, and the names of its tensors in the order in which the graph has them."""

    module: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: tuple[str, ...]
    """Names of the parameters of forward that `args` and `kwargs` are."""


def exported_dynamo(model: TrainedModel, inputs: Bundle, *, training: bool) -> Artifact:
    """Return the graph that torch.export and torch.onnx make; raise whatever they raise."""
    # It says at every export that torchvision's operators are not there: nothing about the graph.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    return _exported(model, inputs, _dynamo, training=training)


def exported_torchscript(model: TrainedModel, inputs: Bundle, *, training: bool) -> Artifact:
    """Return the graph that TorchScript's tracing makes; raise whatever it raises."""
    return _exported(model, inputs, _torchscript, training=training)


def _exported(
    model: TrainedModel, inputs: Bundle, export: Callable[[TrainedCall, set[str], bool], Artifact], *, training: bool
) -> Artifact:
    if not isinstance(model, TorchTrainedModel):
        raise TypeError(f"export_trained got a {type(model).__qualname__}: wanted what open_trained of torch gave")
    module = copy.deepcopy(model.module) if model.scripted else model.module
    with as_for_call(module, RunMode(training=training), TRAINING_SEED):
        tensors = model.input_tensors(inputs)
        batched = _batched(tensors)
        notes = []
        if batched and tensors[next(iter(batched))].shape[0] == 1:  # a size of 1 is taken for a constant
            tensors = {
                name: torch.cat([tensor, tensor]) if name in batched else tensor for name, tensor in tensors.items()
            }
        try:
            artifact = export(_call(model, module, tensors), batched, training)
        except Exception as error:  # whatever an exporter raises has no common base
            if isinstance(error, MemoryError | SourceError) or not batched:
                raise
            tensors = model.input_tensors(inputs)
            artifact = export(_call(model, module, tensors), set(), training)
            notes.append(f"the batch is fixed: with a dynamic one the export fails: {_first_line(error)}")
    return msgspec.structs.replace(artifact, warnings=(*artifact.warnings, *notes))


def _call(model: TorchTrainedModel, module: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> TrainedCall:
    """Return the call, by way of a module of flat tensors where torch knows no way into the model's own inputs or outputs."""
    args, kwargs = model.call.bound(tensors)
    names = {id(tensor): name for name, tensor in tensors.items()}
    leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    with torch.no_grad():
        result = module(*copy.deepcopy(args), **copy.deepcopy(kwargs))
    outputs = output_tensors(result)
    results = pytree.tree_leaves(result)
    plain = all(leaf is None or isinstance(leaf, torch.Tensor) for leaf in results)
    if plain and [id(leaf) for leaf in results if leaf is not None] == [id(tensor) for tensor in outputs.values()]:
        if [names.get(id(leaf)) for leaf in leaves] and len(leaves) == len(tensors):
            inputs = tuple(names[id(leaf)] for leaf in leaves)
            called = tuple(model.call.parameters[: len(args)])
            target = module if model.program is None else model.program
            return TrainedCall(target, args, kwargs, inputs, tuple(outputs), called)
    flat = _Flat(module, model, tuple(tensors))
    return TrainedCall(flat, tuple(tensors.values()), {}, tuple(tensors), tuple(outputs), ())


class _Flat(torch.nn.Module):
    """A model of tensors alone, in the order of `names`, that gives a tuple of tensors."""

    def __init__(self, model: torch.nn.Module, opened: TorchTrainedModel, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self._bound = opened.call.bound
        self._names = names
        self.training = model.training

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        args, kwargs = self._bound(dict(zip(self._names, tensors, strict=True)))
        return tuple(output_tensors(self.model(*args, **kwargs)).values())


def _batched(tensors: Mapping[str, torch.Tensor]) -> set[str]:
    """Return the names of the inputs whose first axis is the batch: those that share the size which most of them have there."""
    sizes = Counter(tensor.shape[0] for tensor in tensors.values() if tensor.dim())
    if not sizes:
        return set()
    size = sizes.most_common(1)[0][0]
    return {name for name, tensor in tensors.items() if tensor.dim() and tensor.shape[0] == size}


def _dynamo(call: TrainedCall, batched: set[str], training: bool) -> Artifact:
    del training  # the module is in the mode already
    options: dict[str, Any] = {}
    if batched and not isinstance(call.module, torch.export.ExportedProgram):
        options["dynamic_shapes"] = _dynamic_shapes(call, batched)
    program = torch.onnx.export(
        call.module,
        call.args,
        kwargs=call.kwargs,
        dynamo=True,
        input_names=list(call.inputs),
        output_names=list(call.outputs),
        verbose=False,
        **options,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    proto = program.model_proto
    opset = next(entry.version for entry in proto.opset_import if not entry.domain)
    return Artifact(proto.SerializeToString(), opset, "dynamo", ir_version=proto.ir_version)


def _dynamic_shapes(call: TrainedCall, batched: set[str]) -> Any:
    """Return for every tensor among the arguments its dynamic axes, in their structure."""
    batch = torch.export.Dim(BATCH)
    order = iter(call.inputs)

    def axes(leaf: object) -> Any:
        return ({0: batch} if next(order) in batched else None) if isinstance(leaf, torch.Tensor) else None

    args, kwargs = pytree.tree_map(axes, (call.args, call.kwargs))
    if not call.parameters and not call.kwargs:
        return (tuple(args),)  # of *tensors: one tuple
    return {**dict(zip(call.parameters, args, strict=True)), **kwargs}


def _torchscript(call: TrainedCall, batched: set[str], training: bool) -> Artifact:
    del training
    written = BytesIO()
    torch.onnx.export(
        call.module,
        call.args,
        written,
        kwargs=call.kwargs,
        dynamo=False,
        dynamic_axes={name: {0: BATCH} for name in batched},
        input_names=list(call.inputs),
        output_names=list(call.outputs),
        # By default it exports in inference mode whatever the module's own.
        training=torch.onnx.TrainingMode.PRESERVE,
    )
    return exported(written.getvalue(), "torchscript")


def _first_line(error: Exception) -> str:
    from actconform_torch.exporters import refusal_of_export

    return str(refusal_of_export(error))
