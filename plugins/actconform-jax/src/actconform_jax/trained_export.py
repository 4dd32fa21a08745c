"""A user's JAX model as an ONNX graph, by jax2onnx.to_onnx as its users call it: the batch dynamic where jax2onnx lets it be."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

import jax
import msgspec

from actconform import Artifact, SourceError, Unavailable, Unsupported
from actconform.plugin.framework import error_line, exported
from actconform.types.trained import RunMode
from actconform_jax.trained_call import output_arrays
from actconform_jax.trained_model import JaxTrainedModel
from actconform_jax.trained_weights import modules_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from actconform import TrainedModel
    from actconform.types import Bundle
    from actconform_jax.trained_weights import Array

BATCH = "batch"


def exported_trained(model: TrainedModel, inputs: Bundle, *, training: bool) -> Artifact:
    """Return the graph of the first attempt that succeeds; raise what the first one raised where none does."""
    if not isinstance(model, JaxTrainedModel):
        raise TypeError(f"export_trained got a {type(model).__qualname__}: wanted what open_trained of jax gave")
    mode = RunMode(training=training)
    tensors = model.input_arrays(inputs, mode)
    outputs = list(model.run(inputs, mode).outputs)
    called = model.in_mode(training=training)
    function = called if model.call.is_positional else _flat(called, model, list(tensors))
    failure: Exception | None = None
    for batched in _attempts(tensors):
        try:
            artifact = _converted(function, tensors, batched, outputs)
        except (MemoryError, SourceError, Unavailable):
            raise
        except Exception as error:  # noqa: BLE001  what the exporter raises has no common base
            failure = failure or error
            continue
        if failure is None:
            return artifact
        fixed = "the batch of some inputs is fixed" if batched else "the batch is fixed"
        note = f"{fixed}: otherwise the export fails: {error_line(failure)}"
        return msgspec.structs.replace(artifact, warnings=(*artifact.warnings, note))
    if failure is None:
        raise RuntimeError("nothing was tried")
    layer = _failed_layer(failure, called)
    raise Unsupported(error_line(failure) + (f" (in layer {layer})" if layer else "")) from failure


def _failed_layer(error: BaseException, called: Callable[..., Any]) -> str:
    """Return the path of the innermost module in whose code an error was raised; "" where it was in none."""
    paths = {id(module): path for path, module in modules_of(called)}
    holders = [id(frame.f_locals.get("self")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((paths[holder] for holder in reversed(holders) if paths.get(holder)), "")


def _flat(called: Callable[..., Any], model: JaxTrainedModel, names: list[str]) -> Callable[..., Any]:
    """Return the model as a function of arrays alone, in the order of `names`, that gives a tuple of arrays."""

    def function(*arrays: Array) -> tuple[Array, ...]:
        args, kwargs = model.call.bound(dict(zip(names, arrays, strict=True)))
        return tuple(output_arrays(called(*args, **kwargs)).values())

    return function


def _attempts(tensors: Mapping[str, Array]) -> Iterator[dict[str, int]]:
    """Yield by name which axis of each input is the batch, to be dynamic: of as many inputs as have one, then of none."""
    size = next((tensor.shape[0] for tensor in tensors.values() if tensor.ndim), None)
    before: list[dict[str, int]] = []
    for axes in (2, 1, 0):
        sizes = {name: list(tensor.shape[:axes]) for name, tensor in tensors.items()}
        batched = {name: first.index(size) for name, first in sizes.items() if size in first}
        if batched not in before:
            before.append(batched)
            yield batched


def _converted(
    function: Callable[..., Any], tensors: Mapping[str, Array], batched: Mapping[str, int], outputs: list[str]
) -> Artifact:
    specs = []
    for name, tensor in tensors.items():
        shape = [BATCH if axis == batched.get(name) else size for axis, size in enumerate(tensor.shape)]
        specs.append(jax.ShapeDtypeStruct(tuple(shape), tensor.dtype))
    wide = any(tensor.dtype == jax.numpy.float64 for tensor in tensors.values())
    options = {"enable_double_precision": True} if wide else {}
    try:
        import jax2onnx
    except ImportError as error:
        raise Unavailable(f'{error}: pip install "actconform-jax[export]"') from error
    proto = jax2onnx.to_onnx(function, specs, input_names=list(tensors), output_names=outputs, **options)
    dims = {entry.name: entry.type.tensor_type.shape.dim for entry in proto.graph.input}
    fixed = [name for name, axis in batched.items() if name in dims and dims[name][axis].HasField("dim_value")]
    notes = (f"the exporter fixed the batch of {', '.join(fixed)}",) if fixed else ()
    return msgspec.structs.replace(exported(proto.SerializeToString(), "to_onnx"), warnings=notes)
