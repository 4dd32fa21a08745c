"""Targets of a training, read to be held against the range of an output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actconform.checking.inputs import saved_arrays
from actconform.errors import UsageError, near
from actconform.text import number_of, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


def read_targets(path: Path, outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return targets by output, from an .npz or a folder of .npy files by name, or of the only output from a single array.

    Shapes are free: only the values count. Raises UsageError for files that are none, names that the model does not have, and arrays
    that hold no numbers.
    """
    shown = one_line(str(path))
    arrays = saved_arrays(path, outputs)
    if path.suffix == ".npy" and len(arrays) == 1 and len(outputs) == 1:
        arrays = {outputs[0]: next(iter(arrays.values()))}
    for name, array in arrays.items():
        if name not in outputs:
            raise UsageError(
                f"{shown}: the model has no output {one_line(name, 80)!r}{near(name, list(outputs))}; it has {', '.join(map(one_line, outputs))}"
            )
        if array.dtype.kind not in "fiub" or not array.size:
            raise UsageError(
                f"{shown}: {one_line(name, 80)!r} holds no numbers ({array.dtype}, {number_of(array.size, 'element')})"
            )
    return arrays
