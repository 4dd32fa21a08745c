"""Where the outputs of a chunk's sample come from: the pair of numbers, or the row, so that a person can call the program with it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.exhaustive.patterns import binades_of
from actconform.testdata.regimes import HALVED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from actconform.testdata.kernel_vectors import TestVector, TestVectors
    from actconform.types import Kernel


def is_of_pairs(kernel: Kernel) -> bool:
    """Tell whether the sample of a kernel is of pairs of numbers, not of rows."""
    return "slope" in kernel.inputs or (kernel.name in HALVED and kernel.name != "maxout")


class SamplePlaces(NamedTuple):
    """The places of a chunk's outputs; elements are numbered tensor by tensor, in each call by call, in each in C order."""

    kernel: Kernel
    vectors: TestVectors
    chunk: int

    def of(self, element: int, tensor: str = "") -> str:
        """Return the place of an element of all tensors, or of one.

        "chunk 63, call 1, y[5, 3]": of the chunk's second call. Of pairs both patterns stand before it: "0x3f800000 0xbf000000 (chunk ...)".
        """
        for name in [tensor] if tensor else self._tensors():
            for call, vector in enumerate(self.vectors.vectors):
                size = vector.truth[name].size
                if element < size:
                    return self._in_words(name, call, element)
                element -= size
        raise IndexError(f"the sample has {element} elements fewer")

    def _in_words(self, tensor: str, call: int, element: int) -> str:
        vector = self.vectors.vectors[call]
        index = ", ".join(str(place) for place in np.unravel_index(element, vector.truth[tensor].shape))
        place = f"chunk {self.chunk}, call {call}, {tensor}[{index}]"
        if not is_of_pairs(self.kernel):
            return place
        pair = " ".join(f"0x{int(number.view(np.uint32)):08x}" for number in _pair(vector, tensor, element))
        return f"{pair} ({place})"

    def by_binade(self) -> list[tuple[int, NDArray[np.int64]]]:
        """Return the two binades of the chunk, each with the elements of the rows that begin with a number of it."""
        second = [
            np.arange(vector.truth[tensor].size) >= vector.truth[tensor].size // 2  # the first rows are of the first
            for tensor in self._tensors()
            for vector in self.vectors.vectors
        ]
        of_second = np.concatenate(second)
        lower, upper = binades_of(self.chunk)
        return [(lower, np.flatnonzero(~of_second)), (upper, np.flatnonzero(of_second))]

    def _tensors(self) -> list[str]:
        return list(self.vectors.vectors[0].truth)


def _pair(vector: TestVector, tensor: str, element: int) -> tuple[np.float32, np.float32]:
    """Return the two numbers on which an element of a call of pairs depends."""
    x = np.asarray(vector.inputs["x"], np.float32)
    if "slope" in vector.inputs:
        slope = np.asarray(vector.inputs["slope"], np.float32)
        return x.flat[element], slope[element % slope.size]
    row, place = divmod(element, vector.truth[tensor].shape[1])
    half = x.shape[1] // 2
    return x[row, place % half], x[row, half + place % half]
