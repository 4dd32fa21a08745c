"""A user's JAX model as a TrainedModel: run in any precision with the values of its layers, differentiated, and left as it was."""

from __future__ import annotations

import functools
import inspect
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from actconform import SourceError, TrainedModel, Unsupported
from actconform.plugin.user_factory import fault_with_lines
from actconform.text import one_line
from actconform.types.trained import OpenedModel, RunMode, TensorSpec, TrainedRun
from actconform_jax.layer_recorder import ModuleCalls
from actconform_jax.traced_model import TracedModel
from actconform_jax.trained_call import Call
from actconform_jax.trained_weights import held_names, is_float, is_key, is_nnx_module, taken_apart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from actconform.types.trained import Precision
    from actconform_jax.trained_source import Opened
    from actconform_jax.trained_weights import Array, Parts

    Arrays = Mapping[str, NDArray[Any]]

NARROW = {"float16": np.dtype("float16"), "bfloat16": jax.numpy.dtype("bfloat16")}
EXPORTERS = ("jax2onnx",)
TRACES = 8  # that are kept: of the last shapes and modes


class JaxTrainedModel(TrainedModel):
    """A model of the user's, not copied: each call computes with its arrays of that moment, in a program that is traced once for their shapes."""

    def __init__(self, opened: Opened, folder: str = "") -> None:
        self.model = opened.model
        self.call = Call(signature_of(opened.model), opened.example)
        self._notes, self._folder = opened.notes, folder
        self._traces: dict[tuple[Any, ...], TracedModel] = {}

    @property
    def about(self) -> OpenedModel:
        """What it is and takes."""
        weights = self._weights()
        trainable = is_nnx_module(self.model)
        narrow: tuple[Precision, ...] = ("float16", "bfloat16") if self._parts(RunMode()).arrays else ()
        return OpenedModel(
            framework="jax",
            about=f"{self.kind.rpartition('.')[2]} ({_family(self.model)}), {sum(each.size for each in weights.values()):,} weights",
            inputs=tuple(self._input(name) for name in self.call.names),
            example={name: np.array(array) for name, array in self.call.example.items()},
            parameters=tuple(TensorSpec(name, each.dtype.name, each.shape) for name, each in weights.items()),
            precisions=("native", "float64", *narrow),
            trainable=trainable,
            differentiable=True,
            exporters=EXPORTERS,
            notes=(*self._notes, *self._narrowed(weights)),
        )

    @property
    def kind(self) -> str:
        """The class of the model, or the name of the function."""
        model = self.model.func if isinstance(self.model, functools.partial) else self.model
        if inspect.ismethod(model) or not hasattr(model, "__name__"):
            owner = getattr(model, "__self__", model)
            return f"{type(owner).__module__}.{type(owner).__qualname__}"
        return f"function {model.__name__}"

    def run(self, inputs: Arrays, mode: RunMode, *, layers: bool = False) -> TrainedRun:
        """Return the outputs, with `layers` the values of all modules and of the primitives between them.

        Raises SourceError where the inputs do not fit or the model raises, naming the module; Unsupported where JAX cannot compute in the precision.
        """
        parts, tensors, wide = self._parts(mode), self.input_arrays(inputs, mode), mode.precision == "float64"
        traced = self._traced(parts, inputs, mode)
        with self._explained(mode):
            if not layers:
                return TrainedRun(outputs=_arrays(traced.run(parts.arrays, tensors, wide=wide)))
            names = list(self._weights(parts, traced))
            values = traced.layers(parts.arrays, tensors, kind=self.kind, parameters=names, wide=wide)
            return TrainedRun(
                outputs=_arrays(values.outputs),
                layers=values.layers,
                tensors=[np.array(each) for each in values.tensors],
            )

    def gradients(self, inputs: Arrays, cotangents: Arrays, mode: RunMode) -> dict[str, NDArray[Any]]:
        """Return "d_NAME" of every float input and every parameter, by jax.vjp; 0 where an output does not depend on it."""
        parts, tensors, wide = self._parts(mode), self.input_arrays(inputs, mode), mode.precision == "float64"
        traced = self._traced(parts, inputs, mode)
        if missing := [name for name in cotangents if name not in traced.outputs]:
            raise SourceError(f"no output {missing[0]!r}: the model gives {', '.join(traced.outputs)}")
        wanted = {*tensors, *self._weights(parts, traced)}
        with self._explained(mode):
            pulled = traced.gradients(parts.arrays, tensors, cotangents, wide=wide)
            return _arrays({f"d_{name}": array for name, array in pulled.items() if name in wanted})

    def parameters(self) -> dict[str, NDArray[Any]]:
        """Return all arrays but states of random numbers; of a function that holds its weights itself, those by number."""
        return _arrays(self._weights())

    def in_mode(self, *, training: bool) -> Callable[..., Any]:
        """Return the model as it is called in inference or in training, its own class, sharing nothing that a call can change."""
        parts = taken_apart(self.model, training=training)
        model: Callable[..., Any] = parts.rebuilt(parts.arrays)
        return model

    def input_arrays(self, inputs: Arrays, mode: RunMode) -> dict[str, Array]:
        """Return inputs in the dtypes that the model wants; raise SourceError where the example has numbers of another kind."""
        return {name: self._input_array(name, array, mode) for name, array in inputs.items()}

    def _input_array(self, name: str, array: NDArray[Any], mode: RunMode) -> Array:
        example = self.call.example.get(name)
        if example is not None and _kind_of(example.dtype) != _kind_of(array.dtype):
            raise SourceError(f"input {name!r} is {array.dtype.name}: the example has {example.dtype.name}")
        if not is_float(array):
            return jax.numpy.asarray(array, None if example is None else example.dtype)
        if mode.precision == "float64":
            return np.asarray(array, np.float64)
        return jax.numpy.asarray(array, NARROW.get(mode.precision, None if example is None else example.dtype))

    def _parts(self, mode: RunMode) -> Parts:
        parts = taken_apart(self.model, training=mode.training)
        narrow = NARROW.get(mode.precision)
        if narrow is None:
            return parts
        rounded = {name: each.astype(narrow) if is_float(each) else each for name, each in parts.arrays.items()}
        return parts._replace(arrays=rounded)

    def _traced(self, parts: Parts, inputs: Arrays, mode: RunMode) -> TracedModel:
        """Return the program for arguments of these shapes, traced in the format in which the weights are."""
        native = mode if mode.precision in NARROW else RunMode(training=mode.training)
        tensors = self.input_arrays(inputs, native)
        shapes = [(name, each.shape, str(each.dtype)) for name, each in (*parts.arrays.items(), *tensors.items())]
        key = (native, *shapes)
        if key not in self._traces:
            calls = ModuleCalls()
            with self._explained(mode, calls):
                traced = TracedModel(parts, self.call, tensors, calls, held_names(self.model))
            while len(self._traces) >= TRACES:
                self._traces.pop(next(iter(self._traces)))
            self._traces[key] = traced
        return self._traces[key]

    def _weights(self, parts: Parts | None = None, traced: TracedModel | None = None) -> dict[str, Array]:
        """Return all arrays by name that are no states of random numbers; without any, those that the function holds as it was traced."""
        parts = parts or self._parts(RunMode())
        weights = {name: each for name, each in parts.arrays.items() if name not in parts.random and not is_key(each)}
        if weights:
            return weights
        if traced is None and self.call.example:
            traced = self._traced_example()
        traced = traced or next(reversed(self._traces.values()), None)
        constants = traced.constants if traced else {}
        return {name: each for name, each in constants.items() if is_float(each) and each.size > 1}

    def _narrowed(self, weights: Mapping[str, Array]) -> Iterator[str]:
        """Yield a note where the model computes in a narrower format than its weights have, which float64 and an export may not follow."""
        try:
            formats = self._traced_example().formats() if self.call.example else set()
        except (SourceError, Unsupported):  # it is told when the model is run
            return
        narrow = sorted(formats & set(NARROW) - {str(each.dtype) for each in weights.values()})
        if narrow:
            yield f"parts of it are computed in {' and '.join(narrow)} by its own dtype, as it runs: not in float64, and an exporter may leave that out"

    def _traced_example(self) -> TracedModel:
        example = {name: np.asarray(each) for name, each in self.call.example.items()}
        return self._traced(self._parts(RunMode()), example, RunMode())

    def _input(self, name: str) -> TensorSpec:
        example = self.call.example.get(name)
        return TensorSpec(name, "") if example is None else TensorSpec(name, example.dtype.name, (None,) * example.ndim)

    @contextmanager
    def _explained(self, mode: RunMode, calls: ModuleCalls | None = None) -> Iterator[None]:
        """Raise what a fault of the user's code is: short memory itself, a precision that JAX lacks, or the user's to change."""
        try:
            yield
        except (MemoryError, SourceError):
            raise
        except Exception as error:
            place = f"layer {calls.failed}" if calls and calls.failed else self.kind
            if calls is None or mode.precision in NARROW:  # it ran natively when it was traced
                raise Unsupported(f"{place} does not run in {mode.precision}: {one_line(str(error), 600)}") from error
            if isinstance(error, jax.errors.ConcretizationTypeError | jax.errors.TracerArrayConversionError):
                words = one_line(str(error).partition("\n")[0], 300)
                raise SourceError(
                    f"{place} is no function that JAX can trace ({words}): {fault_with_lines(error, self._folder)}"
                ) from error
            raise SourceError(f"{place} raised {fault_with_lines(error, self._folder)}") from error


def signature_of(model: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a model, of *args where it has none to show."""
    try:
        return inspect.signature(model)
    except (TypeError, ValueError):
        return inspect.Signature([inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL)])


def _family(model: object) -> str:
    if is_nnx_module(model):
        return "flax.nnx"
    packages = [base.__module__.partition(".")[0] for base in type(model).__mro__]
    return "equinox" if "equinox" in packages else "JAX"


def _kind_of(dtype: Any) -> str:
    if jax.numpy.issubdtype(dtype, jax.numpy.floating):  # bfloat16 too
        return "float"
    return {"b": "bool", "c": "complex"}.get(np.dtype(dtype).kind, "int")


def _arrays(arrays: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
    return {name: np.array(array) for name, array in arrays.items()}
