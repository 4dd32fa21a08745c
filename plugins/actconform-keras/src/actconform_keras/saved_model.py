"""A SavedModel of TensorFlow, open: its signature run as it was saved, with the values of its graph's nodes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from actconform import SourceError, Unsupported
from actconform.plugin.trained_model import TrainedModel
from actconform.text import one_line
from actconform.types.trained import LayerRecord, OpenedModel, TensorSpec, TrainedRun
from actconform_keras.model_signature import expect_inputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from actconform.types.trained import RunMode, TrainedSource

    Arrays = Mapping[str, NDArray[Any]]

SIGNATURE = "serving_default"
# Operators that run code, or read and write files, when the model is run; those of `saver` functions are TensorFlow's own.
_PYTHON = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
_FILES = {"ReadFile", "WriteFile", "MatchingFiles", "WholeFileReaderV2"}
_LARGEST_GRAPH = 2**31  # bytes: what protobuf reads at most
_INLINED = re.compile(r"^((Stateful)?PartitionedCall(_\d+)?/)+")


class SavedModelTrained(TrainedModel):
    """The signature of a SavedModel, run on the CPU as TensorFlow compiles it."""

    def __init__(self, path: Path, loaded: Any, name: str) -> None:
        self.path, self.name = path, name
        self._loaded = loaded  # it holds the variables
        self._function = loaded.signatures[name]
        self._graph: _FlatGraph | None = None
        _, keywords = self._function.structured_input_signature
        inputs = tuple(
            TensorSpec(key, spec.dtype.name, None if spec.shape.rank is None else tuple(spec.shape))
            for key, spec in sorted(keywords.items())
        )
        variables = self.parameters()
        count = sum(array.size for array in variables.values())
        self._about = OpenedModel(
            framework="keras",
            about=f"{path.name} (SavedModel, signature {name}), {count:,} weights",
            inputs=inputs,
            parameters=tuple(TensorSpec(key, array.dtype.name, array.shape) for key, array in variables.items()),
            exporters=("tf2onnx",),
        )

    @property
    def about(self) -> OpenedModel:
        return self._about

    def run(self, inputs: Arrays, mode: RunMode, *, layers: bool = False) -> TrainedRun:
        """Return the outputs of the signature; with `layers` the values of the nodes of its graph that depend on inputs."""
        import tensorflow as tf

        native_only(mode, "a SavedModel")
        arrays = checked_inputs(inputs, self._about)
        with tf.device("CPU:0"):
            results = self._function(**{name: tf.convert_to_tensor(array) for name, array in arrays.items()})
            # TensorFlow's own order varies
            outputs = {name: np.asarray(results[name].numpy()) for name in sorted(results)}
            if not layers:
                return TrainedRun(outputs=outputs)
            if self._graph is None:
                self._graph = _flat_graph(self._function)
            return self._graph.run(arrays, outputs)

    def parameters(self) -> dict[str, NDArray[Any]]:
        variables: dict[str, NDArray[Any]] = {}
        for variable in self._function.variables:
            name, number = variable.name.partition(":")[0], 1
            while name in variables:
                number += 1
                name = f"{variable.name.partition(':')[0]}#{number}"
            variables[name] = np.asarray(variable.numpy())
        return variables


class _FlatGraph(NamedTuple):
    """A signature's graph with its functions inlined and its variables as constants, which gives every tensor that depends on inputs."""

    function: Any
    feeds: dict[str, Any]
    """By the name of the input."""
    tensors: list[Any]
    ends: list[Any]
    """The tensors that are outputs."""

    def run(self, arrays: Arrays, outputs: dict[str, NDArray[Any]]) -> TrainedRun:
        import tensorflow as tf

        values = self.function(*(tf.convert_to_tensor(arrays[name]) for name in self.feeds))
        recorded = [*self.feeds.values(), *self.tensors]
        places = {tensor.name: place for place, tensor in enumerate(recorded)}

        def at(tensors: Iterable[Any]) -> tuple[int, ...]:
            return tuple(dict.fromkeys(places[each.name] for each in tensors if each.name in places))

        records = [
            LayerRecord(
                _node_name(operation.name),
                f"function {operation.type}",
                at(map(_original, operation.inputs)),
                at(operation.outputs),
            )
            for operation in dict.fromkeys(tensor.op for tensor in self.tensors)
        ]
        records.append(LayerRecord("", "SavedModel", at(self.feeds.values()), at(map(_original, self.ends))))
        tensors = [*(arrays[name] for name in self.feeds), *(np.asarray(value.numpy()) for value in values)]
        return TrainedRun(outputs=outputs, layers=records, tensors=tensors)


def open_saved_model(source: TrainedSource) -> TrainedModel:
    """Return the SavedModel, open. Raises SourceError for a damaged one, one without signature, and one that is not trusted and runs code."""
    import tensorflow as tf

    path = Path(source.text)
    if not source.trusted:
        _refuse_code(path)
    _forget_optimizers()
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        raise SourceError(f"cannot be loaded: {type(error).__name__}: {one_line(str(error), 400)}") from error
    names = [name for name in loaded.signatures if not name.startswith("_")]
    if not names:
        raise SourceError("the SavedModel has no signature: save it with signatures=, or by model.export(path)")
    if SIGNATURE not in names and len(names) > 1:
        raise SourceError(f"the SavedModel has no signature {SIGNATURE}: it has {', '.join(map(one_line, names))}")
    return SavedModelTrained(path, loaded, SIGNATURE if SIGNATURE in names else names[0])


