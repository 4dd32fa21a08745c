"""A user's own inputs of a model, read from files and held against what the model declares; and written as ONNX does."""

from __future__ import annotations

import io
import math
import re
import secrets
import shutil
import tokenize
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.lib import format as npy_format
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from actconform.checking.sample_size import expect_sample_fits, inferred_shapes
from actconform.errors import UsageError, near
from actconform.files import read_bytes
from actconform.onnx.constants import tensor_of
from actconform.text import number_of, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from actconform.checking.source import Source, TensorType

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = dict[str, Array]

MOST_BYTES = 2**33  # of one array, or one archive unpacked
MOST_SAMPLES = 1000  # folders
_FORMS = "an .npz, a folder of NAME.npy, a folder of such folders, or ONNX's test_data_set_0 with input_0.pb ..."


class NpyHeader(NamedTuple):
    """What the header of a .npy file says."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class InputSample:
    """Inputs of one run of a model."""

    name: str
    """The file or folder, or what else tells it from the other samples."""
    arrays: Arrays
    """By the name of the input, each in the dtype that the model declares."""


@dataclass(frozen=True)
class SavedSamples:
    """The samples that a path holds, and what was noticed about them."""

    samples: list[InputSample]
    references: list[Arrays | None]
    """For each sample the outputs that lie beside its inputs, by name; None where there are none."""
    notes: list[str] = field(default_factory=list)


def read_samples(path: Path, source: Source, *, max_memory: int | None = None) -> SavedSamples:
    """Return the inputs that a file or folder holds for the model.

    An .npz or a folder with .npy or .pb files is one sample; a folder of folders has one in each; a single .npy is the only
    input. Arrays are never split along an axis. Raises UsageError, naming the file and what is expected: for files that are
    none of these, pickled or damaged, for names that the model does not have or that are missing, wrong dtypes, ranks and sizes, and
    a symbol that would be two sizes in one sample; for samples with which a check needs more than `max_memory` bytes, by
    default what the machine has available. NaN and infinities are taken, and noted.
    """
    shown = one_line(str(path))
    try:
        places = sample_places(path)
        samples, references, notes = [], [], []
        for place in places:
            arrays, outputs = read_place(place, source)
            expect_inputs(arrays, source, one_line(str(place)))
            expect_inputs_fit(arrays, source, max_memory, one_line(str(place)))
            samples.append(InputSample(place.name, arrays))
            references.append(outputs)
            notes += [f"{one_line(place.name)}: {note}" for note in _nonfinite(arrays)]
    except OSError as error:
        raise UsageError(
            f"{error.filename or shown}: cannot be read: {one_line(str(error.strerror or error))}"
        ) from error
    return SavedSamples(samples, references, notes)


def saved_arrays(path: Path, names: Sequence[str]) -> Arrays:
    """Return arrays from an .npz, a folder of NAME.npy, or one .npy, whose name is then its file's; `names` are those expected.

    Nothing is unpickled. Raises UsageError for what is none of these, damaged, or cannot be read.
    """
    try:
        if path.suffix == ".npy" and path.is_file():
            return {path.stem: _npy(read_bytes(path, MOST_BYTES), one_line(str(path)))}
        return _named_arrays(path, names, "array")
    except OSError as error:
        raise UsageError(f"{one_line(str(path))}: cannot be read: {one_line(str(error.strerror or error))}") from error


def read_reference(path: Path, source: Source) -> Arrays:
    """Return saved outputs of the model from an .npz, a folder of NAME.npy, or one with output_0.pb ...; not all need be there.

    Raises UsageError as `read_samples` does.
    """
    shown = one_line(str(path))
    try:
        if path.is_dir() and any(path.glob("output_*.pb")):
            outputs = _from_protobufs(path, "output", list(source.outputs))
        else:
            outputs = _named_arrays(path, list(source.outputs), "output")
    except OSError as error:
        raise UsageError(
            f"{error.filename or shown}: cannot be read: {one_line(str(error.strerror or error))}"
        ) from error
    for name in outputs:
        if name not in source.outputs:
            raise UsageError(f"{shown}: the model has no output {one_line(name)!r}{near(name, list(source.outputs))}")
        outputs[name] = _held_as(outputs[name], source.outputs[name])
        tensor = f"output {one_line(name)!r}"
        _expect_dtype(tensor, outputs[name], source.outputs[name], shown)
        _expect_shape(tensor, outputs[name], source.outputs[name], shown, {})
    if not outputs:
        raise UsageError(f"{shown}: holds no output of the model; expected {', '.join(map(one_line, source.outputs))}")
    return outputs


def write_sample(
    folder: Path, arrays: Mapping[str, Array], source: Source, outputs: Mapping[str, Array] | None = None
) -> None:
    """Write a folder of ONNX's test data: input_K.pb by the order of the model's inputs, and output_K.pb; all of it or nothing.

    Optional inputs that are left out have no file. What the folder held before is replaced. Raises OSError.
    """
    fresh = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    former = fresh.with_name(f"{fresh.name}.former")
    fresh.mkdir(parents=True)
    try:
        names = [*source.inputs, *source.optional_inputs]
        for kind, order, values in (("input", names, arrays), ("output", list(source.outputs), outputs or {})):
            for k, name in enumerate(order):
                if name in values:
                    (fresh / f"{kind}_{k}.pb").write_bytes(
                        tensor_of(np.asarray(values[name]), name).SerializeToString()
                    )
        if folder.exists():
            folder.rename(former)
        fresh.rename(folder)
    finally:
        for leftover in (fresh, former):
            shutil.rmtree(leftover, ignore_errors=True)


def sample_places(path: Path, most: int = MOST_SAMPLES) -> list[Path]:
    """Return the files and folders that hold one sample each, in the order of the numbers in their names.

    Raises UsageError where there are none, or more than `most`, and OSError.
    """
    if not path.is_dir():
        return [path]
    files = [entry for entry in path.iterdir() if entry.suffix in {".npy", ".pb"}]
    if files:
        return [path]
    nested = [entry for entry in path.iterdir() if entry.is_dir() or entry.suffix == ".npz"]
    samples = sorted((entry for entry in nested if not entry.name.startswith(".")), key=_natural)
    if not samples:
        raise UsageError(f"{one_line(str(path))}: holds no inputs; expected {_FORMS}")
    if len(samples) > most:
        raise UsageError(
            f"{one_line(str(path))}: holds {number_of(len(samples), 'sample')}; at most {most:,} are taken"
        )
    return samples


def _natural(path: Path) -> list[tuple[int, str]]:
    return [
        (int(part), "") if part.isascii() and part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)
    ]


def read_place(place: Path, source: Source) -> tuple[Arrays, Arrays | None]:
    """Return the inputs and, where they are there, the outputs of one sample; names, dtypes and shapes are not looked at.

    Raises UsageError for what cannot be read, and OSError.
    """
    names = [*source.inputs, *source.optional_inputs]
    if place.is_dir() and any(place.glob("*.pb")):
        outputs = _from_protobufs(place, "output", list(source.outputs))
        return _from_protobufs(place, "input", names), outputs or None
    if place.suffix == ".pb":
        array, name = _protobuf(place)
        return {name if name in names else _only(source, place): array}, None
    if place.suffix == ".npy" and place.is_file():
        return {_only(source, place): _npy(read_bytes(place, MOST_BYTES), one_line(str(place)))}, None
    return _named_arrays(place, names, "input"), None


def _only(source: Source, place: Path) -> str:
    if len(source.inputs) != 1:
        raise UsageError(
            f"{one_line(str(place))}: is one array, and the model has {number_of(len(source.inputs), 'input')} ({_listed(source.inputs)}): give {_FORMS}"
        )
    return next(iter(source.inputs))


def _named_arrays(place: Path, names: Sequence[str], kind: str) -> Arrays:
    """Return the arrays of an .npz or of the .npy files in a folder, by name."""
    if place.is_dir():
        files = sorted(place.glob("*.npy"))
        if not files:
            raise UsageError(f"{one_line(str(place))}: holds no {kind}s; expected {_FORMS}")
        escaped = {re.sub(r"[^\w.-]", "_", name): name for name in names}  # what cannot be a file's name
        return {
            file.stem if file.stem in names else escaped.get(file.stem, file.stem): _npy(
                read_bytes(file, MOST_BYTES), one_line(str(file))
            )
            for file in files
        }
    content = read_bytes(place, MOST_BYTES)
    if not content.startswith(b"PK"):
        raise UsageError(f"{one_line(str(place))}: is no file of {kind}s; expected {_FORMS}")
    return _npz(content, one_line(str(place)))


def _npz(content: bytes, shown: str) -> Arrays:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            if sum(member.file_size for member in members) > MOST_BYTES:
                raise UsageError(f"{shown}: unpacks to more than {MOST_BYTES:,} bytes")
            if not members:
                raise UsageError(f"{shown}: is a zip archive without arrays; write it with numpy.savez")
            return {
                member.filename.removesuffix(".npy"): _npy(
                    archive.read(member), f"{shown}: {one_line(member.filename, 80)}"
                )
                for member in members
            }
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError, zlib.error) as error:
        raise UsageError(
            f"{shown}: is a damaged archive ({one_line(str(error), 200)}): write it again with numpy.savez"
        ) from error


def _npy(content: bytes, shown: str) -> Array:
    """Return the array that the bytes of a .npy file hold; nothing is unpickled, and the header is checked against the size."""
    read_npy_header(io.BytesIO(content), len(content), shown)
    try:
        array: Array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, SyntaxError, EOFError, OSError, TypeError, tokenize.TokenError) as error:
        raise _no_array(shown, error) from error
    return array


def read_npy_header(stream: IO[bytes], size: int, shown: str) -> NpyHeader:
    """Return what the header of a .npy file of `size` bytes says, and leave the stream behind it.

    Raises UsageError for pickled objects, for no array at all, and where the file is shorter than its header says.
    """
    try:
        version = npy_format.read_magic(stream)
        read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        header = NpyHeader(*read(stream))
        if header.dtype.hasobject:
            raise UsageError(
                f"{shown}: holds pickled Python objects, which are never read: save arrays of numbers with numpy.save"
            )
        if any(length < 0 for length in header.shape):
            raise ValueError(f"shape {header.shape} has a negative size")
        needed, stored = math.prod(header.shape) * header.dtype.itemsize, size - stream.tell()
        if needed > stored:
            raise UsageError(
                f"{shown}: is truncated: shape {header.shape} of {header.dtype} needs {number_of(needed, 'byte')}, and {stored:,} are there"
            )
    except (ValueError, SyntaxError, EOFError, OSError, TypeError, tokenize.TokenError) as error:
        raise _no_array(shown, error) from error
    return header


def _no_array(shown: str, error: Exception) -> UsageError:
    return UsageError(f"{shown}: is no array of NumPy ({one_line(str(error), 200)}): write it with numpy.save")


def _from_protobufs(folder: Path, kind: str, names: Sequence[str]) -> Arrays:
    """Return the tensors of KIND_K.pb in a folder, by their own names where the model has them, else by K."""
    numbers = {
        int(match[1]): entry
        for entry in folder.iterdir()
        if (match := re.fullmatch(rf"{kind}_([0-9]{{1,6}})\.pb", entry.name))
    }
    arrays: Arrays = {}
    for k, file in sorted(numbers.items()):
        array, own_name = _protobuf(file)
        if own_name not in names and k >= len(names):
            raise UsageError(f"{one_line(str(file))}: the model has no {kind} {k}; it has {_listed(names)}")
        name = own_name if own_name in names else names[k]
        if name in arrays:
            raise UsageError(f"{one_line(str(file))}: is a second tensor for {kind} {one_line(name)!r}")
        arrays[name] = array
    return arrays


def _protobuf(file: Path) -> tuple[Array, str]:
    """Return the values and the name of the TensorProto in a file."""
    shown = one_line(str(file))
    tensor = TensorProto()
    try:
        tensor.ParseFromString(read_bytes(file, MOST_BYTES))
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise UsageError(f"{shown}: points to another file, which is not followed: save the values in it")
        if not tensor.data_type or any(size < 0 for size in tensor.dims):
            raise UsageError(f"{shown}: is no tensor of ONNX (a TensorProto); sequences and maps are not taken")
        return numpy_helper.to_array(tensor), tensor.name
    except (DecodeError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{shown}: is no tensor of ONNX, or damaged ({one_line(str(error), 200)})") from error


def expect_inputs(arrays: Arrays, source: Source, shown: str) -> None:
    """Raise UsageError, naming `shown`, where the arrays are not what the model takes; arrays of strings and bfloat16 become as declared."""
    declared = {**source.inputs, **source.optional_inputs}
    for name in arrays:
        if name not in declared:
            raise UsageError(f"{shown}: the model has no input {one_line(name)!r}{near(name, list(declared))}")
    if missing := [name for name in source.inputs if name not in arrays]:
        raise UsageError(f"{shown}: lacks the input {_listed(missing)}; it holds {_listed(arrays)}")
    symbols: dict[str, tuple[int, str]] = {}
    for name in arrays:
        arrays[name] = _held_as(arrays[name], declared[name])
        tensor = f"input {one_line(name)!r}"
        _expect_dtype(tensor, arrays[name], declared[name], shown)
        _expect_shape(tensor, arrays[name], declared[name], shown, symbols)


def expect_inputs_fit(arrays: Arrays, source: Source, max_memory: int | None, shown: str) -> None:
    """Raise UsageError, naming `shown`, where a check with these inputs needs more memory than `max_memory`, or than there is."""
    try:
        shapes = inferred_shapes(source, {name: array.shape for name, array in arrays.items() if name in source.inputs})
        expect_sample_fits(source, shapes, max_memory, " with these inputs")
    except onnx.shape_inference.InferenceError:  # a run decides whether they fit together
        return
    except UsageError as error:
        raise UsageError(f"{shown}: the model {error}") from error


def _held_as(array: Array, declared: TensorType) -> Array:
    """Return an array in the machine's order of bytes, contiguous; what files cannot say of strings and bfloat16 as declared."""
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
    if array.dtype.kind in "US" and declared.dtype == object:
        return array.astype(object)
    if (
        array.dtype.kind == "V"
        and array.dtype.itemsize == declared.dtype.itemsize
        and declared.dtype.name == "bfloat16"
    ):
        return array.view(declared.dtype)
    return array


