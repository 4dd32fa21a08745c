"""What an authored graph is written with: the registries, and a builder that adds nodes of standard operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import onnx
from onnx import TensorProto, helper

from actconform.errors import Unsupported
from actconform.onnx.constants import constant_tensor, operator_node

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from actconform.types import Kernel
    from actconform.types.model import Layer, Shape

    Write = Callable[["Nodes", Kernel], str]
    WriteLayer = Callable[["Nodes", "Wiring"], str]

# 24 brought Swish, and ONNX Runtime 1.31 runs it at 24 alone; from 22 on all but Celu and Shrink take bfloat16.
OPSET = 24

BATCH = "b"  # the name of a model's first dimension

ELEMENT_TYPES: dict[str, int] = {"f32": TensorProto.FLOAT, "f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_SPELLED = {"f32": "tensor(float)", "f16": "tensor(float16)", "bf16": "tensor(bfloat16)"}

GRAPHS: dict[str, Write] = {}
LAYER_GRAPHS: dict[str, WriteLayer] = {}


def graph(*names: str) -> Callable[[Write], Write]:
    """Register a function as the writer of the graphs of the kernels `names`.

    It receives a `Nodes` and the kernel, adds nodes, and returns the name of the tensor that is the kernel's output:

        @graph("log-sigmoid")
        def log_sigmoid(g, kernel):
            return g.Neg(g.Softplus(g.Neg("x")))

    Raises ValueError where a name is taken.
    """

    def register(write: Write) -> Write:
        for name in names:
            if name in GRAPHS:
                raise ValueError(
                    f"two graphs for kernel {name!r}: {GRAPHS[name].__qualname__} and {write.__qualname__}"
                )
            GRAPHS[name] = write
        return write

    return register


def graph_of(kernel: Kernel) -> Write:
    """Return what writes the graph of `kernel`; raise `Unsupported` where none is registered under its name."""
    if kernel.name not in GRAPHS:
        raise Unsupported(
            f"no authored graph for kernel {kernel.name}: register one with actconform.onnx.nodes.graph({kernel.name!r})"
        )
    return GRAPHS[kernel.name]


class Wiring(NamedTuple):
    """What one layer works on: the tensors that it reads, with their shapes beside the batch, which comes first."""

    layer: Layer
    inputs: Sequence[str]
    shapes: Sequence[Shape]
    training: bool

    def parameter(self, name: str) -> str:
        """Return the tensor of a parameter, given its short name, "kernel"."""
        return f"{self.layer.name}.{name}"

    def number(self, setting: str) -> float:
        """Return a setting that is a number."""
        return float(cast("float", self.layer.settings[setting]))

    def integers(self, setting: str) -> tuple[int, ...]:
        """Return a setting that is several integers."""
        return cast("tuple[int, ...]", self.layer.settings[setting])


def layer_graph(*kinds: str) -> Callable[[WriteLayer], WriteLayer]:
    """Register a function as the writer of the graphs of `kinds` of layers.

    It receives a `Nodes` and the layer's `Wiring`, adds nodes, and returns the name of the tensor, of its own making, that is
    the layer's value, channels last. Raises ValueError where a kind is taken.
    """

    def register(write: WriteLayer) -> WriteLayer:
        for kind in kinds:
            if kind in LAYER_GRAPHS:
                raise ValueError(f"two graphs for layers of kind {kind!r}")
            LAYER_GRAPHS[kind] = write
        return write

    return register


class Nodes:
    """The nodes and initializers of one graph in the making; operands are names of tensors.

    `g.Gelu("x", approximate="tanh")` adds that operator of the standard and returns the name of its output;
    `g.outputs(2, "Split", ...)` returns the names of several. An operator that the opset lacks is an AttributeError.
    """

    def __init__(self, dtype: str, scope: str = "", stand_ins: Mapping[str, str] | None = None) -> None:
        self.dtype = dtype
        self.element_type = ELEMENT_TYPES[dtype]
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.shapes: list[onnx.ValueInfoProto] = []
        self._scope = scope
        self._stand_ins = stand_ins or {}

    def within(self, scope: str, **stand_ins: str) -> Nodes:
        """Return what writes into the same graph with names under SCOPE/; given x="t", tensor "t" is what "x" means there."""
        inner = Nodes(self.dtype, f"{scope}/", stand_ins)
        inner.nodes, inner.initializers, inner.shapes = self.nodes, self.initializers, self.shapes
        return inner

    def in_float32(self) -> Nodes:
        """Return what writes float32 numbers into the same graph."""
        inner = Nodes("f32", self._scope, self._stand_ins)
        inner.nodes, inner.initializers, inner.shapes = self.nodes, self.initializers, self.shapes
        return inner

    def __getattr__(self, operator: str) -> Callable[..., str]:
        if operator.startswith("_") or not onnx.defs.has(operator, max_inclusive_version=OPSET):
            raise AttributeError(f"ONNX opset {OPSET} has no operator {operator}")
        return lambda *inputs, **attributes: self.outputs(1, operator, *inputs, **attributes)[0]

    def outputs(self, count: int, operator: str, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node with `count` outputs and return their names."""
        name = f"{self._scope}{operator}_{len(self.nodes)}"
        read = [self._stand_ins.get(operand, operand) for operand in inputs]
        names = [f"{name}_{i}" for i in range(count)]
        self.nodes.append(operator_node(operator, read, names, name=name, **attributes))
        return names

    def typed(self, tensor: str, dims: Sequence[str | int]) -> str:
        """Write down a tensor's dimensions where onnx infers none, and return the tensor."""
        self.shapes.append(helper.make_tensor_value_info(tensor, self.element_type, dims))
        return tensor

    def rename(self, old: str, new: str) -> None:
        """Call a tensor by another name, wherever it is written or read."""
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [new if name == old else name for name in names]

    def scalar(self, value: float) -> str:
        """Return a 0-d initializer that holds `value` rounded to float32 and then to the graph's dtype.

        Raises NotRepresentableError where the dtype cannot hold it.
        """
        return self._initializer(np.float32(value), self.element_type)

    def integer(self, value: int) -> str:
        """Return a 0-d int64 initializer."""
        return self.constant(np.array(value, dtype=np.int64))

    def integers(self, *values: int) -> str:
        """Return a 1-d int64 initializer: axes and shapes."""
        return self.constant(np.array(values, dtype=np.int64))

    def takes_dtype(self, operator: str) -> bool:
        """Say whether the standard defines `operator` for the graph's dtype."""
        return _SPELLED[self.dtype] in onnx.defs.get_schema(operator, OPSET).inputs[0].types

    def constant(self, array: np.ndarray[Any, Any]) -> str:
        """Return an initializer that holds the array, in its own dtype."""
        return self._initializer(array, helper.np_dtype_to_tensor_dtype(array.dtype))

    def _initializer(self, value: np.ndarray[Any, Any] | np.float32, element_type: int) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(constant_tensor(value, element_type, name))
        return name
