"""A reference model as one function of its tensors by name, and as a program over canonical numpy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform import Program
from actconform.plugin.framework import LayerContext, builder_of
from actconform.types.model import LOSS, OUTPUT
from actconform_jax.jax_module import array_of, import_jax, numpy_of, when_done
from actconform_jax.layers import BUILDERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jax import Array

    from actconform.types import Bundle
    from actconform.types.model import Layer, Model

    Named = Mapping[str, Array]


class Network:
    """A model: called with inputs and parameters by name, canonical, it gives every layer's value. Pure, as JAX wants it.

    Raises `Unsupported` for a kind of layer that we have no builder for.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._built = {
            layer.name: builder_of(layer, BUILDERS, "jax")(LayerContext.of(model, layer)) for layer in model.layers
        }
        self.text = ", ".join(dict.fromkeys(built.text for built in self._built.values()))

    def __call__(self, tensors: Named, layers: Sequence[Layer] | None = None) -> dict[str, Array]:
        """Return the values of `layers`, by default of all."""
        known = dict(tensors)
        wanted = self._model.layers if layers is None else layers
        for layer in wanted:
            parameters = {
                one.name.rpartition(".")[2]: tensors[one.name] for one in self._model.parameters_of(layer.name)
            }
            known[layer.name] = self._built[layer.name].compute(parameters, *(known[name] for name in layer.inputs))
        return {layer.name: known[layer.name] for layer in wanted}

    def outputs(self, tensors: Named) -> dict[str, Array]:
        """Return "y" and "loss"."""
        values = self(tensors)
        return {OUTPUT: values[self._model.output], LOSS: values[LOSS]}

    def gradients(self, tensors: Named, cotangent: Array) -> dict[str, Array]:
        """Return `d_<name>` for every differentiable name, by jax.vjp from the cotangent of "loss"."""
        names = self._model.differentiable
        fixed = {name: tensor for name, tensor in tensors.items() if name not in names}
        _, pull = import_jax().vjp(
            lambda moved: self({**fixed, **moved})[LOSS], {name: tensors[name] for name in names}
        )
        (pulled,) = pull(cotangent)
        return {f"d_{name}": gradient for name, gradient in pulled.items()}


class JaxModel(Program):
    """A model: forward, layers and gradients, each one compiled function of the tensors that it is given."""

    def __init__(self, model: Model) -> None:
        jax = import_jax()
        network = Network(model)
        self.implementation = network.text
        self._outputs, self._layers = jax.jit(network.outputs), jax.jit(network)
        self._gradients = jax.jit(network.gradients)

    def forward(self, inputs: Bundle) -> Bundle:
        """Return "y", channels last, and "loss"."""
        return numpy_of(self.prepare_call(inputs)())

    def intermediates(self, inputs: Bundle) -> Bundle:
        """Return the value of every layer, channels last: of a compilation of its own, in which they all are outputs."""
        return numpy_of(when_done(self._layers, {name: array_of(array) for name, array in inputs.items()})())

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        """Return `d_<name>`, canonical, for every name of `model.differentiable`."""
        return numpy_of(self.prepare_call(inputs, cotangents)())

    def prepare_call(self, inputs: Bundle, cotangents: Bundle | None = None) -> Callable[[], dict[str, Array]]:
        """Return what computes "y" and "loss", or with cotangents every "d_<name>"; a call returns when all is computed."""
        tensors = {name: array_of(array) for name, array in inputs.items()}
        if cotangents is None:
            return when_done(self._outputs, tensors)
        return when_done(self._gradients, tensors, array_of(cotangents[LOSS]))
