"""A user's model traced to a program of JAX for inputs of given shapes, and what is compiled of it: outputs, layers and gradients."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from jax.extend import core

from actconform import SourceError
from actconform_jax.layer_recorder import LayerRecorder, Value
from actconform_jax.trained_call import output_arrays
from actconform_jax.trained_jaxpr import Evaluator, dtypes_of, widened
from actconform_jax.trained_weights import is_float

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from actconform.types.trained import LayerRecord
    from actconform_jax.layer_recorder import ModuleCalls
    from actconform_jax.trained_call import Call
    from actconform_jax.trained_weights import Array, Parts

    Arrays = Mapping[str, Array]


class LayerValues(NamedTuple):
    """What a run with layers gave."""

    outputs: dict[str, Array]
    layers: list[LayerRecord]
    tensors: list[Array]


class TracedModel:
    """A model as a program of its arrays and inputs, the one that `jax.jit` compiles; what the user's code raises is raised.

    With `wide` the same program is computed with every float in float64, whatever formats it converts to. Its arguments may then be float64.
    """

    def __init__(
        self,
        parts: Parts,
        call: Call,
        tensors: Arrays,
        calls: ModuleCalls,
        held: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        self.outputs: list[str] = []
        self._calls = calls
        self._compiled: dict[tuple[str, bool], Callable[..., Any]] = {}
        self._layers: list[LayerRecord] = []

        def function(arrays: Arrays, tensors: Arrays) -> list[Array]:
            model = parts.rebuilt(arrays)
            with calls.seen(model):
                args, kwargs = call.bound(tensors)
                outputs = output_arrays(model(*args, **kwargs))
            self.outputs = list(outputs)
            return list(outputs.values())

        self._arrays, self._inputs = sorted(parts.arrays), sorted(tensors)  # as JAX orders what a dict holds
        self._program = jax.make_jaxpr(function)(dict(parts.arrays), dict(tensors))
        if not self.outputs:
            raise SourceError("the model gives no array")
        self.constants: dict[str, Array] = {
            held.get(id(value), f"constant_{place}"): jax.numpy.asarray(value)
            for place, value in enumerate(self._program.consts)
        }
        """Arrays that the function holds, which are no arguments of it, named by `held` as far as it has their ids."""

    def formats(self) -> set[str]:
        """Return the floating formats in which the program computes, by name."""
        return {
            str(dtype) for dtype in dtypes_of(self._program.jaxpr) if jax.numpy.issubdtype(dtype, jax.numpy.floating)
        }

    def run(self, arrays: Arrays, tensors: Arrays, *, wide: bool) -> dict[str, Array]:
        """Return the outputs by name."""
        function = _evaluation(self._program, wide=wide)
        results = self._called("run", function, self._operands(arrays, tensors), wide=wide)
        return dict(zip(self.outputs, results, strict=True))

    def layers(
        self, arrays: Arrays, tensors: Arrays, *, kind: str, parameters: Sequence[str], wide: bool
    ) -> LayerValues:
        """Return the outputs and the values of all layers, computed by one compiled program; `kind` is the class of the model."""
        trained = frozenset(parameters)

        def function(*operands: Array) -> tuple[list[Array], list[Array]]:
            recorder = LayerRecorder(self._calls.calls, parameters, wide=wide)
            arrays = dict(zip((*self._arrays, *self._inputs), operands, strict=True))
            inputs = {name: recorder.input(arrays[name]) for name in tensors}
            weights = [Value(arrays[name], weights=trained & {name}) for name in self._arrays]
            constants = [
                Value(recorder.constant(array, array.dtype).array, weights=trained & {name})
                for name, array in self.constants.items()
            ]
            results = recorder.run(self._program.jaxpr, constants, [*weights, *(inputs[name] for name in self._inputs)])
            places = [place for value in results if (place := recorder.output(value)) is not None]
            self._layers = recorder.layers(kind, range(len(inputs)), places)
            return [value.array for value in results], recorder.tensors

        results, recorded = self._called("layers", function, self._operands(arrays, tensors), wide=wide)
        return LayerValues(dict(zip(self.outputs, results, strict=True)), self._layers, recorded)

    def gradients(self, arrays: Arrays, tensors: Arrays, cotangents: Arrays, *, wide: bool) -> dict[str, Array]:
        """Return the cotangents, by output, pulled back by jax.vjp to every array, constant and input of floats."""
        names = [*self._arrays, *self._inputs, *self.constants]
        avals = [*self._program.in_avals, *self.constants.values()]
        moving = [name for name, aval in zip(names, avals, strict=True) if is_float(aval)]
        count = len(self._program.in_avals)

        def backward(operands: Sequence[Array], seeds: Sequence[Array]) -> list[Array]:
            leaves = dict(zip(names, (*operands, *self.constants.values()), strict=True))

            def outputs(moved: Arrays) -> list[Array]:
                values = list({**leaves, **moved}.values())
                program = core.jaxpr_as_fun(core.ClosedJaxpr(self._program.jaxpr, values[count:]))
                results = dict(zip(self.outputs, program(*values[:count]), strict=True))
                return [results[name] for name in cotangents]

            _, pull = jax.vjp(outputs, {name: leaves[name] for name in moving})
            return [pull(list(seeds))[0][name] for name in moving]

        results = dict(zip(self.outputs, self._program.out_avals, strict=True))
        seeds = [jax.ShapeDtypeStruct(results[name].shape, results[name].dtype) for name in cotangents]
        inputs = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in self._program.in_avals]
        # Traced as it is and then widened: so the rules of jax.custom_vjp are differentiated, and not what they replace.
        program = jax.make_jaxpr(backward)(inputs, seeds)
        numbers = [
            jax.numpy.asarray(cotangents[name], spec.dtype) if not wide else cotangents[name]
            for name, spec in zip(cotangents, seeds, strict=True)
        ]
        key = f"gradients of {', '.join(cotangents)}"
        pulled = self._called(
            key, _evaluation(program, wide=wide), [*self._operands(arrays, tensors), *numbers], wide=wide
        )
        return dict(zip(moving, pulled, strict=True))

    def _operands(self, arrays: Arrays, tensors: Arrays) -> list[Array]:
        return [*(arrays[name] for name in self._arrays), *(tensors[name] for name in self._inputs)]

    def _called(self, key: str, function: Callable[..., Any], operands: Sequence[Array], *, wide: bool) -> Any:
        """Return what a function gives, compiled once for each thing to be done with the model."""
        with jax.enable_x64(wide or bool(getattr(jax.config, "jax_enable_x64", False))):
            if wide:
                operands = [widened(jax.numpy.asarray(each)) for each in operands]
            compiled = self._compiled.setdefault((key, wide), jax.jit(function))
            return jax.block_until_ready(compiled(*operands))


def _evaluation(program: core.ClosedJaxpr, *, wide: bool) -> Callable[..., list[Array]]:
    if not wide:
        function: Callable[..., list[Array]] = core.jaxpr_as_fun(program)
        return function

    def evaluated(*operands: Array) -> list[Array]:
        consts = [widened(jax.numpy.asarray(value)) for value in program.consts]
        return Evaluator(wide=True).run(program.jaxpr, consts, operands)

    return evaluated
