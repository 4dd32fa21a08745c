"""How a user's model is called: its inputs by name put into the arguments of `forward`, and its outputs given names."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from actconform import SourceError
from actconform.errors import near

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Tensors = Mapping[str, torch.Tensor]

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
DEEPEST = 8  # levels of objects within objects


class Call:
    """The arguments of `forward`, in which example inputs mark the places of the tensors.

    A tensor is named after its parameter; one within a tuple, list or dict "PARAMETER.0", "PARAMETER.key". What the example has beside tensors
    (numbers, None, flags) is handed on at every call.
    """

    def __init__(self, signature: inspect.Signature, example: object = None) -> None:
        self._signature = signature
        self._arguments: dict[str, Any] = {}
        if example is not None:
            args, kwargs = arguments_of(example)
            if kwargs and not self._takes_keywords(kwargs):
                args, kwargs = (kwargs,), {}  # a model of one dict
            try:
                self._arguments = dict(signature.bind(*args, **kwargs).arguments)
            except TypeError as error:
                takes = ", ".join(self.parameters) or "none"
                raise SourceError(f"the example inputs do not fit the model: {error}; forward takes {takes}") from None
        self.example: dict[str, torch.Tensor] = dict(_named(self._spread(self._arguments)))
        """The example's tensors by name; empty without one."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters of `forward`."""
        return tuple(self._signature.parameters)

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the parameters that have no default."""
        return tuple(
            name
            for name, parameter in self._signature.parameters.items()
            if parameter.default is parameter.empty and parameter.kind not in _VARIADIC
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs: those of the example, else the required parameters."""
        return tuple(self.example) or self.required

    def bound(self, tensors: Tensors) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional and keyword arguments of a call; raise SourceError where a name is missing or is none of the model's."""
        left = dict(tensors)
        filled: dict[str, Any] = {}
        for name, parameter in self._signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                extra = {key: _filled(each, key, left) for key, each in self._arguments.get(name, {}).items()}
                filled[name] = extra | {key: left.pop(key) for key in list(left) if "." not in key}
            elif parameter.kind is inspect.Parameter.VAR_POSITIONAL and name not in self._arguments:
                filled[name] = tuple(_nested(name, left) or ())
            elif name in self._arguments and self._is_given(name, left, parameter):
                filled[name] = _filled(self._arguments[name], name, left)
            elif name in left:
                filled[name] = left.pop(name)
            elif (built := _nested(name, left)) is not None:
                filled[name] = built
            elif name not in self._arguments and parameter.default is parameter.empty:
                raise SourceError(f"no input {name!r}: the model takes {', '.join(self.names)}")
        if left:
            names = [*self.names, *(name for name in self.parameters if name not in self.names)]
            name = next(iter(left))
            raise SourceError(f"the model takes no input {name!r}{near(name, names)}")
        return self._separated(filled)

    def _takes_keywords(self, keywords: Mapping[str, Any]) -> bool:
        kinds = [parameter.kind for parameter in self._signature.parameters.values()]
        return inspect.Parameter.VAR_KEYWORD in kinds or len(kinds) != 1 or set(keywords) <= set(self.parameters)

    def _is_given(self, name: str, left: Tensors, parameter: inspect.Parameter) -> bool:
        """Whether the example's structure is to be used: an optional input that is not given keeps its default."""
        leaves = [leaf for leaf, _ in flattened(self._arguments[name], name)]
        return not leaves or parameter.default is parameter.empty or any(leaf in left for leaf in leaves)

    def _spread(self, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for name, value in arguments.items():
            if self._signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                yield from value.items()
            else:
                yield name, value

    def _separated(self, filled: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        arguments = inspect.BoundArguments(self._signature, OrderedDict(filled))
        return arguments.args, dict(arguments.kwargs)


def arguments_of(example: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a user's example as positional and keyword arguments: a dict has keywords, a tuple or list positions, arrays become tensors."""
    if isinstance(example, Mapping):
        return (), {str(name): _tensors_in(value) for name, value in example.items()}
    values = example if isinstance(example, tuple | list) else (example,)
    return tuple(_tensors_in(value) for value in values), {}


def output_tensors(outputs: object) -> dict[str, torch.Tensor]:
    """Return a model's outputs by name: "output"; of a tuple "output_0" and so on; of a dict its keys; nested ones joined by "."."""
    if isinstance(outputs, tuple | list) and not hasattr(outputs, "_fields"):
        return {
            name: tensor for index, value in enumerate(outputs) for name, tensor in flattened(value, f"output_{index}")
        }
    prefix = "output" if isinstance(outputs, torch.Tensor) else ""
    return dict(flattened(outputs, prefix))


def flattened(value: object, prefix: str, depth: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors within a value by name: of dicts by key, of tuples by number or field, of other objects by attribute."""
    if isinstance(value, torch.Tensor):
        yield prefix, value
    elif depth < DEEPEST:
        for key, part in parts_of(value):
            yield from flattened(part, f"{prefix}.{key}" if prefix else key, depth + 1)


def parts_of(value: object) -> Sequence[tuple[str, Any]]:
    """Return what a container or a plain object holds, by key, field, number or attribute; nothing of what is none."""
    if isinstance(value, Mapping):
        return [(str(key), part) for key, part in value.items()]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, tuple | list):
        return [(str(index), part) for index, part in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    if hasattr(value, "__dict__") and not isinstance(value, type | torch.nn.Module) and not callable(value):
        return [(name, part) for name, part in vars(value).items() if not name.startswith("_")]
    return ()


def _named(arguments: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in arguments:
        yield from flattened(value, name)


def _tensors_in(value: object) -> Any:
    if type(value).__module__ == "numpy" and hasattr(value, "dtype"):
        return torch.as_tensor(value)
    if isinstance(value, tuple | list) and type(value) in (tuple, list):
        return type(value)(_tensors_in(part) for part in value)
    if isinstance(value, dict) and type(value) is dict:
        return {key: _tensors_in(part) for key, part in value.items()}
    return value


def _filled(value: Any, name: str, left: dict[str, torch.Tensor]) -> Any:
    """Return the example's argument with the given tensors in place of its own, which leave `left`."""
    if isinstance(value, torch.Tensor):
        if name not in left:
            raise SourceError(f"no input {name!r}, which the example inputs have")
        return left.pop(name)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_filled(part, f"{name}.{key}", left) for key, part in parts_of(value)))
    if type(value) in (tuple, list):
        return type(value)(_filled(part, f"{name}.{index}", left) for index, part in enumerate(value))
    if isinstance(value, Mapping):
        filled = {key: _filled(part, f"{name}.{key}", left) for key, part in value.items()}
        return filled if type(value) is dict else type(value)(filled)  # type: ignore[call-arg]
    return _object_filled(value, name, left)


def _object_filled(value: Any, name: str, left: dict[str, torch.Tensor]) -> Any:
    """Return a copy of an object that holds tensors, which a call may change, with the given ones in it."""
    if not any(True for _ in flattened(value, name)):
        return value
    replica = copy.deepcopy(value)

    def fill(holder: Any, prefix: str) -> None:
        for key, part in parts_of(holder):
            path = f"{prefix}.{key}"
            if not isinstance(part, torch.Tensor):
                fill(part, path)
            elif path in left:
                tensor = left.pop(path)
                if isinstance(holder, list):
                    holder[int(key)] = tensor
                elif isinstance(holder, dict):
                    holder[key] = tensor
                else:
                    setattr(holder, key, tensor)

    fill(replica, name)
    return replica


def _nested(name: str, left: dict[str, torch.Tensor]) -> Any:
    """Return the inputs "NAME.0", "NAME.1" as a tuple, "NAME.key" as a dict, out of `left`; None where there are none."""
    keys = [path.removeprefix(f"{name}.").partition(".")[0] for path in left if path.startswith(f"{name}.")]
    if not keys:
        return None
    parts = {}
    for key in dict.fromkeys(keys):
        path = f"{name}.{key}"
        parts[key] = left.pop(path) if path in left else _nested(path, left)
    if all(key.isdigit() for key in parts):
        return tuple(parts[key] for key in sorted(parts, key=int))
    return parts
