"""How a layer of a user's Keras model is loaded, called and exported, for a program that stands alone: the text of this file is copied into it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable  # noqa: TC003  copied
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def opened(source: str, kind: str, *, trusted: bool) -> Any:
    """Return the model that the user names: "package.module:factory", or the path of a file."""
    import keras

    if kind == "keras":
        return keras.saving.load_model(source, compile=False, safe_mode=not trusted)
    if kind != "factory":
        raise ValueError(f"a layer of {kind} cannot be called by itself")
    module, _, path = source.partition(":")
    model: Any = importlib.import_module(module)
    for name in path.split("."):
        model = getattr(model, name)
    model = model if isinstance(model, keras.Model) else model()
    if not isinstance(model, tuple | list):
        return model
    model, example = model
    if not model.built:  # weights are made at the first call
        model(*example) if isinstance(example, tuple) else model(example)
    return model


def layer_at(model: Any, path: str) -> Any:
    """Return the layer of that path, the names of the layers around it and its own; "" is the model itself."""
    layer = model
    for name in path.split("/") if path else ():
        within = [getattr(layer, "_functional", None), *layer._flatten_layers(include_self=False, recursive=False)]  # noqa: SLF001  nothing public has the layers of a layer
        layer = next((each for each in within if each is not None and each.name == name), None)
        if layer is None:
            raise LookupError(f"no layer {path!r}")
    return layer


def computed(layer: Any, call: Callable[..., Any], inputs: list[Any]) -> list[Any]:
    """Return the arrays that a layer gives for arrays, flat."""
    import keras
    import tensorflow as tf

    with tf.device("CPU:0"):
        outputs = call(layer, *map(tf.convert_to_tensor, inputs))
    return [tensor.numpy() for tensor in keras.tree.flatten(outputs) if tensor is not None]


def _functional(layer: Any, call: Callable[..., Any], inputs: list[Any]) -> Any:
    """Return a model of the layer alone, the batch open, called once: what was never called does not export."""
    import keras

    size = next((len(array) for array in inputs if array.ndim), 0)
    symbols = []
    for k, array in enumerate(inputs):
        shape = (None, *array.shape[1:]) if array.ndim and len(array) == size else array.shape
        symbols.append(keras.Input(batch_shape=shape, dtype=array.dtype.name, name=f"input_{k}"))
    outputs = [tensor for tensor in keras.tree.flatten(call(layer, *symbols)) if tensor is not None]
    model = keras.Model(symbols, outputs, name="layer_alone")
    model(inputs)
    return model


def export_tf2onnx(layer: Any, call: Callable[..., Any], inputs: list[Any], path: str) -> None:
    """Write the graph of tf2onnx.convert.from_keras."""
    import tensorflow as tf
    import tf2onnx

    model = _functional(layer, call, inputs)
    signature = [tf.TensorSpec(symbol.shape, symbol.dtype, name=symbol.name) for symbol in model.inputs]
    tf2onnx.convert.from_keras(model, input_signature=signature, output_path=path)


def export_model(layer: Any, call: Callable[..., Any], inputs: list[Any], path: str) -> None:
    """Write the graph of `model.export(format="onnx")`."""
    _functional(layer, call, inputs).export(path, format="onnx", verbose=False)
