"""A user's torch module as a TrainedModel: run in any precision with the values of its layers, differentiated, and left as it was."""

from __future__ import annotations

import re
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import numpy as np
import torch

from actconform import SourceError, TrainedModel, Unsupported
from actconform.plugin.user_factory import fault_with_lines
from actconform.text import one_line
from actconform.types.trained import ALL_PRECISIONS, OpenedModel, RunMode, TensorSpec, TrainedRun
from actconform_torch.failed_layer import failed_layer
from actconform_torch.layer_call import called_layer, outputs_of, widened
from actconform_torch.layer_recorder import LayerRecorder
from actconform_torch.module_state import DTYPES, as_for_call, device_of, float_dtype, plain_tensors
from actconform_torch.script_copies import ScriptCopies
from actconform_torch.torch_module import array_of, tensor_of
from actconform_torch.trained_call import Call, output_tensors
from actconform_torch.training_losses import training_losses

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from actconform.types.trained import LayerCall, Precision
    from actconform_torch.layer_call import Arguments
    from actconform_torch.trained_source import Opened

    Arrays = Mapping[str, NDArray[Any]]

NATIVE, WIDE = RunMode(), RunMode("float64")
TRAINING_SEED = 18  # a training run draws the same each time
# What torch says of a dtype that a function lacks, or of two that do not go together.
_DTYPE_WORDS = re.compile(
    r"not implemented for|expected .*(dtype|scalar type)|same dtype|Input type .* should be the same|unsupported (dtype|scalar type)",
    re.IGNORECASE,
)
# What TorchScript puts before an error: the lines of its code.
_SCRIPT_LINES = re.compile(r"\AThe following operation failed in the TorchScript interpreter\..*\n(?=\w+: )", re.DOTALL)


