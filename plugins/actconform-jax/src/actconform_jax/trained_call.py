"""How a user's model is called: its inputs by name put into the arguments of the function, and its outputs given names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from actconform import SourceError
from actconform.errors import near
from actconform_jax.trained_weights import Array, is_array, is_key, path_name

if TYPE_CHECKING:
    from collections.abc import Iterator

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Call:
    """The arguments of a model, in which example inputs mark the places of the arrays.

    An array is named after its parameter; one within a pytree "PARAMETER.0", "PARAMETER.key". What the example has beside arrays (numbers,
    flags, keys of random numbers) is handed on at every call.
    """

    def __init__(self, signature: inspect.Signature, example: object = None) -> None:
        self._signature = signature
        self._arguments: dict[str, Any] = {}
        if example is not None:
            args, kwargs = self._arguments_of(example)
            try:
                self._arguments = dict(signature.bind(*args, **kwargs).arguments)
            except TypeError as error:
                takes = ", ".join(signature.parameters) or "none"
                raise SourceError(f"the example inputs do not fit the model: {error}; it takes {takes}") from None
        self.example: dict[str, Array] = dict(self._leaves())
        """The example's arrays by name, in the dtypes in which JAX takes them; empty without one."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs: those of the example, else the parameters without a default."""
        if self.example:
            return tuple(self.example)
        parameters = self._signature.parameters.values()
        return tuple(each.name for each in parameters if each.default is each.empty and each.kind not in _VARIADIC)

    @property
    def is_positional(self) -> bool:
        """Whether the example's arrays are all that the model takes, one for each of its first parameters."""
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        first = list(self._signature.parameters.values())[: len(self.example)]
        return list(self.example) == list(self._arguments) == [each.name for each in first if each.kind in kinds]

    def bound(self, tensors: Mapping[str, Array]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional and keyword arguments of a call; raise SourceError where a name is missing or is none of the model's."""
        left = dict(tensors)
        filled: dict[str, Any] = {}
        for name, parameter in self._signature.parameters.items():
            if name in self._arguments:
                if parameter.default is parameter.empty or not self._is_left_out(name, left):
                    filled[name] = self._filled(name, left)
            elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                filled[name] = tuple(left.pop(key) for key in list(left) if key.startswith(f"{name}."))
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                filled[name] = {key: left.pop(key) for key in list(left)}
            elif name in left:
                filled[name] = left.pop(name)
            elif parameter.default is parameter.empty:
                raise SourceError(f"no input {name!r}: the model takes {', '.join(self.names)}")
        if left:
            names = list(dict.fromkeys((*self.names, *self._signature.parameters)))
            name = next(iter(left))
            raise SourceError(f"the model takes no input {name!r}{near(name, names)}")
        arguments = inspect.BoundArguments(self._signature, filled)
        return arguments.args, dict(arguments.kwargs)

    def _arguments_of(self, example: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if isinstance(example, Mapping):
            keywords = {str(name): value for name, value in example.items()}
            kinds = [parameter.kind for parameter in self._signature.parameters.values()]
            one_dict = (
                len(kinds) == 1 and kinds[0] not in _VARIADIC and not set(keywords) <= set(self._signature.parameters)
            )
            return ((keywords,), {}) if one_dict else ((), keywords)
        return (tuple(example), {}) if isinstance(example, tuple | list) else ((example,), {})

    def _leaves(self) -> Iterator[tuple[str, Array]]:
        for name in self._arguments:
            for path, leaf in jax.tree_util.tree_flatten_with_path(self._arguments[name])[0]:
                if _is_input(leaf):
                    yield self._leaf_name(name, path), jax.numpy.asarray(leaf)

    def _leaf_name(self, name: str, path: tuple[Any, ...]) -> str:
        if self._signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            return path_name(path)
        return path_name(path, name)

    def _is_left_out(self, name: str, left: Mapping[str, Array]) -> bool:
        """Whether none of an optional argument's arrays is given: it keeps its default."""
        leaves = jax.tree_util.tree_flatten_with_path(self._arguments[name])[0]
        arrays = [self._leaf_name(name, path) for path, leaf in leaves if _is_input(leaf)]
        return bool(arrays) and not any(leaf in left for leaf in arrays)

    def _filled(self, name: str, left: dict[str, Array]) -> Any:
        leaves, structure = jax.tree_util.tree_flatten_with_path(self._arguments[name])
        values = []
        for path, leaf in leaves:
            place = self._leaf_name(name, path)
            if _is_input(leaf) and place not in left:
                raise SourceError(f"no input {place!r}, which the example inputs have")
            values.append(left.pop(place) if _is_input(leaf) else leaf)
        return jax.tree_util.tree_unflatten(structure, values)


def output_arrays(outputs: object) -> dict[str, Array]:
    """Return a model's outputs by name: "output"; of a tuple "output_0" and so on; of a dict its keys; nested ones joined by "."."""
    arrays = {}
    in_order = isinstance(outputs, tuple | list) and not hasattr(outputs, "_fields")
    for path, leaf in jax.tree_util.tree_flatten_with_path(outputs)[0]:
        if isinstance(leaf, bool | int | float | complex) or is_array(leaf):
            name = path_name(path)
            arrays[f"output_{name}" if in_order else name or "output"] = jax.numpy.asarray(leaf)
    return {name: array for name, array in arrays.items() if not is_key(array)}


def _is_input(leaf: object) -> bool:
    if is_array(leaf):
        return not is_key(leaf)
    return hasattr(leaf, "__array__") and np.asarray(leaf).dtype != object
