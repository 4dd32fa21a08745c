"""How the arrays of a call lie in memory: aligned and contiguous, or in another way that an array may lie in, amid garbage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from actconform.workers.protocol import ALIGNMENT, aligned_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[Any]

GARBAGE = 0xFF  # NaN in every format of floating-point numbers, -1 in integers
PADDING = 3  # elements after each row


class LaidOut(NamedTuple):
    """An array as a call gets it, and all bytes around and between its elements: now, and as they were before the call."""

    array: Array
    memory: NDArray[np.uint8]
    before: NDArray[np.uint8]

    def changed(self) -> bool:
        """Tell whether anything was written, to the array or to what lies around it."""
        return not np.array_equal(self.memory, self.before)


def lay_out(array: Array, layout: str) -> LaidOut:
    """Return a copy of an array that lies as one of LAYOUTS says, of equal shape, dtype and elements.

    Garbage as long as the array lies on both sides, so that what reads or writes beside it meets the same on every machine.
    What a layout cannot change lies aligned and contiguous: an array without axes, or, for
    "broadcast" (stride 0, read-only), one that changes along every axis. Raises KeyError for another name.
    """
    around = array.nbytes + -array.nbytes % ALIGNMENT + ALIGNMENT
    shape = array.shape
    if layout == "broadcast":
        array = array[tuple(slice(1) if _constant(array, axis) else slice(None) for axis in range(array.ndim))]
    wanted = LAYOUTS[layout](array.shape)
    inside = int(np.prod(wanted.buffer, dtype=np.int64)) * array.itemsize
    start = around + wanted.skipped * array.itemsize
    memory = aligned_bytes(start + inside + around)
    memory[:] = GARBAGE
    copy = wanted.view(memory[start : start + inside].view(array.dtype).reshape(wanted.buffer))
    copy[...] = array
    if layout == "broadcast":
        copy = np.broadcast_to(copy, shape)
    elif layout == "read-only":
        copy.flags.writeable = False
    return LaidOut(copy, memory, memory.copy())


def _constant(array: Array, axis: int) -> bool:
    return array.shape[axis] > 1 and bool((array == array.take([0], axis)).all())


class Placement(NamedTuple):
    """The shape of the elements that are set aside, how many lie before them, and which of them are the array."""

    buffer: tuple[int, ...]
    view: Callable[[Array], Array] = lambda elements: elements
    skipped: int = 0


def _strided(shape: tuple[int, ...]) -> Placement:
    """Every second element of the last two axes, which cannot be taken for one axis then."""
    doubled = [2 * n for n in shape[-2:]]
    every: Any = (..., *(slice(None, None, 2) for _ in doubled))
    return Placement((*shape[:-2], *doubled), lambda elements: elements[every])


def _reversed(shape: tuple[int, ...]) -> Placement:
    backwards: Any = (..., *(slice(None, None, -1) for _ in shape))
    return Placement(shape, lambda elements: elements[backwards])


def _padded(shape: tuple[int, ...]) -> Placement:
    """Rows that are contiguous each, with garbage between them."""
    if not shape:
        return Placement(shape)
    return Placement((*shape[:-1], shape[-1] + PADDING), lambda elements: elements[..., :-PADDING])


LAYOUTS: dict[str, Callable[[tuple[int, ...]], Placement]] = {
    "offset": lambda shape: Placement(shape, skipped=1),
    "strided": _strided,
    "reversed": _reversed,
    "padded": _padded,
    "transposed": lambda shape: Placement(shape[::-1], lambda elements: elements.T),
    "read-only": Placement,
    "broadcast": Placement,
}
