"""A user's Keras model, open: run in any precision with its layers, differentiated, its weights."""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from actconform import SourceError, Unsupported
from actconform.plugin.trained_model import TrainedModel
from actconform.plugin.user_factory import fault_with_lines
from actconform.types.trained import ALL_PRECISIONS, OpenedModel, RunMode, TensorSpec, TrainedRun
from actconform_keras.layer_call import CalledLayers, flat_arrays, widened
from actconform_keras.layer_recorder import LayerRecorder
from actconform_keras.model_signature import output_names
from actconform_keras.trained_state import ModelState, layers_of, own_variables
from actconform_keras.training_losses import losses_of_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import keras
    from numpy.typing import NDArray

    from actconform.types.lint import TrainingLoss
    from actconform.types.trained import LayerCall, Precision
    from actconform_keras.model_signature import Signature

    Arrays = Mapping[str, NDArray[Any]]

_COLOURS = re.compile(r"\\x1b\[[0-9;]*m")  # as one_line writes them out
_WRAPPED = re.compile(
    r"(?:\w+\.)*(?P<kind>\w+): Exception encountered when calling (?P<layer>[^ ]+)\. (?P<words>.*?)(?: Arguments received by .*)?$"
)
# The dtype in which float inputs are given.
_INPUTS: dict[Precision, str] = {"float64": "float64", "float16": "float16", "bfloat16": "bfloat16"}


