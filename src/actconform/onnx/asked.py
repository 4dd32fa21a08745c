"""What a caller asks gradients for: the names of tensors to differentiate by, and of outputs to start from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from onnx import TensorProto

from actconform.onnx.constants import FLOATS
from actconform.onnx.outline import GradientError
from actconform.spelling import near

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx


class NameTakenError(GradientError):
    """A cotangent or a gradient would be called as another tensor of the model is: `name`."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the name {name!r} is taken: choose other prefixes with cotangent= and gradient=")
        self.name = name


def wanted_tensors(model: onnx.ModelProto, wrt: Sequence[str]) -> list[str]:
    """Return the names of `wrt`, each once; they are float inputs or initializers of `model`.

    Raises GradientError where one is not, or there is none; TypeError where they are no strings.
    """
    names = _strings("wrt", wrt)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
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


def _strings(argument: str, given: object) -> list[str]:
    """Return the names given, each once; one alone may come as a string."""
    names: list[Any] = [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{argument}: names of tensors are expected, not {name!r} of type {type(name).__name__}")
    return list(dict.fromkeys(names))


def _near(name: str, known: Iterable[str]) -> str:
    same = sorted(each for each in known if each.casefold() == name.casefold())
    return f"; did you mean {', '.join(same)}?" if same else near(name, sorted(known))


def _spelled(element_type: int) -> str:
    return f"of {TensorProto.DataType.Name(element_type)}" if element_type else "no tensor"
