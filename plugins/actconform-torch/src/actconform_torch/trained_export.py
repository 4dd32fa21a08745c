"""A user's trained model as an ONNX graph, by torch.onnx.export as its users call it: the batch dynamic where torch lets it be."""

from __future__ import annotations

import copy
import itertools
import logging
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import onnx
import torch
from torch.utils import _pytree as pytree

from actconform import Artifact, SourceError, Unsupported
from actconform.plugin.framework import exported
from actconform.types.trained import RunMode
from actconform_torch.export_refusal import refusal_of_export
from actconform_torch.failed_layer import failed_layer
from actconform_torch.module_state import as_for_call
from actconform_torch.trained_call import output_tensors
from actconform_torch.trained_model import TRAINING_SEED, TorchTrainedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from actconform import TrainedModel
    from actconform.types import Bundle

    Export = Callable[["TrainedCall", Mapping[str, int]], Artifact]

BATCH = "batch"
# Errors about an operator, which another shape does not mend.
OF_OPERATORS = ("DispatchError", "UnsupportedOperatorError")


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
    """Return the graph that torch.export and torch.onnx make; raise `Unsupported` in their words, naming the layer."""
    # It says at every export that torchvision's operators are not there: nothing about the graph.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    return _exported(model, inputs, _dynamo, training=training, flattens=False)


def exported_torchscript(model: TrainedModel, inputs: Bundle, *, training: bool) -> Artifact:
    """Return the graph that TorchScript's tracing makes; raise `Unsupported` in its words, naming the layer."""
    return _exported(model, inputs, _torchscript, training=training, flattens=True)


def _exported(model: TrainedModel, inputs: Bundle, export: Export, *, training: bool, flattens: bool) -> Artifact:
    """Return the graph of the first attempt that succeeds; raise what the first one raised where none does."""
    if not isinstance(model, TorchTrainedModel):
        raise TypeError(f"export_trained got a {type(model).__qualname__}: wanted what open_trained of torch gave")
    module = copy.deepcopy(model.module) if model.scripted else model.module
    failure: Exception | None = None
    with as_for_call(module, RunMode(training=training), TRAINING_SEED):
        for attempt in _attempts(model.input_tensors(inputs), flattens=flattens):
            try:
                artifact = export(_call(model, module, attempt), attempt.batched)
            except Exception as error:  # whatever an exporter raises has no common base
                if isinstance(error, MemoryError | SourceError):
                    raise
                failure = failure or error
                if _is_of_operator(error):
                    break
                continue
            if failure is None:
                return artifact
            note = f"{attempt.note}: otherwise the export fails: {refusal_of_export(failure)}"
            return msgspec.structs.replace(artifact, warnings=(*artifact.warnings, note))
        if failure is None:
            raise RuntimeError("nothing was tried")
        refusal, layer = refusal_of_export(failure), failed_layer(failure, module)
    raise Unsupported(f"{refusal} (in layer {layer})") if isinstance(refusal, Unsupported) and layer else refusal


def _is_of_operator(error: BaseException | None) -> bool:
    return error is not None and (type(error).__name__ in OF_OPERATORS or _is_of_operator(error.__cause__))


class Attempt(NamedTuple):
    """One way to export: with which tensors, which of them with a dynamic batch, and whether by way of a module of tensors alone."""

    tensors: dict[str, torch.Tensor]
    batched: dict[str, int]
    """By name the axis of each input that is the batch, to be dynamic."""
    flat: bool
    note: str


def _attempts(tensors: dict[str, torch.Tensor], *, flattens: bool) -> Iterator[Attempt]:
    """Yield as users call it first, then with less: a module of positional tensors, then a fixed batch."""
    batches = [axes for axes in (_batched(tensors, 2), _batched(tensors, 1)) if axes]
    wrapped = "exported by way of a module that takes the inputs in order and hands them on by name"
    for axes in (*list(itertools.compress(batches, (True, batches[:1] != batches[1:]))), {}):
        doubled = {  # a size of 1 is taken for a constant
            name: torch.cat([tensor, tensor], axes[name]) if name in axes and tensor.shape[axes[name]] == 1 else tensor
            for name, tensor in tensors.items()
        }
        yield Attempt(
            doubled, axes, flat=False, note="the batch of some inputs is fixed" if axes else "the batch is fixed"
        )
        if flattens:
            yield Attempt(doubled, axes, flat=True, note=wrapped if axes else f"{wrapped}, and with a fixed batch")