class KerasTrained(TrainedModel):
    """A keras.Model in the process; it computes eagerly, on TensorFlow on the CPU."""

    def __init__(
        self,
        model: keras.Model,
        signature: Signature,
        notes: tuple[str, ...] = (),
        losses: tuple[TrainingLoss, ...] = (),
    ) -> None:
        self.model, self.signature = model, signature
        self.state = ModelState(model)
        if not model.built or signature.example:  # weights are made at the first call
            self.run(signature.example or self._zeros(), RunMode())
        self._weights = _weights_of(model)
        self._owned = {id(variable): name for name, variable in self._weights.items()}
        self._about = msgspec.structs.replace(self._opened(notes), losses=losses or losses_of_model(model))

    @property
    def about(self) -> OpenedModel:
        return self._about

    def run(self, inputs: Arrays, mode: RunMode, *, layers: bool = False) -> TrainedRun:
        import tensorflow as tf

        with tf.device("CPU:0"), _faults_told(mode), self.state.prepared(mode):
            tensors = self._tensors(inputs, mode)
            if not layers:
                return TrainedRun(outputs=_as_arrays(self.outputs(tensors, training=mode.training)))
            recorder = LayerRecorder(self._names_of)
            for tensor in tensors.values():
                recorder.add(tensor)
            with recorder.recording():
                outputs = self.outputs(tensors, training=mode.training)
            return TrainedRun(outputs=_as_arrays(outputs), layers=recorder.records, tensors=recorder.arrays())

    def layer_call(self, inputs: Arrays, layer: str) -> LayerCall:
        """Return the call of a layer in a run of the model; of a function, of the layer that calls it."""
        import tensorflow as tf

        native = RunMode()
        with tf.device("CPU:0"), _faults_told(native), self.state.prepared(native):
            called = CalledLayers()
            with called.recording():
                self.outputs(self._tensors(inputs, native))
            call, part, (args, kwargs) = called.written(layer)
            outputs = flat_arrays(part(*args, **kwargs))
        wide = RunMode("float64")
        exact: tuple[NDArray[Any], ...] = ()
        with suppress(SourceError, Unsupported), tf.device("CPU:0"), _faults_told(wide), self.state.prepared(wide):
            args, kwargs = widened((args, kwargs))
            exact = flat_arrays(part(*args, **kwargs))
        return msgspec.structs.replace(call, outputs=outputs, exact=exact)

    def gradients(self, inputs: Arrays, cotangents: Arrays, mode: RunMode) -> dict[str, NDArray[Any]]:
        """Return the gradients of float inputs and of weights that training may change; zeros where no path leads to one."""
        import tensorflow as tf

        with tf.device("CPU:0"), _faults_told(mode), self.state.prepared(mode):
            tensors = self._tensors(inputs, mode)
            sources = {name: tensor for name, tensor in tensors.items() if tensor.dtype.is_floating}
            trainable = {id(variable) for layer in layers_of(self.model) for variable in layer._trainable_variables}  # noqa: SLF001
            sources |= {
                name: variable._value  # noqa: SLF001  `value` is cast as the policy says
                for name, variable in self._weights.items()
                if id(variable) in trainable and variable._value.dtype.is_floating  # noqa: SLF001
            }
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(list(sources.values()))
                outputs = self.outputs(tensors, training=mode.training)
            names = _matching(cotangents, outputs)
            pulled = tape.gradient(
                [outputs[name] for name in names],
                sources,
                output_gradients=[tf.cast(cotangents[name], outputs[name].dtype) for name in names],
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
            return _as_arrays({f"d_{name}": tf.convert_to_tensor(gradient) for name, gradient in pulled.items()})

    def parameters(self) -> dict[str, NDArray[Any]]:
        return {name: np.asarray(variable._value.numpy()) for name, variable in self._weights.items()}  # noqa: SLF001

    def outputs(self, tensors: Mapping[str, Any], *, training: bool = False) -> dict[str, Any]:
        """Call the model with tensors by name; return its outputs by name."""
        args, kwargs = self.signature.arguments(tensors)
        return dict(output_names(self.model, self.model(*args, training=training, **kwargs)))

    def _tensors(self, inputs: Arrays, mode: RunMode) -> dict[str, Any]:
        import tensorflow as tf

        dtype = _INPUTS.get(mode.precision)
        tensors = {}
        for name, array in self.signature.checked(inputs).items():
            tensor = tf.convert_to_tensor(array)
            wanted = next(spec.dtype for spec in self.signature.specs if spec.name == name)
            if tensor.dtype.is_floating:
                wanted = dtype or wanted
            tensors[name] = tensor if tensor.dtype.name == wanted else tf.cast(tensor, wanted)
        return tensors

    def _zeros(self) -> dict[str, NDArray[Any]]:
        return {
            spec.name: np.zeros([1 if dim is None else dim for dim in spec.dims or ()], spec.dtype)  # type: ignore[misc]
            for spec in self.signature.specs
        }

    def _names_of(self, layer: keras.layers.Layer) -> tuple[str, ...]:
        names = (self._owned.get(id(variable)) for variable in own_variables(layer))
        return tuple(name for name in names if name)

    def _opened(self, notes: tuple[str, ...]) -> OpenedModel:
        kind = type(self.model)
        count = sum(int(np.prod(variable.shape)) for variable in self._weights.values())
        home = "keras.Model" if not kind.__module__.startswith("keras.") else f"keras.{kind.__name__}"
        name = kind.__name__ if home == "keras.Model" else self.model.name
        return OpenedModel(
            framework="keras",
            about=f"{name} ({home}), {count:,} weights",
            inputs=self.signature.specs,
            example=self.signature.example,
            parameters=tuple(
                TensorSpec(name, variable._value.dtype.name, tuple(variable.shape))  # noqa: SLF001
                for name, variable in self._weights.items()
            ),
            precisions=ALL_PRECISIONS,
            trainable=True,
            differentiable=True,
            exporters=("tf2onnx", "keras-export"),
            notes=notes,
        )


def _weights_of(model: keras.Model) -> dict[str, keras.Variable]:
    """Return weights and buffers by their paths; a path that two have is numbered."""
    named: dict[str, keras.Variable] = {}
    for variable in model.weights:
        name, number = variable.path, 1
        while name in named:
            number += 1
            name = f"{variable.path}#{number}"
        named[name] = variable
    return named


def _as_arrays(tensors: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    import tensorflow as tf

    return {name: np.asarray(tf.convert_to_tensor(tensor).numpy()) for name, tensor in tensors.items()}


def _matching(cotangents: Arrays, outputs: Mapping[str, Any]) -> list[str]:
    for name, array in cotangents.items():
        if name not in outputs:
            raise SourceError(f"the model has no output {name}: it has {', '.join(outputs)}")
        if tuple(outputs[name].shape) != np.shape(array):
            raise SourceError(
                f"the cotangent of {name} has shape {list(np.shape(array))}: wanted {list(outputs[name].shape)}"
            )
    return list(cotangents)


@contextmanager
def _faults_told(mode: RunMode) -> Iterator[None]:
    """Tell faults of a call by the user's own lines: as refusals of another precision, else as the user's to mend."""
    try:
        yield
    except (SourceError, Unsupported, MemoryError):
        raise
    except Exception as error:
        fault = keras_fault(error)
        if mode.precision != "native":
            raise Unsupported(f"cannot run in {mode.precision}: {fault}") from error
        raise SourceError(f"the model cannot be run: {fault}") from error


def keras_fault(error: BaseException, folder: str = "") -> str:
    """Return an error with the user's lines, without the colours and the arguments that Keras writes around it."""
    words, _, lines = fault_with_lines(error, folder).partition("\n")
    words = _COLOURS.sub("", words)
    wrapped = _WRAPPED.match(words)
    if wrapped:
        words = f"{wrapped['kind']}: {wrapped['words'].strip()} (in {wrapped['layer']})"
    return f"{words}\n{lines}" if lines else words