def _expect_dtype(tensor: str, array: Array, declared: TensorType, shown: str) -> None:
    """Raise UsageError where an array of `tensor`, as "input 'x'", has another dtype than declared."""
    if array.dtype == declared.dtype:
        return
    if array.dtype.kind in "fiub" and declared.dtype != object:
        lossless = np.can_cast(array.dtype, declared.dtype, "safe") or np.array_equal(
            array.astype(declared.dtype), array
        )
        cast = f": save array.astype(numpy.{declared.dtype})" + ("" if lossless else ", which loses digits here")
    else:
        cast = ""
    raise UsageError(f"{shown}: {tensor} is {array.dtype}, and the model has {declared}{cast}")


def _expect_shape(
    tensor: str, array: Array, declared: TensorType, shown: str, symbols: dict[str, tuple[int, str]]
) -> None:
    """Raise UsageError where a shape does not fit, or a symbol of `symbols`, by name its size and the input that set it, has another size."""
    if declared.dims is None:
        return
    sizes = " x ".join(map(str, array.shape)) or "a scalar"
    if array.ndim != len(declared.dims):
        advice = _rank_advice(array.shape, declared.dims)
        raise UsageError(
            f"{shown}: {tensor} has {number_of(array.ndim, 'dimension')} ({sizes}), and the model has {len(declared.dims)}: {declared}{advice}"
        )
    for axis, (size, dim) in enumerate(zip(array.shape, declared.dims, strict=True)):
        if isinstance(dim, int) and size != dim:
            raise UsageError(
                f"{shown}: dimension {axis} of {tensor} is {size} ({sizes}), and the model has {dim}: {declared}"
            )
        if isinstance(dim, str):
            first, setter = symbols.setdefault(dim, (size, tensor))
            if first != size:
                raise UsageError(
                    f"{shown}: {one_line(dim)} is {first} by {setter} and {size} by dimension {axis} of "
                    f"{tensor}; a symbol has one size"
                )


def _rank_advice(shape: tuple[int, ...], dims: Sequence[int | str | None]) -> str:
    if len(shape) + 1 == len(dims) and all(
        dim == size or not isinstance(dim, int) for dim, size in zip(dims[1:], shape, strict=True)
    ):
        return "; is the batch missing? array[numpy.newaxis] adds it"
    return ""


def _nonfinite(arrays: Arrays) -> Iterable[str]:
    for name, array in arrays.items():
        if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
            continue
        numbers = array.astype(np.float32) if array.dtype.itemsize < 4 else array
        nan, infinite = int(np.isnan(numbers).sum()), int(np.isinf(numbers).sum())
        if nan or infinite:
            yield f"input {one_line(name)!r} holds {nan:,} NaN and {number_of(infinite, 'infinity', 'infinities')} among {number_of(array.size, 'number')}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(one_line(name, 80) for name in names) or "nothing"