def _call(model: TorchTrainedModel, module: torch.nn.Module, attempt: Attempt) -> TrainedCall:
    """Return the call, by way of a module of flat tensors where torch knows no way into the model's own inputs or outputs."""
    tensors = attempt.tensors
    args, kwargs = model.call.bound(tensors)
    names = {id(tensor): name for name, tensor in tensors.items()}
    leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    with torch.no_grad():
        result = module(*copy.deepcopy(args), **copy.deepcopy(kwargs))
    outputs = output_tensors(result)
    results = pytree.tree_leaves(result)
    plain = [id(leaf) for leaf in results if leaf is not None] == [id(tensor) for tensor in outputs.values()]
    if plain and not attempt.flat and all(id(leaf) in names for leaf in leaves) and len(leaves) == len(tensors):
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
        self.training = getattr(model, "training", False)  # a frozen module of TorchScript has no such flag

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        args, kwargs = self._bound(dict(zip(self._names, tensors, strict=True)))
        return tuple(output_tensors(self.model(*args, **kwargs)).values())


def _batched(tensors: Mapping[str, torch.Tensor], axes: int) -> dict[str, int]:
    """Return by name which of the first `axes` axes of an input is the batch: it has the size of the first input's first axis."""
    size = next((tensor.shape[0] for tensor in tensors.values() if tensor.dim()), None)
    places = {name: list(tensor.shape[:axes]) for name, tensor in tensors.items()}
    return {name: sizes.index(size) for name, sizes in places.items() if size in sizes}


def _dynamo(call: TrainedCall, batched: Mapping[str, int]) -> Artifact:
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
    notes = _fixed(proto.graph, batched)
    return Artifact(proto.SerializeToString(), opset, "dynamo", notes, ir_version=proto.ir_version)


def _fixed(graph: Any, batched: Mapping[str, int]) -> tuple[str, ...]:
    """Return a note where the exporter made the batch of an input a constant, though it was asked for a dynamic one."""
    dims = {entry.name: entry.type.tensor_type.shape.dim for entry in graph.input}
    fixed = [name for name, axis in batched.items() if name in dims and dims[name][axis].HasField("dim_value")]
    return (f"the exporter fixed the batch of {', '.join(fixed)}",) if fixed else ()


def _dynamic_shapes(call: TrainedCall, batched: Mapping[str, int]) -> Any:
    """Return for every tensor among the arguments its dynamic axes, in their structure."""
    batch = torch.export.Dim(BATCH)
    order = iter(call.inputs)

    def axes(leaf: object) -> Any:
        axis = batched.get(next(order)) if isinstance(leaf, torch.Tensor) else None
        return None if axis is None else {axis: batch}

    args, kwargs = pytree.tree_map(axes, (call.args, call.kwargs))
    if not call.parameters and not call.kwargs:
        return (tuple(args),)  # of *tensors: one tuple
    return {**dict(zip(call.parameters, args, strict=True)), **kwargs}


def _torchscript(call: TrainedCall, batched: Mapping[str, int]) -> Artifact:
    written, modes = BytesIO(), torch.onnx.TrainingMode
    torch.onnx.export(
        call.module,
        call.args,
        written,
        kwargs=call.kwargs or None,  # of an empty dict it makes arguments that forward does not get otherwise
        dynamo=False,
        dynamic_axes={name: {axis: BATCH} for name, axis in batched.items()},
        input_names=list(call.inputs),
        output_names=list(call.outputs),
        # By default it exports in inference mode whatever the module's own.
        training=modes.PRESERVE if call.module.training else modes.EVAL,
    )
    artifact = exported(written.getvalue(), "torchscript")
    notes = _fixed(onnx.load_model_from_string(artifact.model).graph, batched)
    return msgspec.structs.replace(artifact, warnings=notes)
