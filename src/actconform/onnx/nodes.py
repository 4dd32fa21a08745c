"""What an authored graph is written with: the registry, and a builder that adds nodes of standard operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.types import Kernel

    Write = Callable[["Nodes", Kernel], str]

# 24 brought Swish, and ONNX Runtime 1.31 runs it at 24 alone; from 22 on all but Celu and Shrink take bfloat16.
OPSET = 24

ELEMENT_TYPES: dict[str, int] = {"f32": TensorProto.FLOAT, "f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_NUMPY: dict[str, Any] = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
_SPELLED = {"f32": "tensor(float)", "f16": "tensor(float16)", "bf16": "tensor(bfloat16)"}

GRAPHS: dict[str, Write] = {}


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


class Nodes:
    """The nodes and initializers of one graph in the making; operands are names of tensors.

    `g.Gelu("x", approximate="tanh")` adds that operator of the standard and returns the name of its output;
    `g.outputs(2, "Split", ...)` returns the names of several. An operator that the opset lacks is an AttributeError.
    """

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.element_type = ELEMENT_TYPES[dtype]
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def __getattr__(self, operator: str) -> Callable[..., str]:
        if operator.startswith("_") or not onnx.defs.has(operator, max_inclusive_version=OPSET):
            raise AttributeError(f"ONNX opset {OPSET} has no operator {operator}")
        return lambda *inputs, **attributes: self.outputs(1, operator, *inputs, **attributes)[0]

    def outputs(self, count: int, operator: str, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node with `count` outputs and return their names."""
        names = [f"{operator}_{len(self.nodes)}_{i}" for i in range(count)]
        self.nodes.append(
            helper.make_node(operator, list(inputs), names, name=f"{operator}_{len(self.nodes)}", **attributes)
        )
        return names

    def scalar(self, value: float) -> str:
        """Return a 0-d initializer that holds `value` rounded to float32 and then to the graph's dtype."""
        return self._initializer(np.asarray(value, dtype=np.float32).astype(_NUMPY[self.dtype]))

    def integer(self, value: int) -> str:
        """Return a 0-d int64 initializer."""
        return self._initializer(np.array(value, dtype=np.int64))

    def integers(self, *values: int) -> str:
        """Return a 1-d int64 initializer: axes and shapes."""
        return self._initializer(np.array(values, dtype=np.int64))

    def takes_dtype(self, operator: str) -> bool:
        """Say whether the standard defines `operator` for the graph's dtype."""
        return _SPELLED[self.dtype] in onnx.defs.get_schema(operator, OPSET).inputs[0].types

    def _initializer(self, array: np.ndarray[Any, Any]) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name
