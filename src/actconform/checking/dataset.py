"""A data set of the user's, read sample by sample: it may be larger than memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from actconform.checking.array_rows import open_rows
from actconform.checking.inputs import expect_inputs, expect_inputs_fit, read_place, sample_places
from actconform.checking.user_function import raised, user_object
from actconform.errors import UsageError, near
from actconform.text import number_of, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from actconform.checking.array_rows import ArrayRows
    from actconform.checking.source import Source

    Array = NDArray[Any]
    Arrays = dict[str, Array]
    Rows = Mapping[str, ArrayRows]

MOST_FOLDERS = 10_000_000  # of samples in a folder
ARRAYS = (".npz", ".npy")
LABEL = "label"
_FORMS = 'an .npz or .npy whose first axis counts samples, a folder of samples, or "module:function", which yields dicts of arrays'


@dataclass(frozen=True)
class DataSample:
    """One sample of a data set: what the model takes, and what a metric may want beside it."""

    index: int
    """From 0, in the order of the data set."""
    inputs: Mapping[str, Array]
    """By the name of the input, in the dtype that the model declares."""
    labels: Mapping[str, Array]
    """Arrays that are no inputs of the model."""


class DataSet:
    """Samples of a data set, as often as they are iterated over; no more than one is in memory at a time.

    Iterating raises UsageError, naming the sample, for a name that is missing, a wrong dtype or shape, a damaged file, and for what the
    user's function raises. `data_set` makes it.
    """

    def __init__(
        self,
        name: str,
        samples: Callable[[], Iterable[Arrays]],
        source: Source,
        *,
        count: int | None = None,
        most: int | None = None,
        max_memory: int | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.notes = notes
        """What was left out."""
        self.count = count if most is None or count is None else min(count, most)
        """How many samples there are; None where that is not known before they end."""
        self._samples = samples
        self._source = source
        self._most = most
        self._max_memory = max_memory

    def __iter__(self) -> Iterator[DataSample]:
        index = -1
        for index, arrays in enumerate(self._samples()):
            if self._most is not None and index >= self._most:
                return
            yield self._sample(index, arrays)
        if index < 0:
            raise UsageError(f"{self.name}: holds no samples")

    def _sample(self, index: int, arrays: Arrays) -> DataSample:
        shown = f"{self.name}, sample {index}"
        declared = {**self._source.inputs, **self._source.optional_inputs}
        if missing := [name for name in self._source.inputs if name not in arrays]:
            rest = [name for name in arrays if name not in declared]
            raise UsageError(
                f"{shown}: lacks the input {_listed(missing)}; it holds {_listed(arrays)}{near(missing[0], rest)}"
            )
        inputs = {name: array for name, array in arrays.items() if name in declared}
        expect_inputs(inputs, self._source, shown)
        if index == 0:
            expect_inputs_fit(inputs, self._source, self._max_memory, shown)
        return DataSample(index, inputs, {name: array for name, array in arrays.items() if name not in declared})


def data_set(
    data: Any, source: Source, *, batch: int | None = None, most: int | None = None, max_memory: int | None = None
) -> DataSet:
    """Return the data set that a path or "module:function" names, or that a function or iterable in memory gives, for a model.

    - An .npz: all its arrays have the samples along their first axis. Where an array has as many axes as the model's input, a sample is a
      slice of `batch` of them (by default as many as the model declares, else 1); where it has one axis more, a sample is one of them.
    - A .npy is the same for a model of one input.
    - A folder has a sample in each folder or file, in every form that --inputs takes; saved outputs count as labels.
    - "module:function" is called without arguments, or iterated over where it is no function, and yields a dict of arrays by name, a tuple in
      the order of the model's inputs, an array for a model of one input, or (inputs, label) with any of these. So is a function, or an
      iterable that can be iterated over more than once, in place of a name.

    Arrays that are no inputs of the model are labels. `most` is how many samples are taken. Raises UsageError, naming what is wrong and what is
    expected, for what is none of these; files are looked at here, all that is within a sample when it is read.
    """
    if not isinstance(data, str | Path):
        shown = one_line(getattr(data, "__name__", type(data).__name__), 80)
        _expect_no_batch(shown, batch, "yields")
        return DataSet(shown, _Yielded(data, shown, source), source, most=most, max_memory=max_memory)
    path = Path(data)
    shown = one_line(str(data))
    if not path.exists():
        if ":" not in shown:
            raise UsageError(f"--data {shown}: there is no such file or folder; expected {_FORMS}")
        _expect_no_batch(shown, batch, "yields")
        iterate = _Yielded(user_object(str(data), "--data"), shown, source)
        return DataSet(shown, iterate, source, most=most, max_memory=max_memory)
    if path.is_dir():
        _expect_no_batch(shown, batch, "holds")
        try:
            places = sample_places(path, MOST_FOLDERS)
        except OSError as error:
            raise UsageError(f"{shown}: cannot be read: {error.strerror}") from error
        return DataSet(
            shown, lambda: _read_places(places, source), source, count=len(places), most=most, max_memory=max_memory
        )
    if path.suffix not in ARRAYS:
        raise UsageError(f"--data {shown}: is no data set; expected {_FORMS}")
    cut = _cut(path, source, batch)
    return DataSet(
        shown,
        lambda: _slices(path, source, cut),
        source,
        count=cut.samples,
        most=most,
        max_memory=max_memory,
        notes=cut.notes,
    )


def _expect_no_batch(shown: str, batch: int | None, verb: str) -> None:
    if batch is not None:
        raise UsageError(
            f"--batch cuts the arrays of an .npz or .npy; what {shown} {verb} is taken as it is: leave out --batch"
        )


def _read_places(places: Iterable[Path], source: Source) -> Iterator[Arrays]:
    for place in places:
        try:
            inputs, outputs = read_place(place, source)
        except OSError as error:
            raise UsageError(f"{one_line(str(place))}: cannot be read: {error.strerror}") from error
        yield {**(outputs or {}), **inputs}


class _Cut(NamedTuple):
    """How the arrays of a file are cut into samples."""

    samples: int
    batch: int
    notes: tuple[str, ...]


def _cut(path: Path, source: Source, batch: int | None) -> _Cut:
    """Return how the arrays of a file are cut. Raises UsageError where they cannot be."""
    shown = one_line(str(path))
    with open_rows(path) as opened:
        rows = _named(opened, source, shown)
        lengths = {name: array.length for name, array in rows.items()}
        items = {name: _is_item(name, array, source) for name, array in rows.items()}
    if len(set(lengths.values())) > 1:
        words = ", ".join(f"{one_line(name)} has {length:,}" for name, length in lengths.items())
        raise UsageError(f"{shown}: the first axis counts samples, and its arrays are not of one length: {words}")
    length = next(iter(lengths.values()))
    fixed = {name: size for name in rows if not items[name] and (size := _first_dim(name, source)) is not None}
    if len(set(fixed.values())) > 1:
        words = ", ".join(f"{one_line(name)} has {size}" for name, size in fixed.items())
        raise UsageError(
            f"{shown}: the model's inputs have no common batch ({words}): give arrays with one axis more, of which the first counts samples"
        )
    needed = next(iter(fixed.values()), None)
    if batch is not None and needed is not None and batch != needed:
        raise UsageError(f"--batch {batch}: the model takes a batch of {needed} and no other: {_listed(fixed)}")
    size = batch or needed or 1
    if size > 1 and (single := [name for name, is_item in items.items() if is_item and name in _declared(source)]):
        raise UsageError(f"--batch {size}: input {_listed(single)} has no axis for a batch: leave out --batch")
    rest = length % size if needed is not None else 0
    notes = (
        (f"the last {rest} of {number_of(length, 'row')} do not fill a batch of {size} and are left out",)
        if rest
        else ()
    )
    return _Cut((length // size) if needed is not None else -(-length // size), size, notes)


def _declared(source: Source) -> Mapping[str, Any]:
    return {**source.inputs, **source.optional_inputs}


def _first_dim(name: str, source: Source) -> int | None:
    """Return the size of an input's first axis where the model fixes it."""
    declared = _declared(source).get(name)
    first = declared.dims[0] if declared is not None and declared.dims else None
    return first if isinstance(first, int) else None


