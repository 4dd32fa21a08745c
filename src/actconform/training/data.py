"""The rows that a training reads: arrays of a file, held against the model, split into training and validation, in batches."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from actconform.checking.inputs import expect_inputs, read_place
from actconform.errors import UsageError, near
from actconform.onnx.trainable import TARGET
from actconform.text import number_of, one_line
from actconform.training.request import TARGET_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from actconform.checking.source import Source, TensorType

Array: TypeAlias = NDArray[Any]

BATCH = 32
"""Rows of a batch where none is given and the model takes any."""


@dataclass(frozen=True)
class TrainData:
    """All rows, by the name of the input of the graph of a step; the last `held_out` ones are validation.

    An epoch goes once through the rest, in an order drawn from seed and epoch; rows that do not fill a batch wait for another epoch.
    """

    arrays: Mapping[str, Array]
    target: str
    """What the file calls the target."""
    rows: int
    held_out: int
    batch: int
    fixed_batch: bool
    """Whether the model takes no other."""
    digest: str
    """Of names, types, shapes and values."""

    @property
    def training_rows(self) -> int:
        """How many rows are learned from."""
        return self.rows - self.held_out

    @property
    def steps(self) -> int:
        """How many steps an epoch has."""
        return self.training_rows // self.batch

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Return the rows of each step of an epoch, counted from 0."""
        rows = np.random.default_rng([seed, epoch]).permutation(self.training_rows)[: self.steps * self.batch]
        return rows.astype(np.int64).reshape(self.steps, self.batch)

    def batch_of(self, rows: NDArray[np.int64] | slice) -> dict[str, Array]:
        """Return some rows of every array."""
        return {name: array[rows] for name, array in self.arrays.items()}

    def validation_batches(self) -> list[slice]:
        """Return the rows of validation in batches, the last one smaller where the model takes that, else left out."""
        first = self.training_rows
        ends = range(first + self.batch, self.rows + (0 if self.fixed_batch else self.batch - 1) + 1, self.batch)
        return [slice(end - self.batch, min(end, self.rows)) for end in ends]


def read_train_data(
    path: Path, source: Source, output: str, *, target: str | None, batch: int | None, validation: float | None
) -> TrainData:
    """Return the rows of an .npz, or of a folder of NAME.npy, for a model: its inputs and the target, each with the rows along its first axis.

    `output` is the one that the loss is of; without `target` the one array that is no input is it. Raises UsageError, naming the
    file, for what cannot be read, arrays that are missing or unknown, NaN and infinities, rows that are unequal, shapes and dtypes
    that are not the model's, and a batch that the model or the rows cannot have.
    """
    shown = one_line(str(path))
    arrays = _arrays(path, source, shown)
    name = _target_name(arrays, source, target, shown)
    rows = _rows(arrays, shown)
    size, fixed = _batch(source, batch)
    held_out = round(rows * validation) if validation is not None else 0
    if validation is not None and held_out < (size if fixed else 1):
        least = f"a batch of {size}" if fixed else "one row"
        raise UsageError(
            f"--validation {validation:g}: is {held_out:,} of {number_of(rows, 'row')} of {shown}, less than {least}"
        )
    if rows - held_out < size:
        less = f" without validation's {held_out:,}" if held_out else ""
        raise UsageError(
            f"--batch {size}: {shown} has {number_of(rows - held_out, 'row')}{less}; a batch has at most as many"
        )
    inputs = {key: array[:size] for key, array in arrays.items() if key != name}
    expect_inputs(inputs, source, shown)
    _expect_target(name, arrays[name], source, output, shown)
    native = {
        TARGET if key == name else key: np.ascontiguousarray(array, array.dtype.newbyteorder("="))
        for key, array in arrays.items()
    }
    native |= {key: native[key].view(array.dtype) for key, array in inputs.items() if array.dtype.name == "bfloat16"}
    if text := next((key for key, array in native.items() if array.dtype.kind in "OUS"), None):
        raise UsageError(f"{shown}: {one_line(text)!r} holds texts; models of numbers are trained")
    _expect_finite(native, name, shown)
    return TrainData(native, name, rows, held_out, size, fixed, _digest(native))


def _arrays(path: Path, source: Source, shown: str) -> dict[str, Array]:
    try:
        if path.is_file() and path.suffix == ".npy":
            raise UsageError(f"{shown}: is one array; give an .npz with the model's inputs and the target, by name")
        if path.is_dir() and not any(path.glob("*.npy")):
            raise UsageError(
                f"{shown}: is a folder without .npy; give an .npz, or a folder with NAME.npy for each array"
            )
        return read_place(path, source)[0]
    except OSError as error:
        raise UsageError(f"--data {shown}: cannot be read: {error.strerror or error}") from error


