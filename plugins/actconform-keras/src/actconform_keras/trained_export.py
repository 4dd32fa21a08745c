"""The graphs that tf2onnx and Keras make of a user's trained model."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from actconform import Artifact, Unsupported
from actconform.plugin.framework import exported
from actconform.types.trained import RunMode
from actconform_keras.exporters import MODEL_EXPORT, refusal, tf2onnx_module
from actconform_keras.saved_model import SavedModelTrained
from actconform_keras.tflite import TfliteTrained
from actconform_keras.trained_model import KerasTrained

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    from actconform.plugin.trained_model import TrainedModel
    from actconform.types.trained import Dims

    Arrays = Mapping[str, NDArray[Any]]


def by_tf2onnx(model: TrainedModel, inputs: Arrays, *, training: bool) -> Artifact:
    """Return the graph of tf2onnx, every open axis None, or all as in `inputs` where it fails so, which a warning tells."""
    if isinstance(model, SavedModelTrained | TfliteTrained):
        if training:
            raise Unsupported("a file computes as it was saved: it is not exported in training")
        return _of_saved_model(model) if isinstance(model, SavedModelTrained) else _of_tflite(model)
    if not isinstance(model, KerasTrained):
        raise Unsupported(f"tf2onnx takes no {model.about.about}")
    try:
        return _from_function(model, [spec.dims for spec in model.signature.specs], training=training)
    except Unsupported as dynamic:
        try:
            artifact = _from_function(
                model, [inputs[spec.name].shape for spec in model.signature.specs], training=training
            )
        except Unsupported:
            raise dynamic from None
        warning = f"exported for the sizes of the example inputs alone: with open axes, {dynamic}"
        return replace(artifact, warnings=(*artifact.warnings, warning))


def by_model_export(model: TrainedModel, inputs: Arrays, *, training: bool) -> Artifact:
    """Return the graph of `model.export(format="onnx")`, which takes what the model says that it takes."""
    if not isinstance(model, KerasTrained):
        raise Unsupported(f"model.export takes no {model.about.about}")
    if training:
        raise Unsupported("model.export exports no model in training")
    tf2onnx_module()
    model.run(inputs, RunMode())  # a model that was never called does not export
    try:
        with model.state.prepared(RunMode()), TemporaryDirectory(prefix="actconform-") as folder:
            path = Path(folder) / "model.onnx"
            model.model.export(path, format="onnx", verbose=False)
            artifact = exported(path.read_bytes(), MODEL_EXPORT)
    except Exception as error:
        raise refusal(error) from error
    return _checked(artifact)


def _of_saved_model(model: SavedModelTrained) -> Artifact:
    """Return the graph as `python -m tf2onnx.convert --saved-model` makes it."""
    import tensorflow as tf

    tf2onnx = tf2onnx_module()
    try:
        graph, inputs, outputs, tables, names = tf2onnx.tf_loader.from_saved_model(
            str(model.path), None, None, return_initialized_tables=True, return_tensors_to_rename=True
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
    return _checked(exported(proto.SerializeToString(), "--saved-model"))


def _of_tflite(model: TfliteTrained) -> Artifact:
    tf2onnx = tf2onnx_module()
    try:
        proto, _ = tf2onnx.convert.from_tflite(str(model.path))
    except Exception as error:
        raise refusal(error) from error
    return _checked(exported(proto.SerializeToString(), "from_tflite"))


def _checked(artifact: Artifact) -> Artifact:
    """Return a graph whose operators are all ONNX's. Raises `Unsupported` with those that tf2onnx left as TensorFlow's, and their nodes."""
    import onnx

    proto = onnx.load_model_from_string(artifact.model)
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    strange: dict[str, str] = {}
    for graph in _graphs(proto.graph):
        for node in graph.node:
            domain = "" if node.domain == "ai.onnx" else node.domain
            if not domain and not onnx.defs.has(node.op_type, versions.get("", 1), domain):
                strange.setdefault(node.op_type, node.name)
    if strange:
        listed = ", ".join(f"{operator} (node {name})" for operator, name in list(strange.items())[:5])
        raise Unsupported(f"tf2onnx leaves operators that ONNX does not have: {listed}")
    return artifact


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for within in (attribute.g, *attribute.graphs):
                if within.node:
                    yield from _graphs(within)


def _from_function(model: KerasTrained, dims: Sequence[Dims | None], *, training: bool) -> Artifact:
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
    return _checked(exported(proto.SerializeToString(), "from_function"))
