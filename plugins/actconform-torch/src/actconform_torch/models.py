"""A reference model as one torch.nn.Module, and as a program over canonical numpy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actconform import Program
from actconform.plugin.framework import LayerContext, builder_of
from actconform.types.model import LOSS, OUTPUT
from actconform_torch.layers import BUILDERS
from actconform_torch.torch_module import arrays_of, import_torch, refusal, tensor_of, when_done

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor
    from torch.nn import Module

    from actconform.types import Bundle
    from actconform.types.model import Layer, Model
    from actconform_torch.layers import BuiltLayer

    Values = Callable[[Mapping[str, Tensor], dict[str, Tensor]], dict[str, Tensor]]


class TorchModel(Program):
    """A model: its torch.nn.Module, called with parameters of the caller, in whatever dtype the tensors have.

    Nothing is kept between calls: the module holds no numbers. `transform` is what becomes of the functions that are called: as
    they are, or compiled. Raises `Unsupported` where torch lacks a function for the dtype.
    """

    def __init__(
        self, model: Model, device: str = "cpu", transform: Callable[[Values], Values] = lambda values: values
    ) -> None:
        self._model, self._device = model, device
        self._network = Network(model)
        self.implementation = self._network.text
        self._layers = transform(self._network.values)
        self._ends = transform(lambda tensors, state: self._outputs(self._network.values(tensors, state)))
        self._loss = transform(lambda tensors, state: {LOSS: self._network.values(tensors, state)[LOSS]})

    def forward(self, inputs: Bundle) -> Bundle:
        """Return "y", channels last, and "loss"."""
        with import_torch().no_grad():
            outputs = self.prepare_call(inputs)()
        return arrays_of(outputs, inputs)

    def intermediates(self, inputs: Bundle) -> Bundle:
        """Return the value of every layer, channels last, from one forward pass."""
        tensors = self._tensors(inputs)
        with import_torch().no_grad():
            values = _computed(self._layers, tensors, self._network.state(tensors))
        return arrays_of(values, inputs)

    def statistics(self, inputs: Bundle) -> Bundle:
        """Return what torch writes into `running_mean` and `running_var`, here of copies, in one call in training."""
        tensors = self._tensors(inputs)
        state = self._network.state(tensors)
        with import_torch().no_grad():
            _computed(self._ends, tensors, state)
        return arrays_of(self._network.statistics(state), inputs)

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        """Return `d_<name>`, canonical, for every name of `model.differentiable`, by torch.autograd from the loss."""
        return arrays_of(self.prepare_call(inputs, cotangents)(), {**inputs, **cotangents})

    def prepare_call(self, inputs: Bundle, cotangents: Bundle | None = None) -> Callable[[], dict[str, Tensor]]:
        """Return what computes "y" and "loss", or with cotangents forward and torch.autograd.grad, every "d_<name>", as tensors.

        Parameters lie as torch.nn has them beforehand, as its users hold them. Without cotangents no tensor asks for a gradient,
        so nothing is recorded, as under torch.no_grad. On CUDA a call returns when the device is done.
        """
        tensors = self._tensors(inputs)
        if cotangents is None:
            state = self._network.state(tensors)
            return when_done(lambda: _computed(self._ends, tensors, state), self._device)
        wanted = [tensors[name].requires_grad_() for name in self._model.differentiable]
        names = [f"d_{name}" for name in self._model.differentiable]
        # Laid out anew but not computed: a call goes back through it by views, and it keeps nothing that a call would free.
        state = self._network.state(tensors)
        cotangent = tensor_of(cotangents[LOSS], self._device)
        grad = import_torch().autograd.grad

        def gradients() -> dict[str, Tensor]:
            loss = _computed(self._loss, tensors, state)[LOSS]
            try:
                return dict(zip(names, grad(loss, wanted, cotangent, materialize_grads=True), strict=True))
            except RuntimeError as error:
                raise refusal(error) from error

        return when_done(gradients, self._device)

    def _tensors(self, inputs: Bundle) -> dict[str, Tensor]:
        return {name: tensor_of(array, self._device) for name, array in inputs.items()}

    def _outputs(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {OUTPUT: values[self._model.output], LOSS: values[LOSS]}


def _computed(values: Values, tensors: Mapping[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    try:
        return values(tensors, state)
    except RuntimeError as error:
        raise refusal(error) from error


class Network:
    """The torch.nn.Module of a model, and how canonical parameters become its state.

    `module` takes the model's inputs by name, canonical, and gives every layer's value by name, channels last. Its parameters
    are on the device "meta", without numbers and drawn from no random state; it is in training mode if the model is.
    """

    def __init__(self, model: Model) -> None:
        torch = import_torch()
        self._model = model
        with torch.device("meta"):
            self._built = {
                layer.name: builder_of(layer, BUILDERS, "torch")(LayerContext.of(model, layer))
                for layer in model.layers
            }
        self.text = ", ".join(dict.fromkeys(built.text for built in self._built.values()))
        self.module = _module(model, self._built).train(model.training)

    def state(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the state of `module`, laid out as its users hold it; what torch would write to is copied."""
        state: dict[str, Tensor] = {}
        for name, built in self._built.items():
            short = {
                parameter.name.rpartition(".")[2]: parameters[parameter.name]
                for parameter in self._model.parameters_of(name)
            }
            state |= {
                f"layers.{_key(name)}.{place}": tensor.contiguous() for place, tensor in built.state(short).items()
            }
        return state

    def statistics(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the running means and variances that a state of `module` holds, by the canonical names."""
        endings = {"running_mean": "mean", "running_var": "variance"}
        return {
            f"{name}.{short}": tensor
            for name in self._built
            for place, tensor in state.items()
            if place.startswith(f"layers.{_key(name)}.") and (short := endings.get(place.rpartition(".")[2]))
        }

    def __call__(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return every layer's value for the model's inputs and parameters, all canonical, differentiable in them."""
        return self.values(tensors, self.state(tensors))

    def values(self, tensors: Mapping[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return every layer's value for the model's inputs, canonical, and a state of `module`."""
        from torch.func import functional_call

        inputs = {tensor.name: tensors[tensor.name] for tensor in self._model.inputs}
        values: dict[str, Tensor] = functional_call(self.module, state, (inputs,))
        return values

    def shipped(self, parameters: Bundle) -> Module:
        """Return `module` with `parameters` as its own, as a module that maps the inputs that are no targets to the output."""
        from torch.nn import Module

        model, layers = self._model, self.module
        tensors = {name: tensor_of(array).clone() for name, array in parameters.items()}
        layers.load_state_dict(self.state(tensors), assign=True)
        names = [tensor.name for tensor in model.inputs if tensor.role != "target"]

        class Shipped(Module):
            def __init__(self) -> None:
                super().__init__()
                self.network = layers

            def forward(self, *inputs: Tensor) -> Tensor:
                y: Tensor = self.network(dict(zip(names, inputs, strict=True)), model.layers[:-1])[model.output]
                return y

        return Shipped().train(model.training)


def _module(model: Model, built: Mapping[str, BuiltLayer]) -> Module:
    from torch.nn import Module, ModuleDict

    class Layers(Module):
        def __init__(self) -> None:
            super().__init__()
            modules = {_key(name): layer.compute for name, layer in built.items() if isinstance(layer.compute, Module)}
            self.layers = ModuleDict(modules)

        def forward(self, inputs: Mapping[str, Tensor], layers: Iterable[Layer] = model.layers) -> dict[str, Tensor]:
            values = {name: _channels_first(x).contiguous() for name, x in inputs.items()}
            for layer in layers:
                read = [values[name] for name in layer.inputs]
                step = built[layer.name]
                compute = self.layers[_key(layer.name)] if isinstance(step.compute, Module) else step.compute
                if step.channels_last:
                    values[layer.name] = _channels_first(compute(*map(_channels_last, read)))
                else:
                    values[layer.name] = compute(*read)
            return {layer.name: _channels_last(values[layer.name]) for layer in layers}

    return Layers()


def _key(layer: str) -> str:
    """Return the layer's name in the ModuleDict: none of a dict's own names, such as "keys"."""
    return f"layer-{layer}"


def _channels_first(x: Tensor) -> Tensor:
    """Return an image of (batch, height, width, channels) as torch.nn has it; anything else as it is."""
    return x.permute(0, 3, 1, 2) if x.dim() == 4 else x


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1) if x.dim() == 4 else x
