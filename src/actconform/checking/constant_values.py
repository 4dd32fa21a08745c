"""The values of tensors that a model stores or computes of such alone, whatever its inputs: computed where they are asked for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from actconform.checking.flatten import FLOW, as_held
from actconform.onnx.evaluate.computation import computation
from actconform.onnx.evaluate.element_types import held, output_types
from actconform.onnx.size_limits import expect_sane_output

if TYPE_CHECKING:
    from onnx import SparseTensorProto

    from actconform.checking.source import Source
    from actconform.checking.value_flow import Use, ValueFlow

Array: TypeAlias = NDArray[Any]

MOST_ELEMENTS = 2**24  # of all that a node reads; what reads more is not computed
_RANDOM = frozenset("Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike".split())  # noqa: SIM905


class Constant(NamedTuple):
    """A tensor with its element type, a TensorProto.DataType: stored ones in their own dtype, computed floats in float64."""

    element_type: int
    array: Array


class ConstantValues:
    """The tensors of a model, by their numbers in its flow, that are stored or computed of such alone."""

    def __init__(self, source: Source, flow: ValueFlow) -> None:
        self._source = source
        self._stored = dict(flow.stored)
        self._sparse = flow.sparse
        for tensor in source.model.graph.initializer:  # large ones are inputs of the graph that the flow follows
            if tensor.name in flow.inputs:
                self._stored.setdefault(flow.inputs[tensor.name], (tensor.name, tensor))
        sparse = {number: (name, tensor.values) for number, (name, tensor) in flow.sparse.items()}
        self.tensors = {**self._stored, **sparse}
        """Those that are stored, with their names; the values alone of sparse ones."""
        self._givers: dict[int, Use] = {}
        self._numbers = set(self.tensors)
        uses = {use.outputs: use for uses in flow.uses.values() for use in uses}
        for outputs in sorted(uses):  # numbered in the order of the nodes
            if self._reads_constants(uses[outputs]):
                self._givers.update(dict.fromkeys(outputs, uses[outputs]))
                self._numbers.update(outputs)
        self._computed: dict[int, Constant | None] = {}

    def __contains__(self, number: int | None) -> bool:
        return number in self._numbers

    def stored(self, number: int) -> Constant:
        """Return a tensor that is stored; one that is stored sparse has its zeros, or where they were too many only what is stored."""
        if number in self._sparse:
            _, sparse = self._sparse[number]
            return Constant(sparse.values.data_type, self._dense(sparse))
        _, tensor = self._stored[number]
        return Constant(tensor.data_type, self._source.array(tensor))

    def value(self, number: int) -> Constant | None:
        """Return a tensor's value; None for one that is not constant, is large, or cannot be computed here."""
        if number in self.tensors:
            return self.stored(number)
        if number not in self._computed:
            use = self._givers.get(number)
            results = None if use is None else self.results(use)
            if use is None or results is None:
                return self._computed.setdefault(number, None)
            self._computed.update(zip(use.outputs, results, strict=False))
        return self._computed[number]

    def results(self, use: Use, instead: dict[int, Constant] | None = None) -> list[Constant] | None:
        """Return what a node gives that reads constants alone, `instead` in place of the values of some by number; None as for `value`."""
        if not self._reads_constants(use):
            return None
        constants = [
            None if operand is None else (instead or {}).get(operand) or self.value(operand) for operand in use.operands
        ]
        if any(
            constant is None and operand is not None for constant, operand in zip(constants, use.operands, strict=True)
        ):
            return None
        if sum(constant.array.size for constant in constants if constant is not None) > MOST_ELEMENTS:
            return None
        try:
            return self._evaluated(use, constants)
        except Exception:  # noqa: BLE001  what no evaluator knows, or fails at these values: a run will tell
            return None

    def _reads_constants(self, use: Use) -> bool:
        if (
            use.node.op_type in FLOW
            or use.node.op_type in _RANDOM
            or any(each.HasField("g") for each in use.node.attribute)
        ):
            return False
        return all(operand is None or operand in self._numbers for operand in use.operands)

    def _evaluated(self, use: Use, constants: list[Constant | None]) -> list[Constant]:
        node, opset = use.node, self._source.opset
        pairs = zip(node.input, constants, strict=True)
        expect_sane_output(node, {name: constant.array for name, constant in pairs if constant is not None}, opset)
        types = output_types(node, opset, [0 if constant is None else constant.element_type for constant in constants])
        with np.errstate(all="ignore"):
            results = computation(node, opset).compute(
                [None if each is None else as_held(each.array) for each in constants]
            )
            return [
                Constant(kind, held(np.asarray(array), kind) if kind else np.empty(0))
                for kind, array in zip(types, results, strict=True)
            ]

    def _dense(self, sparse: SparseTensorProto) -> Array:
        values, places = self._source.array(sparse.values), self._source.array(sparse.indices)
        if math.prod(sparse.dims) > MOST_ELEMENTS:
            return values
        dense = np.zeros(tuple(sparse.dims), values.dtype)
        if places.ndim == 1:
            dense.reshape(-1)[places] = values
        else:
            dense[tuple(places.T)] = values
        return dense
