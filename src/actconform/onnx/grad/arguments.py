"""The arguments of `add_gradients`: tensors to differentiate by, outputs to start from, and dimensions of inputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from onnx import TensorProto

from actconform.errors import GradientError, near
from actconform.onnx.constants import FLOATS
from actconform.text import number_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx


def fix_shapes(graph: onnx.GraphProto, shapes: Mapping[str, Sequence[int]]) -> None:
    """Give inputs of `graph` the dimensions of `shapes`, and every dimension of the same symbol its number.

    Raises GradientError where a name is no input, or its dimensions cannot be those.
    """
    inputs = {value.name: value for value in graph.input}
    symbols: dict[str, int] = {}
    for name, shape in shapes.items():
        if name not in inputs:
            raise GradientError(f"shapes: the model has no input {name!r}{_near(name, inputs)}")
        _fix(inputs[name], shape, symbols)
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in symbols:
                dim.dim_value = symbols[dim.dim_param]


def _fix(value: onnx.ValueInfoProto, shape: Sequence[int], symbols: dict[str, int]) -> None:
    """Give an input its dimensions, and note in `symbols` what its symbols stand for."""
    described = value.type.tensor_type
    if not described.HasField("shape"):
        described.shape.SetInParent()
        for _ in shape:
            described.shape.dim.add()
    dims = described.shape.dim
    if len(dims) != len(shape):
        raise GradientError(f"shapes: {value.name!r} has {number_of(len(dims), 'dimension')}, not {len(shape)}")
    for axis, (dim, size) in enumerate(zip(dims, shape, strict=True)):
        stated = dim.dim_value if dim.HasField("dim_value") else symbols.get(dim.dim_param, size)
        if size < 0 or stated != size:
            expected = "0 or more is expected" if size < 0 else f"it is {stated} already"
            raise GradientError(f"shapes: dimension {axis} of {value.name!r} cannot be {size}: {expected}")
        if dim.dim_param:
            symbols[dim.dim_param] = size
        dim.dim_value = size


def wanted_tensors(model: onnx.ModelProto, graph: onnx.GraphProto, wrt: Sequence[str] | None) -> list[str]:
    """Return the names of `wrt`, each once, by default of all float inputs of `model`.

    They are float inputs or initializers of `graph`, its copy without large tensors. Raises GradientError where one is not, or there is none;
    TypeError where they are no strings.
    """
    types = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    if wrt is None:
        initializers = {tensor.name for tensor in model.graph.initializer}
        names = [
            value.name for value in model.graph.input if value.name not in initializers and types[value.name] in FLOATS
        ]
        if not names:
            raise GradientError(
                "there is no input of floats to differentiate by: name initializers of the model as wrt"
            )
        return names
    names = _strings("wrt", wrt)
    if not names:
        raise GradientError("wrt is empty: name inputs or initializers of the model")
    for name in names:
        if name not in types:
            raise GradientError(f"wrt: the model has no input or initializer {name!r}{_near(name, types)}")
        if types[name] not in FLOATS:
            raise GradientError(f"wrt: {name!r} is {_spelled(types[name])}; only tensors of floats have gradients")
    return names


def chosen_outputs(graph: onnx.GraphProto, outputs: Sequence[str] | None) -> list[str]:
    """Return the names of `outputs`, each once, by default of all float outputs; they are float outputs of `graph`.

    Raises GradientError where one is not, or there is none; TypeError where they are no strings.
    """
    types = {value.name: value.type.tensor_type.elem_type for value in graph.output}
    if not types:
        raise GradientError("the model has no outputs, so that there is nothing to differentiate")
    if outputs is None:
        names = [name for name, element_type in types.items() if element_type in FLOATS]
        if not names:
            raise GradientError(f"there is no output of floats to start from; the model's outputs: {', '.join(types)}")
        return names
    names = _strings("outputs", outputs)
    if not names:
        raise GradientError(
            f"outputs is empty: name outputs of the model ({', '.join(types)}), or leave it out for all"
        )
    for name in names:
        if name not in types:
            raise GradientError(f"the model has no output {name!r}{_near(name, types)}")
        if types[name] not in FLOATS:
            raise GradientError(f"output {name!r} is {_spelled(types[name])}; only tensors of floats have gradients")
    return names


def _strings(argument: str, strings: object) -> list[str]:
    """Return the names in `strings`, each once; a single one may come as a string."""
    names: list[Any] = [strings] if isinstance(strings, str) or not isinstance(strings, Iterable) else list(strings)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{argument}: names of tensors are expected, not {name!r} of type {type(name).__name__}")
    return list(dict.fromkeys(names))


def _near(name: str, names: Iterable[str]) -> str:
    same = sorted(each for each in names if each.casefold() == name.casefold())
    return f"; did you mean {', '.join(same)}?" if same else near(name, sorted(names))


def _spelled(element_type: int) -> str:
    return f"of {TensorProto.DataType.Name(element_type)}" if element_type else "no tensor"
