"""The graphs that tf2onnx and Keras make of a user's trained model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actconform import Artifact, Unsupported
from actconform.plugin.framework import exported
from actconform.text import one_line
from actconform.types.trained import RunMode
from actconform_keras.conversion import MODEL_EXPORT, model_export, refusal, tf2onnx_module
from actconform_keras.model_signature import functional_of
from actconform_keras.saved_model import SavedModelTrained
from actconform_keras.tflite import TfliteTrained
from actconform_keras.trained_model import KerasTrained

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx
    import tensorflow as tf
    from numpy.typing import NDArray

    from actconform.plugin.trained_model import TrainedModel
    from actconform.types.trained import Dims

    Arrays = Mapping[str, NDArray[Any]]

_MOST_NAMES = 5  # in a message


def by_tf2onnx(model: TrainedModel, inputs: Arrays, *, training: bool) -> Artifact:
    """Return the graph of tf2onnx: from_keras where it takes the model, from_function of its call, or what it does with a file."""
    if isinstance(model, KerasTrained):
        if not training and (functional := _functional(model)) is not None:
            return _from_keras(model, functional)
        return _from_function(model, inputs, training=training)
    if training:
        raise Unsupported("a file computes as it was saved: it is not exported in training")
    if isinstance(model, SavedModelTrained):
        return _of_saved_model(model)
    if isinstance(model, TfliteTrained):
        return _of_tflite(model)
    raise Unsupported(f"tf2onnx takes no {model.about.about}")


def by_model_export(model: TrainedModel, inputs: Arrays, *, training: bool) -> Artifact:
    """Return the graph of `model.export(format="onnx")`, which takes what the model says that it takes."""
    if not isinstance(model, KerasTrained):
        raise Unsupported(f"model.export takes no {model.about.about}")
    if training:
        raise Unsupported("model.export exports no model in training")
    tf2onnx_module()
    model.run(inputs, RunMode())  # a model that was never called does not export
    try:
        with model.state.prepared(RunMode()):
            written = model_export(model.model)
    except Exception as error:
        raise refusal(error) from error
    return _checked(written, MODEL_EXPORT, model)


def _functional(model: KerasTrained) -> Any:
    """Return the functional model that from_keras takes; None where there is none, or where it would lose the keys of outputs."""
    functional = functional_of(model.model)
    if getattr(functional, "output_names", None) is None or isinstance(functional.output, dict):
        return None
    return functional


def _from_keras(model: KerasTrained, functional: Any) -> Artifact:
    import tensorflow as tf

    tf2onnx = tf2onnx_module()
    signature = [tf.TensorSpec(spec.dims, spec.dtype, name=spec.name) for spec in model.signature.specs]
    try:
        with model.state.prepared(RunMode()):
            proto, _ = tf2onnx.convert.from_keras(functional, input_signature=signature)
    except Exception as error:
        raise refusal(error) from error
    return _checked(proto.SerializeToString(), "from_keras", model)


def _from_function(model: KerasTrained, inputs: Arrays, *, training: bool) -> Artifact:
    """Return the graph with every open axis None; where that fails with the sizes of the examples, which a warning tells."""
    specs = model.signature.specs
    try:
        written = _function_graph(model, [spec.dims for spec in specs], training=training)
    except Unsupported as error:
        if training:
            raise
        try:
            written = _function_graph(model, [inputs[spec.name].shape for spec in specs], training=False)
        except Unsupported:
            raise error from None
        artifact = _checked(written, "from_function", model)
        warning = f"exported for the sizes of the example inputs alone: with open axes, {error}"
        return Artifact(artifact.model, artifact.opset, artifact.path, (warning,), artifact.ir_version)
    return _checked(written, "from_function", model)


def _function_graph(model: KerasTrained, dims: Sequence[Dims | None], *, training: bool) -> bytes:
    import tensorflow as tf

    tf2onnx = tf2onnx_module()
    specs = model.signature.specs
    signature = [tf.TensorSpec(shape, spec.dtype, name=spec.name) for spec, shape in zip(specs, dims, strict=True)]

    @tf.function(input_signature=signature)
    def graph(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        named = dict(zip([spec.name for spec in specs], tensors, strict=True))
        return model.outputs(named, training=training)

    try:
        with model.state.prepared(RunMode(training=training)):
            proto, _ = tf2onnx.convert.from_function(graph, input_signature=signature)
    except Exception as error:
        raise refusal(error) from error
    serialized: bytes = proto.SerializeToString()
    return serialized


def _of_saved_model(model: SavedModelTrained) -> Artifact:
    """Return the graph as `python -m tf2onnx.convert --saved-model` makes it."""
    import tensorflow as tf

    tf2onnx = tf2onnx_module()
    try:
        graph, inputs, outputs, tables, names = tf2onnx.tf_loader.from_saved_model(
            str(model.path),
            None,
            None,
            signatures=[model.name],
            return_initialized_tables=True,
            return_tensors_to_rename=True,
        )
        with tf.device("/cpu:0"):
            proto, _ = tf2onnx.convert._convert_common(  # noqa: SLF001  what the command calls
                graph,
                name=str(model.path),
                input_names=inputs,
                output_names=outputs,
                tensors_to_rename=names,
                initialized_tables=tables,
            )
    except Exception as error:
        raise refusal(error) from error
    return _checked(proto.SerializeToString(), "--saved-model", model)


def _of_tflite(model: TfliteTrained) -> Artifact:
    tf2onnx = tf2onnx_module()
    try:
        proto, _ = tf2onnx.convert.from_tflite(str(model.path))
    except Exception as error:
        raise refusal(error) from error
    return _checked(proto.SerializeToString(), "from_tflite", model)


def _checked(written: bytes, path: str, model: TrainedModel) -> Artifact:
    """Return the graph as an artifact. Raises `Unsupported` where it is none that anybody can run.

    That is where tf2onnx has left operators of TensorFlow's, and where a constant of a layer has become an input.
    """
    import onnx

    proto = onnx.load_model_from_string(written)
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 1)
    strange: dict[str, str] = {}
    for graph in _graphs(proto.graph):
        for node in graph.node:
            if node.domain in ("", "ai.onnx") and not onnx.defs.has(node.op_type, opset, ""):
                strange.setdefault(node.op_type, node.name)
    if strange:
        named = [f"{operator} (node {one_line(name, 200)})" for operator, name in list(strange.items())[:_MOST_NAMES]]
        raise Unsupported(f"tf2onnx leaves operators that ONNX does not have: {', '.join(named)}")
    constants = {entry.name for entry in proto.graph.initializer}
    inputs = [entry.name for entry in proto.graph.input if entry.name not in constants]
    if len(inputs) > len(model.about.inputs):
        named = [one_line(name, 200) for name in inputs[len(model.about.inputs) :][:_MOST_NAMES]]
        raise Unsupported(f"tf2onnx makes inputs of constants that layers hold: {', '.join(named)}")
    return exported(written, path)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for within in (attribute.g, *attribute.graphs):
                if within.node:
                    yield from _graphs(within)