def native_only(mode: RunMode, model: str) -> None:
    """Raise `Unsupported` for every way of running but the one in which the file was saved."""
    if mode.precision != "native":
        raise Unsupported(f"{model} computes as it was saved: not in {mode.precision}")
    if mode.training:
        raise Unsupported(f"{model} computes as it was saved: not in training")


def checked_inputs(inputs: Arrays, about: OpenedModel) -> dict[str, NDArray[Any]]:
    """Return the inputs in order, in the types of the model. Raises SourceError for a wrong name."""
    expect_inputs(inputs, about.inputs)
    return {spec.name: np.asarray(inputs[spec.name]).astype(spec.dtype, copy=False) for spec in about.inputs}


def _refuse_code(path: Path) -> None:
    for name, node in _nodes(path):
        if node.op in _PYTHON:
            danger = "calls a Python function (tf.py_function, tf.numpy_function), which a SavedModel does not hold"
        elif node.op in _FILES and "saver" not in name:
            danger = "reads or writes files"
        else:
            continue
        raise SourceError(f"node {one_line(node.name)} ({node.op}) {danger}: it is opened only with --trust")


def _nodes(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the nodes of the main graphs and of all functions, each with its function's name."""
    from google.protobuf import text_format
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    binary, text = path / "saved_model.pb", path / "saved_model.pbtxt"
    try:
        if binary.exists():
            if binary.stat().st_size > _LARGEST_GRAPH:
                raise SourceError(f"{binary.name} has more than 2 GiB")
            saved.ParseFromString(binary.read_bytes())
        else:
            text_format.Parse(text.read_text(encoding="utf-8"), saved)
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(f"the SavedModel is damaged: {type(error).__name__}: {one_line(str(error), 300)}") from error
    for graph in saved.meta_graphs:
        for node in graph.graph_def.node:
            yield node.name, node
        for function in graph.graph_def.library.function:
            for node in function.node_def:
                yield f"{function.signature.name}/{node.name}", node


def _forget_optimizers() -> None:
    """Let TensorFlow load the optimizer of Keras 2 that many SavedModels hold, for which it would need tf_keras."""
    import tensorflow as tf

    loading = tf.__internal__.saved_model.load
    if "optimizer" in loading.registered_identifiers():
        return
    registration = loading.VersionedTypeRegistration(
        object_factory=lambda _: _optimizer(), version=2, min_producer_version=1, min_consumer_version=1
    )
    loading.register_revived_type("optimizer", lambda _: False, versions=[registration])


def _optimizer() -> Any:
    import tensorflow as tf

    class Optimizer(tf.Module):  # type: ignore[misc]
        def add_slot(self, var: Any, slot_name: str, initializer: object = None, shape: object = None) -> Any:  # noqa: ARG002
            return tf.Variable(tf.zeros_like(var), trainable=False)

        def _create_or_restore_slot_variable(self, *_: object, **__: object) -> None:
            """Keep no slot: nothing is trained."""

    return Optimizer()


def _flat_graph(function: Any) -> _FlatGraph:
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
    names = list(function.structured_input_signature[1])
    feeds = {_argument(tensor, names): tensor for tensor in frozen.inputs}
    depending = {tensor.name for tensor in feeds.values()}
    tensors = []
    for operation in frozen.graph.get_operations():  # in the order in which they were made: what they read first
        if operation.type in _ABOUT_SHAPES or not any(tensor.name in depending for tensor in operation.inputs):
            continue
        for tensor in operation.outputs:
            depending.add(tensor.name)
            kind = tensor.dtype
            numbers = kind.is_floating or kind.is_integer or kind.is_bool
            # FusedBatchNorm has five outputs that nobody reads.
            if operation.type not in _VIEWS and numbers and (tensor.consumers() or tensor.value_index == 0):
                tensors.append(tensor)
    return _FlatGraph(frozen.prune(list(feeds.values()), tensors), feeds, tensors, list(frozen.outputs))


# What says something about shapes, and what gives its input as it is.
_ABOUT_SHAPES = {"Shape", "ShapeN", "Size", "Rank", "NoOp", "Assert", "ZerosLike", "OnesLike"}
_VIEWS = {"Identity", "StopGradient", "PreventGradient", "EnsureShape"}


def _argument(tensor: Any, names: list[str]) -> str:
    """Return which input of a signature a placeholder is."""
    if tensor.op.name in names:
        return str(tensor.op.name)
    return str(tensor.op.get_attr("_user_specified_name").decode())


def _original(tensor: Any) -> Any:
    """Return the tensor that a chain of operators hands on as it is."""
    while tensor.op.type in _VIEWS:
        tensor = tensor.op.inputs[0]
    return tensor


def _node_name(name: str) -> str:
    """Return the name of a node as that of a function in a layer: "model/conv2d:Sigmoid"."""
    path, _, last = _INLINED.sub("", name).rpartition("/")
    return f"{path}:{last}"
