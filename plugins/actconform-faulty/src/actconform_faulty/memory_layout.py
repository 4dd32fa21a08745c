"""Memory: what takes its arrays for aligned, contiguous, in C order or its own, and computes something else where they are not."""
# ruff: noqa: D103  one function a fault; what it does stands in its registration

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from actconform import Program
from actconform_faulty.injected import Answering, fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from actconform.types import Bundle
    from actconform_faulty.changed import Array

FAMILY = "memory layout"
VECTOR = 16  # bytes of a vector register
LINE = 64  # bytes of a cache line


def address(array: Array) -> int:
    first: int = array.__array_interface__["data"][0]
    return first


def bytes_at(start: int, array: Array) -> Array:
    """Return as many bytes as a contiguous array of that shape has from `start` on, as such an array."""
    if array.size == 0:
        return array.copy()
    memory = ctypes.string_at(start, array.nbytes)
    return np.frombuffer(memory, np.uint8).copy().view(array.dtype).reshape(array.shape)


def flat(array: Array) -> Array:
    """Read an array as if it were contiguous."""
    return bytes_at(address(array), array)


def rounded_down(array: Array) -> Array:
    """Read an array from the multiple of a cache line on, as an aligned load does that does not fault."""
    return bytes_at(address(array) // LINE * LINE, array) if array.flags.c_contiguous else array


def in_memory_order(array: Array) -> Array:
    """Take the elements as they lie in memory for those in C order."""
    return array.ravel(order="K").reshape(array.shape)


def without_sign(array: Array) -> Array:
    """Take strides for positive: read from the lowest address on."""
    return array[tuple(slice(None, None, -1 if stride < 0 else 1) for stride in array.strides)]


def by_last_stride(array: Array) -> Array:
    """Take the stride of the last axis for the distance of all elements in C order."""
    if array.ndim < 2 or array.flags.c_contiguous:
        return array
    base = array
    while isinstance(base.base, np.ndarray):
        base = base.base
    memory_of_base = base.reshape(-1).view(np.uint8)
    step = array.strides[-1]
    places = (address(array) - address(memory_of_base)) + step * np.arange(array.size)
    places %= memory_of_base.size - array.itemsize
    picked: Array = memory_of_base[places[:, None] + np.arange(array.itemsize)]
    return np.ascontiguousarray(picked).view(array.dtype).reshape(array.shape)


def peeled(array: Array) -> Array:
    """Lose the elements before the first that is aligned, as a loop without its prologue does."""
    lost = -address(array) % VECTOR // array.itemsize
    copy = array.copy()
    copy.ravel()[:lost] = 0
    return copy


def first_alone(array: Array) -> Array:
    """Read contiguously from the one element of an expanded array."""
    return flat(array) if 0 in array.strides else array


class Reading(Program):
    """A program that reads some of its arrays in its own way."""

    def __init__(self, healthy: Program, read: Callable[[Array], Array], *names: str) -> None:
        self._healthy, self._read, self._names = healthy, read, names
        self.implementation, self.placement = healthy.implementation, healthy.placement

    def _as_read(self, tensors: Bundle, prefix: str = "") -> Bundle:
        return {
            name: self._read(array) if not self._names or prefix + name in self._names else array
            for name, array in tensors.items()
        }

    def forward(self, inputs: Bundle) -> Bundle:
        return self._healthy.forward(self._as_read(inputs))

    def vjp(self, inputs: Bundle, cotangents: Bundle) -> Bundle:
        return self._healthy.vjp(self._as_read(inputs), self._as_read(cotangents, "ct_"))

    def intermediates(self, inputs: Bundle) -> Bundle:
        return self._healthy.intermediates(inputs)


WRONG = "scaled-error nan-made nan-lost inf position-dependent kink range"
for into, name, description, case, read, names in (
    ("torch", "strides-ignored", "strides are ignored", "tanh/value/f32", flat, ()),
    ("torch", "half-strides-ignored", "strides are ignored", "sigmoid/value/f16", flat, ()),
    ("torch", "rows-strides-ignored", "strides are ignored", "softmax/value/f32", flat, ()),
    ("torch", "slope-strides-ignored", "the strides of the slopes are ignored", "prelu/value/f32", flat, ("slope",)),
    ("torch", "cotangent-strides-ignored", "the strides of the cotangent are ignored", "tanh/gradient/f32", flat, ("ct_y",)),
    ("torch", "memory-order", "a transposed array is read as it lies", "log-softmax/value/f32", in_memory_order, ()),
    ("torch", "gradient-memory-order", "a transposed array is read as it lies", "softmax/gradient/bf16", in_memory_order, ("x",)),
    ("torch", "last-stride", "the last stride is taken for that of all axes", "softmin/value/f32", by_last_stride, ()),
    ("torch", "strides-unsigned", "negative strides are taken for positive", "softplus/value/f32", without_sign, ()),
    ("torch", "cotangent-strides-unsigned", "negative strides are taken for positive", "elu/gradient/bf16", without_sign, ("ct_y",)),
    ("torch", "aligned-loads", "addresses are rounded down to a cache line", "sigmoid/value/f32", rounded_down, ()),
    ("torch", "cotangent-aligned-loads", "addresses are rounded down to a cache line", "sigmoid/gradient/f32", rounded_down, ("ct_y",)),
    ("torch", "prologue-forgotten", "elements before the first aligned one are 0", "swish/value/bf16", peeled, ()),
    ("torch", "expanded-cotangent", "an expanded cotangent is read beyond its element", "softsign/gradient/f32", first_alone, ("ct_y",)),
    ("torch", "expanded-x", "an expanded array is read beyond its element", "sigmoid/value/f32", first_alone, ()),
    ("torch", "expanded-rows", "an expanded array is read beyond its row", "softmax/value/f16", first_alone, ()),
    ("torch", "model-strides-ignored", "strides are ignored", "mlp-softmax/value/f32", flat, ("x",)),
    ("torch", "weights-memory-order", "transposed weights are read as they lie", "linear-stack/value/f32", in_memory_order, ("dense1.kernel",)),
    ("torch", "model-gradient-memory-order", "transposed weights are read as they lie", "mlp-softmax/gradient/f32", in_memory_order, ("dense1.kernel",)),
    ("ort", "strides-ignored", "strides are ignored", "softplus/value/f32", flat, ()),
    ("ort", "half-strides-ignored", "strides are ignored", "sigmoid/gradient/f16", flat, ()),
    ("ort", "memory-order", "a transposed array is read as it lies", "softmax/value/f32", in_memory_order, ()),
    ("ort", "aligned-loads", "addresses are rounded down to a cache line", "tanh/value/f32", rounded_down, ()),
):  # fmt: skip
    fault(into, f"layout-{name}", FAMILY, description, case, findings=WRONG, blames="framework" if into == "torch" else "runtime")(
        lambda program, _, read=read, names=names: Reading(program, read, *names)
    )  # fmt: skip


def poke(array: Array, offset: int) -> None:
    """Write one byte at an offset from an array's first element, whatever numpy says of it."""
    ctypes.memset(address(array) + offset, 0x40, 1)


def writing(where: Callable[[Array], int | None], name: str = "x") -> Callable[[Program, object], Program]:
    """Return what writes one byte into one of its arrays, at `where` from its first element, if anywhere."""

    def write(tensors: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
        array = tensors.get(name)  # forward has no cotangent
        offset = None if array is None else where(array)
        if offset is not None and array is not None and array.size > 1:
            poke(array, offset)
        return outputs

    return lambda program, _: Answering(program, write, write)


for into, name, description, case, tensor, inject in (
    ("torch", "read-only-written", "an array that may not be written to is", "relu/value/f32", "x", writing(lambda x: None if x.flags.writeable else 0)),
    ("torch", "read-only-cotangent-written", "a cotangent that may not be written to is", "relu/gradient/f32", "cotangent y", writing(lambda x: None if x.flags.writeable else 1, "ct_y")),
    ("torch", "gaps-written", "bytes between the elements of a strided array are overwritten", "tanh/value/f32", "x", writing(lambda x: x.itemsize if x.ndim and x.strides[-1] == 2 * x.itemsize else None)),
    ("torch", "before-written", "a byte before an array that is not aligned is overwritten", "sigmoid/value/f16", "x", writing(lambda x: -1 if address(x) % LINE else None)),
    ("torch", "slope-written", "a slope that may not be written to is", "prelu/value/f32", "slope", writing(lambda x: None if x.flags.writeable else 0, "slope")),
    ("ort", "gaps-written", "bytes between the elements of a strided array are overwritten", "softplus/value/f32", "x", writing(lambda x: x.itemsize if x.ndim and x.strides[-1] == 2 * x.itemsize else None)),
):  # fmt: skip
    fault(
        into, f"layout-{name}", FAMILY, description, case,
        findings="mutates-input", blames="framework" if into == "torch" else "runtime", tensor=tensor,
    )(inject)  # fmt: skip
