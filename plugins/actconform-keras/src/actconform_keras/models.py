"""A reference model as a functional keras.Model with a loss of keras.losses, and its program over numpy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from actconform import Program
from actconform.plugin.framework import builder_of
from actconform.types.model import LOSS, OUTPUT
from actconform_keras.engines import vjp_artifact
from actconform_keras.keras_module import KERAS_DTYPES
from actconform_keras.layers import BUILDERS, KerasContext, loss_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import keras
    from numpy.typing import NDArray

    from actconform import Model
    from actconform.types import Bundle
    from actconform.types.model import Layer
    from actconform_keras.engines import Engine, Named, Outputs
    from actconform_keras.layers import BuiltLayer


class Network:
    """A model as Keras has it: called with inputs and parameters by name, it gives every layer's value, the loss last.

    `keras_model` is what users would have: from the inputs that are no target to the values of all layers but the loss, by
    name. Raises `Unsupported` for a kind of layer that we have no builder for.
    """

    def __init__(self, model: Model, dtype: str) -> None:
        import keras

        self.model, self.dtype = model, KERAS_DTYPES[dtype]
        self.variables: dict[str, keras.Variable] = {}
        """By the names of the parameters that they are."""
        self._parameters: dict[str, str] = {}
        self._shapes = {parameter.name: parameter.shape for parameter in model.parameters}
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
                self.variables[parameter.name] = variable
        # Not the model's name: TensorFlow refuses "@" in a scope.
        self.keras_model = keras.Model(self.symbols, values, name="model")
        text, self.loss = loss_of(last.kind, self.dtype)
        self._say("keras.losses", text)

    @property
    def text(self) -> str:
        """What computes: "keras.layers: Dense, Activation(relu); keras.losses: MeanSquaredError", each once."""
        return "; ".join(f"{room}: {', '.join(texts)}" for room, texts in self._texts.items())

    def __call__(self, tensors: Named) -> Outputs:
        values, _ = self._called(tensors)
        prediction, target = self.model.layer(LOSS).inputs
        named = {**tensors, **values}
        return {**values, LOSS: self.loss(named[target], named[prediction])}

    def values(self, tensors: Named) -> Outputs:
        """Return the value of every layer but the loss."""
        return self._called(tensors)[0]

    def statistics(self, tensors: Named) -> Outputs:
        """Return what becomes of the variables that no gradient changes, by the names of the parameters that they are."""
        _, left = self._called(tensors)
        variables = self.keras_model.non_trainable_variables
        return {
            self._parameters[variable.path]: value
            for variable, value in zip(variables, left, strict=True)
            if variable.path in self._parameters
        }

    def _called(self, tensors: Named) -> tuple[Outputs, list[Any]]:
        """Return every layer's value but the loss's, and the variables that are not trained as the call leaves them."""
        network = self.keras_model
        values, left = network.stateless_call(
            self._tensors_of(network.trainable_variables, tensors),
            self._tensors_of(network.non_trainable_variables, tensors),
            {name: tensors[name] for name in self.symbols},
            training=self.model.training,
        )
        return values, left

    def outputs(self, tensors: Named) -> Outputs:
        """Return what a graph of the model gives: "y", "loss", and "layer.NAME" for each layer, the loss among them."""
        values = self(tensors)
        layers = {f"layer.{name}": value for name, value in values.items()}
        return {OUTPUT: values[self.model.output], LOSS: values[LOSS], **layers}

    def shipped(self, parameters: Bundle) -> keras.Model:
        """Return the Keras model from inputs to "y" alone, with `parameters` as its weights, as training would have left them."""
        import keras

        self.assign(parameters)
        return keras.Model(self.symbols, {OUTPUT: self.keras_model.output[self.model.output]}, name="model")

    def assign(self, parameters: Bundle) -> None:
        """Give the variables the values of the parameters that they are."""
        for name, variable in self.variables.items():
            variable.assign(parameters[name].reshape(variable.shape))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return copies of the variables' values, canonical, by the names of the parameters that they are."""
        return {name: self.array(name, variable) for name, variable in self.variables.items()}

    def array(self, name: str, value: Any) -> NDArray[Any]:
        """Return a copy of a tensor or variable of a parameter's shape in Keras in its canonical shape."""
        from keras import ops

        return np.array(ops.convert_to_numpy(value)).reshape(self._shapes[name])

    def _build(self, layer: Layer) -> BuiltLayer:
        build = builder_of(layer, BUILDERS, "keras")
        return build(KerasContext.of(self.model, layer, dtype=self.dtype))

    def _say(self, room: str, text: str) -> None:
        texts = self._texts.setdefault(room, [])
        if text not in texts:
            texts.append(text)

    def _tensors_of(self, variables: Iterable[keras.Variable], tensors: Named) -> list[Any]:
        return [self._value(variable, tensors) for variable in variables]

    def _value(self, variable: keras.Variable, tensors: Named) -> Any:
        from keras import ops

        if variable.path not in self._parameters:
            return variable.value
        tensor = tensors[self._parameters[variable.path]]
        # Keras splits the kernels of attention into heads.
        return tensor if tensor.shape == variable.shape else ops.reshape(tensor, variable.shape)


class KerasModelProgram(Program):
    """One model: numpy arrays to tensors, all layers and the loss, as the engine computes, and back, in memory of its own."""

    def __init__(self, model: Model, dtype: str, engine: Engine) -> None:
        self._model, self._network, self._engine = model, Network(model, dtype), engine
        self.implementation = self._network.text + engine.by
        self._layers, self._statistics = engine.compiled(self._network), engine.compiled(self._network.statistics)
        self._values, self._pulled = engine.compiled(self._outputs), engine.compiled(self._gradients)

    def forward(self, inputs: Bundle) -> Bundle:
        """Return "y" and "loss"; raise `Unsupported` where Keras's backend lacks the dtype."""
        return self._engine.arrays(self.prepare_call(inputs)())

    def intermediates(self, inputs: Bundle) -> Bundle:
        """Return the value of every layer, of a run as `forward` makes it."""
        tensors = self._engine.tensors(inputs)
        return self._engine.arrays(self._engine.whole(self._layers, tensors)())

    def statistics(self, inputs: Bundle) -> Bundle:
        """Return the moving means and variances after one call, which the layers themselves never see."""
        tensors = self._engine.tensors(inputs)
        return self._engine.arrays(self._engine.whole(self._statistics, tensors)())

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        """Return `d_<name>` for every differentiable name, from the cotangent of "loss"."""
        return self._engine.arrays(self.prepare_call(inputs, cotangents)())

    def prepare_call(self, inputs: Bundle, cotangents: Bundle | None = None) -> Callable[[], Outputs]:
        """Return what computes "y" and "loss", or with cotangents forward and backward, every "d_<name>", as tensors."""
        engine = self._engine
        tensors = engine.tensors(inputs)
        if cotangents is None:
            return engine.whole(self._values, tensors)
        cotangent = engine.tensors(cotangents)[LOSS]
        return engine.whole(self._pulled, tensors, cotangent)

    def close(self) -> None:
        self._engine.close()

    def _outputs(self, tensors: Named) -> Outputs:
        values = self._network(tensors)
        return {OUTPUT: values[self._model.output], LOSS: values[LOSS]}

    def _gradients(self, tensors: Named, cotangent: Any) -> Outputs:
        sources = {name: tensors[name] for name in self._model.differentiable}
        pulled = self._engine.gradients(lambda watched: self._network({**tensors, **watched})[LOSS], sources, cotangent)
        return vjp_artifact(pulled, f"model {self._model.name}", LOSS)
