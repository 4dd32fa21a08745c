"""The calls of all layers in a run of a user's Keras model, with their arguments, so that one of them can be made again."""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform import Unsupported
from actconform.plugin.call_source import call_source, called_path
from actconform.text import one_line
from actconform.types.trained import LayerCall

if TYPE_CHECKING:
    from collections.abc import Iterator

    import keras
    from numpy.typing import NDArray

    Arguments = tuple[tuple[Any, ...], dict[str, Any]]

MOST_LETTERS = 300  # of a layer in words


class CalledLayers:
    """The eager calls that layers got while `recording` was open, by the paths of the layers as `LayerRecorder` names them."""

    def __init__(self) -> None:
        self.calls: dict[str, list[tuple[keras.layers.Layer, Arguments]]] = defaultdict(list)
        self._path: list[str] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the calls that are made within."""
        import keras
        import tensorflow as tf

        original = keras.layers.Layer.__call__

        def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
            if not tf.executing_eagerly():
                return original(layer, *args, **kwargs)
            path = f"{self._path[-1]}/{layer.name}".removeprefix("/") if self._path else ""
            self.calls[path].append((layer, (args, kwargs)))
            self._path.append(path)
            try:
                return original(layer, *args, **kwargs)
            finally:
                self._path.pop()

        keras.layers.Layer.__call__ = call
        try:
            yield
        finally:
            keras.layers.Layer.__call__ = original

    def written(self, name: str) -> tuple[LayerCall, keras.layers.Layer, Arguments]:
        """Return the call of a layer, or of the next one around it that can be written down, without outputs; the layer, and its arguments.

        Raises Unsupported where not even the call of the model itself can be written.
        """
        path, number = called_path(name, self.calls)
        while True:
            around = path.rpartition("/")[0] if path else None
            if path in self.calls:
                layer, arguments = self.calls[path][min(number, len(self.calls[path])) - 1]
                try:
                    return _written(layer, arguments, path, around), layer, arguments
                except Unsupported:
                    if around is None:
                        raise
            assert around is not None
            path, number = around, 1


def flat_arrays(outputs: Any) -> tuple[NDArray[Any], ...]:
    """Return the tensors in what a layer gave, as arrays."""
    import keras

    return tuple(np.asarray(tensor) for tensor in keras.tree.flatten(outputs) if tensor is not None)


def widened(arguments: Arguments) -> Arguments:
    """Return arguments with floats in float64."""
    import keras
    import tensorflow as tf

    def wide(leaf: Any) -> Any:
        return tf.cast(leaf, "float64") if isinstance(leaf, tf.Tensor) and leaf.dtype.is_floating else leaf

    args, kwargs = keras.tree.map_structure(wide, arguments)
    return args, kwargs


def _written(layer: keras.layers.Layer, arguments: Arguments, path: str, around: str | None) -> LayerCall:
    import tensorflow as tf

    tensors: list[Any] = []

    def name_of(value: object) -> str | None:
        if not isinstance(value, tf.Tensor):
            return None
        if not hasattr(value, "numpy") or value.dtype == tf.bfloat16:
            raise Unsupported(f"reads {value.dtype.name}, which no .npz holds")
        tensors.append(value)
        return f"input_{len(tensors) - 1}"

    source = call_source(*arguments, name_of)
    return LayerCall(
        path=path,
        about=one_line(repr(layer), MOST_LETTERS),
        around=around,
        arguments=source,
        inputs=tuple(np.asarray(tensor.numpy()) for tensor in tensors),
        outputs=(),
    )