class TorchTrainedModel(TrainedModel):
    """A module of the user's, not copied but for modules of TorchScript, which are for each call."""

    def __init__(self, opened: Opened, folder: str = "") -> None:
        self.module, self.program = opened.module, opened.program
        self.call = Call(opened.signature, opened.example)
        self._notes, self._folder = opened.notes, folder
        self._scripts = ScriptCopies(opened.module)
        self._runs = 0

    @property
    def scripted(self) -> bool:
        """Whether it is a module of TorchScript."""
        return isinstance(self.module, torch.jit.ScriptModule)

    @property
    def about(self) -> OpenedModel:
        """What it is and takes."""
        weights = {id(weight): weight.numel() for weight in self.module.parameters()}
        kind = "a program of torch.export" if self.program is not None else _class_of(self.module)
        return OpenedModel(
            framework="torch",
            about=f"{kind}, {sum(weights.values()):,} weights",
            inputs=self._inputs(),
            example={name: array_of(tensor, {}).copy() for name, tensor in self.call.example.items()},
            parameters=tuple(
                TensorSpec(name, _name_of(tensor.dtype), tuple(tensor.shape)) for name, tensor in self._weights()
            ),
            precisions=self._precisions(),
            trainable=self._trains,
            differentiable=True,
            exporters=self._exporters(),
            notes=self._notes,
            losses=training_losses(self.module),
        )

    def run(self, inputs: Arrays, mode: RunMode, *, layers: bool = False) -> TrainedRun:
        """Return the outputs, with `layers` the values of all modules and of the functions of torch that they call.

        Raises SourceError where the inputs do not fit or `forward` raises, naming the layer; Unsupported where torch cannot compute in the precision.
        """
        with self._called(inputs, mode, layers=layers) as (module, tensors), torch.no_grad():
            arguments = self.call.bound(tensors)
            if not layers:
                return TrainedRun(outputs=_arrays(self._forward(module, arguments, mode)))
            with LayerRecorder(module, tensors.values()) as recorder:
                outputs = self._forward(module, arguments, mode)
            return TrainedRun(outputs=_arrays(outputs), layers=recorder.layers, tensors=recorder.tensors)

    def gradients(self, inputs: Arrays, cotangents: Arrays, mode: RunMode) -> dict[str, NDArray[Any]]:
        """Return "d_NAME" of every float input and every parameter, frozen ones too, by torch.autograd; 0 where an output does not depend on it."""
        with self._called(inputs, mode) as (module, tensors), torch.enable_grad():
            # A name of a tied weight is one more name of the same gradient.
            named = dict(module.named_parameters(remove_duplicate=False))
            leaves = {name: tensor for name, tensor in (*named.items(), *tensors.items()) if _is_float(tensor)}
            for tensor in leaves.values():
                tensor.requires_grad_()
            # A leaf can be written to by no layer in place.
            arguments = self.call.bound(
                {name: tensor.clone() if _is_float(tensor) else tensor for name, tensor in tensors.items()}
            )
            outputs = self._forward(module, arguments, mode)
            pulled = {name: outputs[name] for name in cotangents if name in outputs and outputs[name].requires_grad}
            if missing := [name for name in cotangents if name not in outputs]:
                raise SourceError(f"no output {missing[0]!r}: the model gives {', '.join(outputs)}")
            if not pulled:
                raise Unsupported(
                    f"no gradient passes through forward to {', '.join(cotangents)}: it is computed without one, as under torch.no_grad"
                )
            seeds = [tensor_of(np.asarray(cotangents[name])).to(tensor) for name, tensor in pulled.items()]
            try:
                gradients = torch.autograd.grad(
                    list(pulled.values()), list(leaves.values()), seeds, allow_unused=True, materialize_grads=True
                )
            except RuntimeError as error:  # of what forward does: it writes in place, say
                raise Unsupported(f"torch.autograd: {one_line(str(error), 600)}") from error
            return {
                f"d_{name}": array_of(gradient, {}).copy() for name, gradient in zip(leaves, gradients, strict=True)
            }

    def layer_call(self, inputs: Arrays, layer: str) -> LayerCall:
        """Return the call of a layer in a run of the module; of a function, of the module that calls it."""
        with self._called(inputs, NATIVE) as (module, tensors), torch.no_grad():
            try:
                call, part, arguments = called_layer(module, self.call.bound(tensors), layer)
                outputs = outputs_of(part, arguments)
            except Exception as error:  # noqa: BLE001  whatever the user's code raises is explained
                self._explain(error, module, NATIVE)
        return msgspec.structs.replace(call, outputs=outputs, exact=self._exact_outputs(inputs, call.path, arguments))

    def _exact_outputs(self, inputs: Arrays, path: str, arguments: Arguments) -> tuple[NDArray[Any], ...]:
        """Return what a layer gives in float64; nothing where it cannot compute so."""
        if "float64" not in self._precisions():
            return ()
        with self._called(inputs, WIDE) as (module, _), torch.no_grad():
            try:
                return outputs_of(module.get_submodule(path) if path else module, widened(arguments))
            except Exception as error:
                if isinstance(error, MemoryError):
                    raise
                return ()

    def input_tensors(self, inputs: Arrays, mode: RunMode = NATIVE) -> dict[str, torch.Tensor]:
        """Return inputs as tensors in the dtypes that the model wants; raise SourceError where the example has numbers of another kind."""
        return {name: self._tensor(name, array, mode) for name, array in inputs.items()}

    def parameters(self) -> dict[str, NDArray[Any]]:
        """Return all parameters, buffers and tensors that are plain attributes of modules."""
        return {name: array_of(tensor, {}).copy() for name, tensor in self._weights()}

    @contextmanager
    def _called(
        self, inputs: Arrays, mode: RunMode, *, layers: bool = False
    ) -> Iterator[tuple[torch.nn.Module, dict[str, torch.Tensor]]]:
        """Prepare for one call: yield the module and the inputs as tensors."""
        if mode.precision not in self._precisions():
            raise Unsupported(f"{_class_of(self.module)} does not run in {mode.precision}")
        if mode.training and not self._trains:
            kind = "a program of torch.export" if self.program is not None else "a frozen module of TorchScript"
            raise Unsupported(f"{kind} does not train: name the factory of the module")
        self._runs += 1
        with ExitStack() as stack:
            wide = mode.precision == "float64"
            module = stack.enter_context(self._scripts.in_place(layers=layers, wide=wide))
            # What an untrained model draws by chance must show as such when it runs again.
            stack.enter_context(as_for_call(module, mode, TRAINING_SEED if mode.training else self._runs))
            yield module, self.input_tensors(inputs, mode)

    def _forward(
        self, module: torch.nn.Module, arguments: tuple[tuple[Any, ...], dict[str, Any]], mode: RunMode
    ) -> dict[str, torch.Tensor]:
        args, kwargs = arguments
        try:
            outputs = output_tensors(module(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  whatever the user's code raises is explained
            self._explain(error, module, mode)
        if not outputs:
            raise SourceError(f"{_class_of(self.module)} gives no tensor")
        return outputs

    def _explain(self, error: Exception, module: torch.nn.Module, mode: RunMode) -> NoReturn:
        """Raise what a fault of `forward` is: short memory itself, a precision that torch lacks, or the user's to change."""
        if isinstance(error, MemoryError | SourceError | Unsupported) or "OutOfMemory" in type(error).__name__:
            raise error
        name = failed_layer(error, module)
        layer = module.get_submodule(name or "")
        kind = getattr(layer, "original_name", type(layer).__name__)  # TorchScript has the class's own name there
        place = f"layer {name} ({kind})" if name else kind
        words = one_line(_SCRIPT_LINES.sub("", str(error)), 600)
        if mode.precision != "native" and (self._scripts or _DTYPE_WORDS.search(words)):
            raise Unsupported(f"{place} does not run in {mode.precision}: {words}") from error
        raise SourceError(f"{place} raised {fault_with_lines(error, self._folder)}") from error

    def _tensor(self, name: str, array: NDArray[Any], mode: RunMode) -> torch.Tensor:
        """Return an input in the dtype that the model wants; raise SourceError where it is no number of that kind."""
        tensor = tensor_of(np.array(array)).to(device_of(self.module))
        example = self.call.example.get(name)
        if example is not None and _family(example.dtype) != _family(tensor.dtype):
            raise SourceError(f"input {name!r} is {_name_of(tensor.dtype)}: the example has {_name_of(example.dtype)}")
        if not tensor.is_floating_point():
            return tensor if example is None else tensor.to(example.dtype)
        wanted = example.dtype if example is not None else float_dtype(self.module)
        return tensor.to(DTYPES.get(mode.precision, wanted or tensor.dtype))

    def _inputs(self) -> tuple[TensorSpec, ...]:
        specs = []
        for name in self.call.names:
            example = self.call.example.get(name)
            if example is None:
                specs.append(TensorSpec(name, ""))
            else:
                specs.append(TensorSpec(name, _name_of(example.dtype), (None,) * example.dim()))
        return tuple(specs)

    def _weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        names = set()
        for named in (
            self.module.named_parameters(remove_duplicate=False),
            self.module.named_buffers(remove_duplicate=False),
            _attributes(self.module),
        ):
            for name, tensor in named:
                if name not in names and not tensor.is_quantized and tensor.layout is torch.strided:
                    names.add(name)
                    yield name, tensor

    @property
    def _trains(self) -> bool:
        return self.program is None and hasattr(self.module, "training")

    def _precisions(self) -> tuple[Precision, ...]:
        return ("native", "float64") if self.scripted else ALL_PRECISIONS

    def _exporters(self) -> tuple[str, ...]:
        if self.scripted:
            return ("torch-torchscript",)
        return ("torch-dynamo",) if self.program is not None else ("torch-dynamo", "torch-torchscript")


def _attributes(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for path, part in module.named_modules():
        for name, tensor in plain_tensors(part):
            yield f"{path}.{name}" if path else name, tensor


def _arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, NDArray[Any]]:
    return {name: array_of(tensor.resolve_conj().resolve_neg(), {}).copy() for name, tensor in tensors.items()}


def _is_float(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _family(dtype: torch.dtype) -> str:
    if dtype.is_floating_point:
        return "float"
    return "complex" if dtype.is_complex else "bool" if dtype is torch.bool else "int"


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _class_of(module: torch.nn.Module) -> str:
    original = getattr(module, "original_name", None)
    return f"{original} (TorchScript)" if isinstance(original, str) else f"{type(module).__name__} (torch.nn.Module)"
