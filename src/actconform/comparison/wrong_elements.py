"""The first element of a training that is wrong, and which tensors of a part are."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from actconform.testdata.training_vectors import PARTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from actconform.testdata.kernel_vectors import TestVector
    from actconform.types import Bundle

    F64 = NDArray[np.float64]


class FirstWrong(NamedTuple):
    """The first element of a training that is beyond its bound: in the order of steps, then of the parts of a step."""

    step: int
    """From 1 on; 0 before the first."""
    part: str
    tensor: str
    place: tuple[int, ...]
    truth: float
    got: float
    times: float
    """Its bound; infinite where that is 0 or a number is none."""

    def __str__(self) -> str:
        at = f" {list(self.place)}" if self.place else ""
        by = f"{self.times:.3g} times its bound" if np.isfinite(self.times) else "beyond any bound"
        when = f"first at step {self.step}, {self.part}" if self.part in PARTS else self.part
        return f"{when}: {self.tensor}{at} is {self.got:.9g}, expected {self.truth:.9g}, {by}"


def first_wrong(vectors: Sequence[TestVector], outputs: Sequence[Bundle], step: int) -> FirstWrong | None:
    """Return the first element of a step that is beyond its bound, by the order of the step's parts."""
    order = {part: place for place, part in enumerate(PARTS)}
    for vector, given in sorted(zip(vectors, outputs, strict=True), key=lambda pair: order.get(pair[0].regime, 0)):
        for name, truth in vector.truth.items():
            off = beyond(given[name], truth, vector.bounds[name])
            if off.any():
                place = tuple(int(index) for index in np.argwhere(off)[0])
                got, allowed = float(given[name][place]), float(vector.bounds[name][place])
                times = abs(got - float(truth[place])) / allowed if allowed > 0.0 else float("inf")
                return FirstWrong(step, vector.regime, name, place, float(truth[place]), got, times)
    return None


def beyond(got: NDArray[np.generic], truth: F64, bound: F64) -> NDArray[np.bool_]:
    """Return where a number is further from the truth than its bound; NaN agrees with NaN alone."""
    wide = np.asarray(got, np.float64)
    with np.errstate(invalid="ignore"):
        off: NDArray[np.bool_] = ~(
            (np.abs(wide - truth) <= bound) | (np.isnan(wide) & np.isnan(truth)) | (wide == truth)
        )
    return off
