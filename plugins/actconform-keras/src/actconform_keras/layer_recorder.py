"""What layers and functions of TensorFlow compute while a Keras model runs eagerly: each tensor once, each call in order."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform.types.trained import LayerRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import keras
    from numpy.typing import NDArray

# What gives a tensor's elements as they are: the result counts as the tensor itself.
_VIEWS = {"Identity", "IdentityN", "Reshape", "ExpandDims", "Squeeze", "StopGradient", "PreventGradient", "EnsureShape"}
# What gives facts about a tensor, or constants of its shape.
_ABOUT_SHAPES = {"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"}
_FUNCTION = re.compile(r"^__(?:inference|forward|backward)_(.*?)_\d+$")


class LayerRecorder:
    """Records, while `recording` is open, the calls of a model's layers, and of TensorFlow's functions within them.

    A layer is named by the names of the layers around it and its own, "block1/conv"; the model itself is "". A function is
    recorded where it reads what depends on the model's inputs: constants computed from weights are left out.
    """

    def __init__(self, parameters: Callable[[keras.layers.Layer], tuple[str, ...]]) -> None:
        self.records: list[LayerRecord] = []
        self._parameters = parameters
        self._tensors: list[Any] = []
        self._places: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no id is given twice
        self._calls: Counter[str] = Counter()
        self._path: list[str] = []

    def add(self, tensor: Any) -> int:
        """Return the place of a tensor, a new one where it has none."""
        place = self._places.get(id(tensor))
        if place is None:
            place = len(self._tensors)
            self._tensors.append(tensor)
            self._share(tensor, place)
        return place

    def arrays(self) -> list[NDArray[Any]]:
        """Return the recorded tensors as arrays, and let go of them: it can be called once."""
        tensors, self._tensors = self._tensors, []
        self._kept.clear()
        self._places.clear()
        arrays = []
        for place, tensor in enumerate(tensors):
            arrays.append(np.asarray(tensor.numpy()))
            tensors[place] = None
        return arrays

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what this thread calls; functions that tf.function compiled run step by step."""
        import keras
        import tensorflow as tf

        with ExitStack() as stack:
            eager = tf.config.functions_run_eagerly()
            tf.config.run_functions_eagerly(True)  # noqa: FBT003  positional in TensorFlow
            stack.callback(tf.config.run_functions_eagerly, eager)
            self._listen_to_functions(stack)
            for kind in (keras.layers.Layer, keras.Operation):
                original = kind.__call__
                stack.callback(setattr, kind, "__call__", original)
                kind.__call__ = self._recorded(original, layers=kind is keras.layers.Layer)
            yield

    def _listen_to_functions(self, stack: ExitStack) -> None:
        try:
            from tensorflow.python.framework import op_callbacks
        except ImportError:  # no public name: without it layers alone are recorded
            return
        op_callbacks.add_op_callback(self._function)
        stack.callback(op_callbacks.remove_op_callback, self._function)

    def _recorded(self, original: Callable[..., Any], *, layers: bool) -> Callable[..., Any]:
        import keras
        import tensorflow as tf

        def call(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
            if isinstance(operation, keras.layers.Layer) is not layers or not tf.executing_eagerly():
                return original(operation, *args, **kwargs)
            name = self._name(operation, layers=layers)
            read = self._places_of(_eager((args, kwargs)))
            self._path.append(name)
            try:
                outputs = original(operation, *args, **kwargs)
            finally:
                self._path.pop()
            written = tuple(dict.fromkeys(self.add(tensor) for tensor in _eager(outputs)))
            kind = type(operation)
            self.records.append(
                LayerRecord(
                    self._numbered(name),
                    f"{kind.__module__}.{kind.__qualname__}",
                    read,
                    written,
                    self._parameters(operation) if layers else (),
                )
            )
            return outputs

        return call

    def _name(self, operation: keras.Operation, *, layers: bool) -> str:
        if not self._path:
            return ""
        around = self._path[-1].partition(":")[0]
        return f"{around}/{operation.name}".removeprefix("/") if layers else f"{around}:{operation.name}"

    def _numbered(self, name: str) -> str:
        self._calls[name] += 1
        return name if self._calls[name] == 1 else f"{name}#{self._calls[name]}"

    def _function(
        self,
        op_type: str | bytes,
        inputs: Sequence[Any],
        attrs: object,  # noqa: ARG002  TensorFlow's signature
        outputs: Sequence[Any],
        op_name: str | None = None,  # noqa: ARG002
        graph: object = None,
    ) -> None:
        """Record one call of a function of TensorFlow, as its callbacks tell of it."""
        kind = op_type.decode() if isinstance(op_type, bytes) else op_type
        if graph is not None or kind in _ABOUT_SHAPES or not self._path:
            return
        read = self._places_of(_eager(inputs))
        if not read:
            return
        if kind in _VIEWS:
            for view, tensor in zip(outputs, inputs, strict=False):
                if id(tensor) in self._places:
                    self._share(view, self._places[id(tensor)])
            return
        written = tuple(self.add(tensor) for tensor in _eager(outputs))
        if written:
            function = _FUNCTION.sub(r"\1", kind)
            name = self._numbered(f"{self._path[-1].partition(':')[0]}:{function}")
            self.records.append(LayerRecord(name, f"function {function}", read, written))

    def _share(self, tensor: Any, place: int) -> None:
        self._places.setdefault(id(tensor), place)
        self._kept.append(tensor)

    def _places_of(self, tensors: Iterable[Any]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(self._places[id(tensor)] for tensor in tensors if id(tensor) in self._places))


def _eager(structure: Any) -> Iterator[Any]:
    """Yield the tensors of numbers in a structure that have values."""
    import keras
    import tensorflow as tf

    for leaf in keras.tree.flatten(structure):
        if (
            isinstance(leaf, tf.Tensor)
            and hasattr(leaf, "numpy")
            and (leaf.dtype.is_floating or leaf.dtype.is_integer or leaf.dtype.is_bool)
        ):
            yield leaf
