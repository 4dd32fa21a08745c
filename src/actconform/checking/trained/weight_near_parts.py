"""Parts of larger constants that may be a weight but for some values: a slice, an entry, either with its gates in the order of the framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.checking.trained.weight_gates import RECURRENT
from actconform.checking.trained.weight_parts import GATES, MOST_ENTRIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actconform.checking.trained.weight_ledger import Ledger
    from actconform.checking.trained.weight_values import Array

MOST_SLICES = 16  # of one length in a row: query, key and value; gates; the biases of input and state


class NearPart(NamedTuple):
    """Slices in a row of a constant, or of one entry along its first axis."""

    container: str
    entry: int | None
    axis: int
    """That entry apart."""
    start: int
    length: int
    gates: tuple[int, ...]
    """The order in which ONNX has the gates of the framework; () where slices stay in their order."""
    constant: Callable[[str], Array]
    """Returns the canonical values of a constant."""

    def fetch(self) -> Array:
        """Return its values with the slices in the order of the framework."""
        container = self.constant(self.container)
        return np.take(container if self.entry is None else container[self.entry], self.order(), self.axis)

    def order(self) -> Array:
        """Return the places of the slices in the order of the framework."""
        places = np.arange(self.start, self.start + self.length)
        if self.gates:
            places = places.reshape(len(self.gates), -1)[np.argsort(self.gates)].reshape(-1)
        return places

    def words(self, rank: int) -> str:
        """Return where it is, as Python writes it, and how its gates were reordered."""
        indices = [":"] * rank
        axis = self.axis
        if self.entry is not None:
            indices[0], axis = str(self.entry), axis + 1
        indices[axis] = f"{self.start}:{self.start + self.length}"
        return f"{self.container}[{', '.join(indices)}]" + (f", gates {GATES[self.gates]}" if self.gates else "")


def near_parts(ledger: Ledger, sizes: set[int]) -> dict[str, NearPart]:
    """Return the parts of some sizes, in elements, by words for them.

    Constants that weights explain whole have none.
    """
    explained: dict[str, int] = {}
    for check in ledger.checks.values():
        for name in check.initializers:
            explained[name] = explained.get(name, 0) + ledger.parameters[check.parameter].size
    parts: dict[str, NearPart] = {}
    for name, array in ledger.constants.items():
        if array.dtype.kind in "biu" or explained.get(name, 0) >= array.size:
            continue
        gated = any(node.proto.op_type in RECURRENT for node in ledger.readers[name])
        for part in _parts(ledger.constant, name, array.shape, sizes, gated=gated):
            parts[part.words(array.ndim)] = part
    return parts


def _parts(
    constant: Callable[[str], Array], name: str, whole: tuple[int, ...], sizes: set[int], *, gated: bool
) -> Iterator[NearPart]:
    entries: list[tuple[int | None, tuple[int, ...]]] = [(None, whole)]
    if len(whole) > 1 and whole[0] <= MOST_ENTRIES:
        entries += [(entry, whole[1:]) for entry in range(whole[0])]
    all_elements = int(np.prod(whole, dtype=np.int64))
    for entry, shape in entries:
        for axis, count in enumerate(shape):
            slice_size = int(np.prod(shape, dtype=np.int64)) // count
            for length in sorted({size // slice_size for size in sizes if size % slice_size == 0}):
                if not 1 < length * slice_size <= all_elements or not 0 < length <= count <= MOST_SLICES * length:
                    continue
                for start in range(0, count - length + 1, length):
                    # What is all of a constant, in its order, is none of its parts.
                    if length * slice_size < all_elements:
                        yield NearPart(name, entry, axis, start, length, (), constant)
                    for gates in GATES if gated else ():
                        if length % len(gates) == 0:
                            yield NearPart(name, entry, axis, start, length, gates, constant)
