"""tf2onnx's conversion of a function, and Keras's export of a model, as exporters; both end in tf2onnx."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import ml_dtypes
import numpy as np

from actconform import Artifact, Exporter, Unsupported
from actconform.plugin.framework import exported
from actconform_keras.conversion import MODEL_EXPORT, model_export, refusal, tf2onnx_module
from actconform_keras.keras_module import KERAS_DTYPES, keras_on
from actconform_keras.kernels import implement
from actconform_keras.models import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import keras
    import tensorflow as tf

    from actconform import Kernel, Model
    from actconform.plugin.trained_model import TrainedModel
    from actconform.types import Bundle

FROM_FUNCTION = """import functools

import keras
import tensorflow
import tf2onnx

FUNCTION = $function


def export(path):
    signature = [tensorflow.TensorSpec([None], "$dtype", name="x")]

    @tensorflow.function(input_signature=signature)
    def function(x):
        return {"y": FUNCTION(x)}

    tf2onnx.convert.from_function(function, input_signature=signature, output_path=path)
"""
MODEL_EXPORT_PROGRAM = """import functools

import keras
import numpy

FUNCTION = $function


def export(path):
    x = keras.Input([], dtype="$dtype", name="x")
    y = keras.layers.Activation(FUNCTION, dtype="$dtype", name="activation")(x)
    model = keras.Model(x, {"y": y})
    model(numpy.zeros(4, "$dtype"))
    model.export(path, format="onnx", verbose=False)
"""


class Tf2Onnx(Exporter):
    """`tf2onnx.convert.from_function` of a `tf.function`, at its default opset, every dimension of a kernel and the batch None."""

    name: ClassVar[str] = "tf2onnx"
    source: ClassVar[str] = "keras"

    @classmethod
    def reproduction(cls) -> str:
        return FROM_FUNCTION

    @classmethod
    def layer_reproduction(cls) -> str:
        return _layer_program("export_tf2onnx")

    def export(self, kernel: Kernel, dtype: str) -> Artifact:
        keras_on("tensorflow")
        function = implement(kernel, KERAS_DTYPES[dtype]).function
        shapes = {name: _shape(kernel, name) for name in kernel.inputs}
        return _converted(lambda tensors: {"y": function(*tensors.values())}, shapes, dtype)

    def export_model(self, model: Model, dtype: str, constants: Bundle | None) -> Artifact:
        """Return the graph of all layers and the loss; with constants of the Keras model that holds them, training as `model` does."""
        keras_on("tensorflow")
        network = Network(model, dtype)
        if constants is None:
            shapes: dict[str, Sequence[int | None]] = {one.name: (None, *one.shape) for one in model.inputs}
            return _converted(network.outputs, shapes | {one.name: one.shape for one in model.parameters}, dtype)
        shipped = network.shipped(constants)
        shapes = {name: symbol.shape for name, symbol in network.symbols.items()}
        return _converted(lambda tensors: shipped(tensors, training=model.training), shapes, dtype)

    def export_trained(self, model: TrainedModel, inputs: Bundle, *, training: bool = False) -> Artifact:
        """Return the graph of a Keras model, SavedModel or TFLite file as tf2onnx's users convert it."""
        from actconform_keras.trained_export import by_tf2onnx

        return by_tf2onnx(model, inputs, training=training)


def _layer_program(function: str) -> str:
    text = Path(__file__).with_name("layer_standalone.py").read_text(encoding="utf-8")
    return f"{text}\n\nexport_layer = {function}\n"


def _converted(
    function: Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]],
    shapes: Mapping[str, Sequence[int | None]],
    dtype: str,
) -> Artifact:
    """Return the graph of a function from tensors by name to tensors by name."""
    tf = keras_on("tensorflow")
    tf2onnx = tf2onnx_module()
    signature = [tf.TensorSpec(shape, KERAS_DTYPES[dtype], name=name) for name, shape in shapes.items()]

    @tf.function(input_signature=signature)
    def graph(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        return function(dict(zip(shapes, tensors, strict=True)))

    try:
        proto, _ = tf2onnx.convert.from_function(graph, input_signature=signature)
    except Exception as error:
        raise refusal(error) from error
    return exported(proto.SerializeToString(), "from_function")


class KerasExport(Exporter):
    """`model.export(format="onnx")` of a functional model, at the default opset, every dimension of a kernel and the batch None."""

    name: ClassVar[str] = "keras-export"
    source: ClassVar[str] = "keras"

    @classmethod
    def reproduction(cls) -> str:
        return MODEL_EXPORT_PROGRAM

    @classmethod
    def layer_reproduction(cls) -> str:
        return _layer_program("export_model")

    def export(self, kernel: Kernel, dtype: str) -> Artifact:
        keras_on("tensorflow")
        tf2onnx_module()
        if len(kernel.inputs) > 1:
            layer, weight = implement(kernel, KERAS_DTYPES[dtype]).text, kernel.inputs[1]
            raise Unsupported(f"{layer} holds {weight} as a weight of fixed width: a model of it takes none")
        try:
            written = model_export(_model(kernel, dtype))
        except Exception as error:
            raise refusal(error) from error
        return exported(written, MODEL_EXPORT)

    def export_model(self, model: Model, dtype: str, constants: Bundle | None) -> Artifact:
        """Return the graph of the Keras model that holds `constants`, training as `model` does; refuse to do without them."""
        if constants is None:
            raise Unsupported("model.export keeps weights as constants: see keras-export@const")
        tf = keras_on("tensorflow")
        tf2onnx_module()
        network = Network(model, dtype)
        try:
            shipped = network.shipped(constants)
            sizes = {name: (model.batch, *symbol.shape[1:]) for name, symbol in network.symbols.items()}
            # A model that was never called does not export.
            shipped({name: tf.zeros(size, KERAS_DTYPES[dtype]) for name, size in sizes.items()})
            written = model_export(shipped)
        except Exception as error:
            raise refusal(error) from error
        return exported(written, MODEL_EXPORT)

    def export_trained(self, model: TrainedModel, inputs: Bundle, *, training: bool = False) -> Artifact:
        """Return the graph of a Keras model; refuse one in training, and what is no Keras model."""
        from actconform_keras.trained_export import by_model_export

        return by_model_export(model, inputs, training=training)


def _model(kernel: Kernel, dtype: str) -> keras.Model:
    import keras

    kind = KERAS_DTYPES[dtype]
    (name,) = kernel.inputs
    shape = _shape(kernel, name)
    x = keras.Input(shape[1:], dtype=kind, name=name)
    # Named, since Keras would number them, and what is said of the graph would depend on what was exported before.
    y = keras.layers.Activation(implement(kernel, kind).function, dtype=kind, name="activation")(x)
    model = keras.Model(x, {"y": y}, name="kernel")
    # A model that was never called does not export; one example with an even last axis, which may be halved.
    model(np.zeros([4] * len(shape), ml_dtypes.bfloat16 if dtype == "bf16" else kind))
    return model


def _shape(kernel: Kernel, name: str) -> list[None]:
    return [None] * len(kernel.dims(name))
