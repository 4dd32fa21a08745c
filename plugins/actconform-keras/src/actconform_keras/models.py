"""A reference model as a functional keras.Model with a loss of keras.losses, and its program over numpy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform import Program, Unsupported
from actconform.model import LOSS, OUTPUT
from actconform_keras.backend import KERAS_DTYPES, _refusal, _tensorflow, as_tensors, when_done
from actconform_keras.layers import BUILDERS, Site, loss_of
from actconform_keras.layers_memory import MEMORY_BUILDERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import keras
    import tensorflow as tf
    from numpy.typing import NDArray

    from actconform import Model
    from actconform.model import Layer
    from actconform.types import Bundle
    from actconform_keras.layers import Built

    Named = Mapping[str, tf.Tensor]


class Network:
    """A model as Keras has it: called with inputs and parameters by name, it gives every layer's value, the loss last.

    `keras_model` is what users would have: from the inputs that are no target to the values of all layers but the loss, by
    name. Raises `Unsupported` for a kind of layer that we have no builder for.
    """

    def __init__(self, model: Model, dtype: str) -> None:
        import keras

        self.model, self.dtype = model, KERAS_DTYPES[dtype]
        self._parameters: dict[str, str] = {}
        self._texts: dict[str, list[str]] = {}
        self.symbols = {
            one.name: keras.Input(one.shape, dtype=self.dtype, name=one.name)
            for one in model.inputs
            if one.role != "target"
        }
        values: dict[str, keras.KerasTensor] = {}
        *layers, last = model.layers
        for layer in layers:
            built = self._build(layer)
            values[layer.name] = built.call(*({**self.symbols, **values}[name] for name in layer.inputs))
            self._say(built.room, built.text)
            # A dropout has a variable too, for its random numbers, and it is no parameter.
            for variable, parameter in zip(built.layer.variables, model.parameters_of(layer.name), strict=False):
                self._parameters[variable.path] = parameter.name
        # Not the model's name: TensorFlow refuses "@" in a scope.
        self.keras_model = keras.Model(self.symbols, values, name="model")
        text, self._loss = loss_of(last.kind, self.dtype)
        self._say("keras.losses", text)

    @property
    def text(self) -> str:
        """What computes: "keras.layers: Dense, Activation(relu); keras.losses: MeanSquaredError", each once."""
        return "; ".join(f"{room}: {', '.join(texts)}" for room, texts in self._texts.items())

    def __call__(self, tensors: Named) -> dict[str, tf.Tensor]:
        own = self.keras_model
        given = {name: tensors[name] for name in self.symbols}
        values, _ = own.stateless_call(
            self._given(own.trainable_variables, tensors),
            self._given(own.non_trainable_variables, tensors),
            given,
            training=self.model.training,
        )
        prediction, target = self.model.layer(LOSS).inputs
        known = {**tensors, **values}
        return {**values, LOSS: self._loss(known[target], known[prediction])}

    def outputs(self, tensors: Named) -> dict[str, tf.Tensor]:
        """Return what a graph of the model gives: "y", "loss", and "layer.NAME" for each layer, the loss among them."""
        values = self(tensors)
        layers = {f"layer.{name}": value for name, value in values.items()}
        return {OUTPUT: values[self.model.output], LOSS: values[LOSS], **layers}

    def shipped(self, parameters: Bundle) -> keras.Model:
        """Return the Keras model from inputs to "y" alone, with `parameters` as its weights, as training would have left them."""
        import keras

        for variable in self.keras_model.variables:
            if variable.path in self._parameters:
                variable.assign(parameters[self._parameters[variable.path]].reshape(variable.shape))
        return keras.Model(self.symbols, {OUTPUT: self.keras_model.output[self.model.output]}, name="model")

    def _build(self, layer: Layer) -> Built:
        builders = {**BUILDERS, **MEMORY_BUILDERS}
        if layer.kind not in builders:
            raise Unsupported(f"keras has no layer of kind {layer.kind}")
        known = {one.name: one.shape for one in self.model.inputs} | self.model.shapes
        shapes = tuple(known[name] for name in layer.inputs)
        return builders[layer.kind](Site(layer, shapes, known[layer.name], self.model.training, self.dtype))

    def _say(self, room: str, text: str) -> None:
        said = self._texts.setdefault(room, [])
        if text not in said:
            said.append(text)

    def _given(self, variables: Iterable[keras.Variable], tensors: Named) -> list[tf.Tensor]:
        return [self._value(variable, tensors) for variable in variables]

    def _value(self, variable: keras.Variable, tensors: Named) -> tf.Tensor:
        from keras import ops

        if variable.path not in self._parameters:
            return variable.value
        tensor = tensors[self._parameters[variable.path]]
        # Keras splits the kernels of attention into heads.
        return tensor if tensor.shape == variable.shape else ops.reshape(tensor, variable.shape)


class KerasModelProgram(Program):
    """One model: numpy arrays to tensors, all layers and the loss eagerly, and back. What is returned has memory of its own."""

    def __init__(self, model: Model, dtype: str, device: str | None = None) -> None:
        self._model, self._network, self._device = model, Network(model, dtype), device
        self.implementation = self._network.text

    def forward(self, inputs: Bundle) -> Bundle:
        """Return "y" and "loss"; raise `Unsupported` where TensorFlow lacks the dtype."""
        return _arrays(self.ready(inputs)())

    def taps(self, inputs: Bundle) -> Bundle:
        """Return the value of every layer, of the run that `forward` makes."""
        tensors = as_tensors(inputs, self._device)
        return _arrays(when_done(lambda: self._run(tensors), self._device)())

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        """Return `d_<name>` for every differentiable name by tf.GradientTape, from the cotangent of "loss"."""
        return _arrays(self.ready(inputs, cotangents)())

    def ready(self, inputs: Bundle, cotangents: Bundle | None = None) -> Callable[[], dict[str, tf.Tensor]]:
        """Return what computes "y" and "loss", or with cotangents forward and tf.GradientTape, every "d_<name>", as tensors.

        Eagerly, as `forward` and `vjp` do, in no tf.function. On a GPU a call returns when the device is done.
        """
        tensors = as_tensors(inputs, self._device)
        if cotangents is None:
            return when_done(lambda: self._outputs(tensors), self._device)
        cotangent = as_tensors(cotangents, self._device)[LOSS]
        return when_done(lambda: self._gradients(tensors, cotangent), self._device)

    def _outputs(self, tensors: Named) -> dict[str, tf.Tensor]:
        values = self._run(tensors)
        return {OUTPUT: values[self._model.output], LOSS: values[LOSS]}

    def _gradients(self, tensors: Named, cotangent: tf.Tensor) -> dict[str, tf.Tensor]:
        tf = _tensorflow()
        sources = {name: tensors[name] for name in self._model.differentiable}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            loss = self._run(tensors)[LOSS]
        try:
            gradients = tape.gradient(loss, sources, output_gradients=cotangent)
        except tf.errors.OpError as error:
            raise _refusal(error) from error
        for name, gradient in gradients.items():
            if gradient is None:
                raise RuntimeError(
                    f"model {self._model.name}: no path from loss back to {name}, so there is no d_{name}"
                )
        return {f"d_{name}": tf.convert_to_tensor(gradient) for name, gradient in gradients.items()}

    def _run(self, tensors: Named) -> dict[str, tf.Tensor]:
        try:
            return self._network(tensors)
        except _tensorflow().errors.OpError as error:
            raise _refusal(error) from error


def _arrays(tensors: Named) -> dict[str, NDArray[Any]]:
    # Of a tensor without axes TensorFlow makes a number, no array.
    return {name: np.asarray(tensor.numpy()) for name, tensor in tensors.items()}
