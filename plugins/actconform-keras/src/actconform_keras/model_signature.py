"""What a Keras model takes and gives: its inputs by name, how they are passed, and the names of its outputs."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from actconform import SourceError
from actconform.errors import near
from actconform.text import one_line
from actconform.types.trained import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import keras
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

_CONTEXT = ("training", "mask")  # what Keras itself passes


def expect_inputs(arrays: Arrays, specs: Sequence[TensorSpec]) -> None:
    """Raise SourceError for a name that is no input of the model, and for an input that is missing."""
    names = [spec.name for spec in specs]
    for name in arrays:
        if name not in names:
            raise SourceError(f"the model has no input {one_line(name)}{near(name, names)}")
    if missing := [name for name in names if name not in arrays]:
        raise SourceError(f"no array for input {', '.join(map(one_line, missing))}")


class Signature(NamedTuple):
    """The inputs of a model, in its order, and how it is called with them."""

    specs: tuple[TensorSpec, ...]
    args: Any
    """Positional arguments, with names of inputs in place of tensors."""
    kwargs: Any
    example: dict[str, NDArray[Any]]

    def arguments(self, values: Mapping[str, Any]) -> tuple[Any, Any]:
        """Return positional and keyword arguments, with values of inputs in place of their names."""
        import keras

        args, kwargs = keras.tree.map_structure(lambda name: values[name], (self.args, self.kwargs))
        return args, kwargs

    def checked(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """Return the inputs in order, floats in the dtype of the model's. Raises SourceError for a wrong name or kind."""
        expect_inputs(arrays, self.specs)
        return {spec.name: np.asarray(arrays[spec.name]) for spec in self.specs}


def signature_of(model: keras.Model, example: object | None, text: str) -> Signature:
    """Return what a model takes: of a functional or sequential one as it says, else as the example inputs are.

    Raises SourceError where neither is there, and where an example does not fit; `text` is what the user named.
    """
    symbols = _symbols(model)
    if symbols is not None:
        return _of_symbols(symbols, example, text)
    if example is None:
        raise SourceError(
            f"{text} gives a {type(model).__name__}, which does not say what it takes: give (model, inputs), with inputs as "
            "an array, a list, a tuple or a dict"
        )
    return _of_example(model, example, text)


def output_names(model: keras.Model, outputs: Any) -> list[tuple[str, Any]]:
    """Return the tensors of what a model gave, with their names: keys, of a functional model those that it has, else output_0 and on."""
    flat = _named(outputs, "")
    keyed = isinstance(outputs, dict) or any(name for name, _ in flat if not name.replace("_", "").isdigit())
    if not keyed:
        names = getattr(functional_of(model), "output_names", None)
        if not names or len(names) != len(flat) or len(set(names)) != len(names):
            names = [f"output_{place}" for place in range(len(flat))]
        flat = [(name, tensor) for name, (_, tensor) in zip(names, flat, strict=True)]
    return [(name, tensor) for name, tensor in flat if tensor is not None]


def functional_of(model: keras.Model) -> keras.Model:
    """Return the functional model within a sequential one, and any other model itself."""
    return getattr(model, "_functional", None) or model


def _symbols(model: keras.Model) -> Any:
    """Return the symbolic inputs of a functional or sequential model in their structure; None of others."""
    import keras

    if isinstance(model, keras.Sequential):
        symbols = model.inputs if model.built else None
        return symbols[0] if symbols and len(symbols) == 1 else symbols
    return getattr(model, "_inputs_struct", None)


