"""The tensors that workloads run on: kernels at any size, models at any batch; ordinary numbers, no special values."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from actconform.oracle import truth
from actconform.testdata.model_tensors import draw_inputs, draw_parameters
from actconform.types.model import LOSS, Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform.bench.workloads import Workload
    from actconform.types import Bundle, Kernel

    Shapes = dict[str, tuple[int, ...]]

ROW = 1024  # the longest row of a row kernel
REGIME = "throughput"


def shapes(kernel: Kernel, size: int) -> Shapes:
    """Return the shape of every input of a kernel whose x has about `size` elements: whole rows of an even length up to 1024.

    A kernel on axis 1 has (rows, 32, 32), or (rows, n, 1) below 1024 elements.
    """
    row = min(size + size % 2, ROW)
    m = 32 if row == ROW else 1
    if kernel.form == "unary":
        lengths = {"n": size}
    elif kernel.axis == 1:
        lengths = {"b": -(-size // row), "n": row // m, "m": m}
    else:
        lengths = {"b": -(-size // row), "n": row}
    return {name: tuple(lengths[axis] for axis in kernel.dims(name)) for name in kernel.inputs}


def output_shape(kernel: Kernel, tensor_shapes: Shapes) -> tuple[int, ...]:
    """Return the shape of y, from the definition at one row. Raises Unsupported for a kernel without one."""
    if kernel.form == "unary":
        return tensor_shapes["x"]
    row_inputs = {
        name: np.ones((1, *shape[1:]) if name == kernel.inputs[0] else shape) for name, shape in tensor_shapes.items()
    }
    return (tensor_shapes[kernel.inputs[0]][0], *truth(kernel, row_inputs, None)["y"].shape[1:])


def generate_tensors(subject: Kernel | Model, workload: Workload, *, constants: bool) -> tuple[Bundle, Bundle | None]:
    """Return the inputs of a workload and, backwards, the cotangents; with `constants` a model's inputs without parameters.

    A kernel's inputs are normal with standard deviation 2; a model's are its own, at the batch size of the workload.
    """
    backwards = workload.direction != "forward"
    if isinstance(subject, Model):
        model = msgspec.structs.replace(subject, batch=workload.size)
        inputs = draw_inputs(model)
        targets = {tensor.name for tensor in model.inputs if tensor.role == "target"}
        if constants:
            inputs = {name: array for name, array in inputs.items() if name not in targets}
        else:
            inputs |= draw_parameters(model)
        return inputs, {LOSS: np.ones((), np.float32)} if backwards else None
    tensor_shapes = shapes(subject, workload.size)
    numbers: dict[str, NDArray[Any]] = {
        name: _normal(subject.name, name, shape) for name, shape in tensor_shapes.items()
    }
    if not backwards:
        return numbers, None
    return numbers, {"y": _normal(subject.name, "cotangent", output_shape(subject, tensor_shapes))}


def elements_and_bytes(subject: Kernel, workload: Workload) -> tuple[int, int]:
    """Return the elements of x and the bytes of a call: every input, cotangent and result once.

    Forward that is the inputs and y; backwards the inputs, the cotangent of y and the gradients of the inputs: other
    tensors that a framework writes, such as y, are not counted.
    """
    tensor_shapes = shapes(subject, workload.size)
    inputs = sum(_elements(shape) for shape in tensor_shapes.values())
    y = _elements(output_shape(subject, tensor_shapes))
    elements = _elements(tensor_shapes[subject.inputs[0]])
    if workload.direction == "forward":
        return elements, 4 * inputs + y * (8 if subject.output_dtype == "int64" else 4)
    return elements, 4 * (2 * inputs + y)


def _elements(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _normal(kernel: str, tensor: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    key = np.frombuffer(hashlib.sha256(f"{kernel}/{tensor}/{REGIME}".encode()).digest()[:16], np.uint64)
    array = np.random.Generator(np.random.Philox(key=key)).standard_normal(shape, np.float32)
    array *= 2.0
    return array