def _is_item(name: str, rows: ArrayRows, source: Source) -> bool:
    """Tell whether a sample is one entry along the first axis of an array, without that axis."""
    declared = _declared(source).get(name)
    return declared is not None and declared.dims is not None and len(rows.shape) == len(declared.dims) + 1


def _named(rows: Rows, source: Source, shown: str) -> Rows:
    """Return arrays by name; the only one of a .npy has that of the model's only input."""
    if set(rows) != {""}:
        return rows
    if len(source.inputs) != 1:
        raise UsageError(
            f"{shown}: is one array, and the model has {number_of(len(source.inputs), 'input')} ({_listed(source.inputs)}): give an .npz"
        )
    return {next(iter(source.inputs)): rows[""]}


def _slices(path: Path, source: Source, cut: _Cut) -> Iterator[Arrays]:
    with open_rows(path) as opened:
        rows = _named(opened, source, one_line(str(path)))
        items = {name: _is_item(name, array, source) for name, array in rows.items()}
        labels_too = all(is_item for name, is_item in items.items() if name in _declared(source))
        for _ in range(cut.samples):
            sample = {}
            for name, array in rows.items():
                values = array.take(cut.batch)
                single = items[name] or (labels_too and name not in _declared(source))
                sample[name] = values[0] if single else values
            yield sample