def _of_symbols(symbols: Any, example: object | None, text: str) -> Signature:
    import keras

    flat = keras.tree.flatten(symbols)
    specs = tuple(TensorSpec(symbol.name, symbol.dtype, tuple(symbol.shape)) for symbol in flat)
    names = keras.tree.map_structure(lambda symbol: symbol.name, symbols)
    arrays: dict[str, NDArray[Any]] = {}
    if example is not None:
        arguments = _arrays(example, text)
        if isinstance(arguments, dict) and set(arguments) == {spec.name for spec in specs}:
            arrays = {spec.name: arguments[spec.name] for spec in specs}
        else:
            leaves = keras.tree.flatten(arguments)
            if isinstance(arguments, dict) and isinstance(symbols, dict) and set(arguments) != set(symbols):
                raise SourceError(f"{text} gives inputs {', '.join(arguments)}: the model takes {', '.join(symbols)}")
            if len(leaves) != len(specs):
                raise SourceError(
                    f"{text} gives {len(leaves)} example inputs: the model takes {len(specs)} ({', '.join(spec.name for spec in specs)})"
                )
            arrays = dict(zip([spec.name for spec in specs], leaves, strict=True))
        for spec in specs:
            arrays[spec.name] = _of_dtype(arrays[spec.name], spec.dtype)
    return Signature(specs, (names,), {}, arrays)


def _of_example(model: keras.Model, example: object, text: str) -> Signature:
    arguments = _arrays(example, text)
    parameters = [
        parameter
        for parameter in inspect.signature(model.call).parameters.values()
        if parameter.name not in _CONTEXT and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    names = [parameter.name for parameter in parameters]
    first = names[0] if names else "inputs"
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = {}
    if isinstance(arguments, dict) and names and set(arguments) <= set(names):
        args, kwargs = (), arguments
        labels: Any = ((), {name: _labels(value, name) for name, value in arguments.items()})
    elif isinstance(arguments, tuple) and (len(arguments) == 1 or len(names) > 1):
        if len(arguments) > len(names):
            raise SourceError(f"{text} gives {len(arguments)} inputs: call takes {', '.join(names)}")
        args = arguments
        labels = (tuple(_labels(value, name) for name, value in zip(names, arguments, strict=False)), {})
    else:
        args = (arguments,)
        labels = ((_labels(arguments, "" if isinstance(arguments, dict) else first),), {})
    named = [
        name for _, name in _named(labels, "")
    ]  # in the order of the model, where Keras would sort the keys of a dict
    arrays = dict(zip(named, [array for _, array in _named((args, kwargs), "")], strict=True))
    specs = tuple(
        TensorSpec(name, array.dtype.name, tuple([None, *array.shape[1:]][: array.ndim]))
        for name, array in arrays.items()
    )
    return Signature(specs, labels[0], labels[1], arrays)


def _labels(value: Any, prefix: str) -> Any:
    """Return a structure like `value`, with a name in place of each array."""
    if isinstance(value, dict):
        return {key: _labels(part, f"{prefix}.{key}" if prefix else str(key)) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_labels(part, f"{prefix}_{place}") for place, part in enumerate(value))
    return prefix


def _named(value: Any, prefix: str) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        parts = [(f"{prefix}.{key}" if prefix else str(key), part) for key, part in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(f"{prefix}_{place}" if prefix else str(place), part) for place, part in enumerate(value)]
    else:
        return [(prefix, value)]
    return [leaf for name, part in parts for leaf in _named(part, name)]


def _arrays(example: object, text: str) -> Any:
    """Return example inputs with arrays in place of tensors and lists of numbers. Raises SourceError for what is none."""
    if isinstance(example, dict):
        return {str(key): _arrays(part, text) for key, part in example.items()}
    if isinstance(example, tuple) or (isinstance(example, list) and any(hasattr(part, "shape") for part in example)):
        return type(example)(_arrays(part, text) for part in example)
    try:
        array = np.asarray(example)
    except Exception as error:
        raise SourceError(
            f"{text}: example inputs of {type(example).__name__} are no array: {one_line(str(error))}"
        ) from error
    if array.dtype.kind not in "biufSUV" or array.dtype.names:
        raise SourceError(f"{text}: example inputs of {type(example).__name__} are no array of numbers")
    return array.astype(np.float32) if array.dtype == np.float64 and not hasattr(example, "dtype") else array


def _of_dtype(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    import ml_dtypes

    wanted = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else "str" if dtype == "string" else dtype)
    return array if array.dtype == wanted or dtype == "string" else array.astype(wanted)