def _target_name(arrays: Mapping[str, Array], source: Source, target: str | None, shown: str) -> str:
    """Return which array is the target. Raises UsageError where that is none, an input, or not to be told."""
    inputs = list(source.inputs)
    rest = [name for name in arrays if name not in inputs]
    if missing := [name for name in source.inputs if name not in arrays]:
        raise UsageError(
            f"{shown}: lacks the input {_names(missing)}; it holds {_names(arrays)}{near(missing[0], rest)}"
        )
    if target is not None and target not in arrays:
        raise UsageError(f"--target: {shown} has no array {one_line(target, 80)!r}{near(target, rest or list(arrays))}")
    if target in inputs:
        raise UsageError(f"--target {target}: is an input of the model; name the array that its output is to become")
    name = target or (rest[0] if len(rest) == 1 else TARGET_NAME)
    if name not in rest:
        kinds = (
            f"has {number_of(len(rest), 'array that is no input', 'arrays that are no inputs')}, {_names(rest)}: choose one"
            if rest
            else "has inputs alone"
        )
        raise UsageError(f"{shown}: {kinds}; the target is what the output is to become, named with --target")
    if unknown := [extra for extra in rest if extra != name]:
        raise UsageError(
            f"{shown}: holds {_names(unknown)}, neither an input ({_names(inputs)}) nor the target ({one_line(name)}): "
            f"leave {'it' if len(unknown) == 1 else 'them'} out{near(unknown[0], inputs)}"
        )
    return name


def _rows(arrays: Mapping[str, Array], shown: str) -> int:
    if flat := next((name for name, array in arrays.items() if not array.ndim), None):
        raise UsageError(f"{shown}: {one_line(flat)!r} is one number; the first axis of every array counts rows")
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        words = ", ".join(f"{one_line(name)} has {length:,}" for name, length in lengths.items())
        raise UsageError(f"{shown}: the first axis counts rows, and its arrays have not as many: {words}")
    return next(iter(lengths.values()))


def _batch(source: Source, batch: int | None) -> tuple[int, bool]:
    """Return the rows of a batch, and whether the model takes no other number."""
    fixed: dict[str, int] = {}
    for name, declared in source.inputs.items():
        if declared.dims is not None and not declared.dims:
            raise UsageError(
                f"input {one_line(name)!r} of the model is one number, without an axis for a batch of rows"
            )
        if declared.dims and isinstance(declared.dims[0], int):
            fixed[name] = declared.dims[0]
    if len(set(fixed.values())) > 1:
        words = ", ".join(f"{one_line(name)} has {size}" for name, size in fixed.items())
        raise UsageError(f"the model's inputs have no common batch along their first axis: {words}")
    size = next(iter(fixed.values()), None)
    if batch is not None and size is not None and batch != size:
        raise UsageError(
            f"--batch {batch}: the model takes a batch of {size} and no other; export it with an open batch, or leave out --batch"
        )
    return size or batch or BATCH, size is not None


def _expect_target(name: str, target: Array, source: Source, output: str, shown: str) -> None:
    """Raise UsageError where the target has not the shape of the output, row by row, or is not float32."""
    declared = source.outputs[output]
    tensor = f"target {one_line(name)!r}"
    if declared.dims is not None:
        sizes = list(target.shape)
        wrong = len(sizes) != len(declared.dims) or any(
            isinstance(dim, int) and dim != size for dim, size in zip(declared.dims[1:], sizes[1:], strict=True)
        )
        if wrong:
            raise UsageError(
                f"{shown}: {tensor} has shape {sizes}, and output {one_line(output)!r} of the model is {declared}"
                f"{_shape_advice(name, sizes, declared)}"
            )
    if target.dtype != np.float32:
        raise UsageError(
            f"{shown}: {tensor} is {target.dtype}, and a loss takes float32: save {one_line(name)}.astype(numpy.float32)"
        )


def _shape_advice(name: str, sizes: list[int], declared: TensorType) -> str:
    if declared.dims is None or len(sizes) + 1 != len(declared.dims):
        return ""
    last = declared.dims[-1]
    if last == 1:
        return f"; {one_line(name)}[..., numpy.newaxis] adds the last axis"
    count = last if isinstance(last, int) else "CLASSES"
    return f"; of classes by number numpy.eye({count}, dtype=numpy.float32)[{one_line(name)}] makes rows"


def _expect_finite(arrays: Mapping[str, Array], target: str, shown: str) -> None:
    for name, array in arrays.items():
        if array.dtype.kind not in "fc" and array.dtype.name != "bfloat16":
            continue
        finite = np.isfinite(array.astype(np.float32) if array.dtype.itemsize < 4 else array)
        if not finite.all():
            index = [int(place) for place in np.unravel_index(int(np.argmin(finite)), array.shape)]
            called = target if name == TARGET else name
            raise UsageError(
                f"{shown}: {one_line(called)!r} holds {int((~finite).sum()):,} NaN or infinities, the first at {index}: "
                "nothing is learned from such; leave out its rows"
            )


def _digest(arrays: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode())
        digest.update(array.tobytes() if array.dtype.kind in "OV" else np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _names(names: Iterable[str]) -> str:
    return ", ".join(one_line(name, 80) for name in names) or "nothing"