class _Yielded:
    """The samples that a function of the user's yields, or an iterable."""

    def __init__(self, yields: Any, shown: str, source: Source) -> None:
        self._shown = f"--data {shown}"
        self._source = source
        self._yields = yields
        if not callable(yields) and not hasattr(yields, "__iter__"):
            raise UsageError(f"{self._shown}: is {_kind(yields)}; expected {_FORMS}")
        if hasattr(yields, "__next__"):
            raise UsageError(f"{self._shown}: ends after one pass over it: give the function that makes it")

    def __call__(self) -> Iterator[Arrays]:
        index = 0
        try:
            samples = iter(self._yields() if callable(self._yields) else self._yields)
        except TypeError as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is None:  # raised by the call itself
                raise UsageError(
                    f"{self._shown}: {one_line(str(error))}; it is called without arguments and yields samples"
                ) from error
            raise UsageError(f"{self._shown} {raised(error)}") from error
        except (Exception, SystemExit) as error:  # whatever the user's function raises
            raise UsageError(f"{self._shown} {raised(error)}") from error
        while True:
            try:
                sample = next(samples)
            except StopIteration:
                return
            except (Exception, SystemExit) as error:  # likewise
                raise UsageError(f"{self._shown}, sample {index}: {raised(error)}") from error
            try:
                yield self._arrays(sample)
            except UsageError as error:
                raise UsageError(f"{self._shown}, sample {index}: {error}") from error
            index += 1

    def _arrays(self, sample: Any) -> Arrays:
        """Return what was yielded as arrays by name."""
        names = list(self._source.inputs)
        if isinstance(sample, dict):
            return {str(name): _array(value, str(name)) for name, value in sample.items()}
        if not isinstance(sample, tuple | list) or _is_numbers(sample):
            if len(names) != 1:
                raise UsageError(
                    f"it is {_kind(sample)}, and the model has {number_of(len(names), 'input')}: yield a dict by {_listed(names)}"
                )
            return {names[0]: _array(sample, names[0])}
        if sample and _is_inputs(sample[0]):  # (inputs, label)
            arrays, rest = self._arrays(sample[0]), sample[1:]
        else:
            arrays, rest = (
                {name: _array(value, name) for name, value in zip(names, sample, strict=False)},
                sample[len(names) :],
            )
        return {**_labels(rest), **arrays}


def _labels(values: Iterable[Any]) -> Arrays:
    """Return what stands behind the inputs: "label", or "label_0" and so on; a dict has its own names."""
    labels: Arrays = {}
    rest = list(values)
    for k, value in enumerate(rest):
        if isinstance(value, dict):
            labels |= {str(name): _array(entry, str(name)) for name, entry in value.items()}
        else:
            name = LABEL if len(rest) == 1 else f"{LABEL}_{k}"
            labels[name] = _array(value, name)
    return labels


def _is_numbers(value: Any) -> bool:
    """Tell whether a list is an array written out."""
    return isinstance(value, list) and all(isinstance(entry, int | float) for entry in value)


def _is_inputs(value: Any) -> bool:
    """Tell whether this holds several arrays, by name or in order."""
    return isinstance(value, dict | tuple) or (
        isinstance(value, list) and any(hasattr(entry, "shape") for entry in value)
    )


def _array(value: Any, name: str) -> Array:
    """Return what was yielded under a name as an array of numbers or strings; tensors of frameworks on the CPU convert themselves."""
    try:
        array = np.asarray(value)
    except Exception as error:  # a tensor of a framework may raise anything
        raise UsageError(
            f"{one_line(name)!r} is {_kind(value)}, which makes no array: {one_line(str(error), 200)}"
        ) from error
    if array.dtype == object and not all(isinstance(entry, str | bytes) for entry in array.flat):
        raise UsageError(f"{one_line(name)!r} is {_kind(value)}, which makes no array of numbers")
    return array


def _kind(value: Any) -> str:
    return f"of type {one_line(type(value).__name__, 80)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(one_line(name, 80) for name in names) or "nothing"
