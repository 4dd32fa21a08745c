"""A foreign ONNX model, read with every check that later steps rely on."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import uses_external_data

from actconform.checking.file_kinds import HEAD, MODEL_SUFFIXES, foreign_file, foreign_folder
from actconform.checking.integrity import expect_text, expect_whole_tensors
from actconform.checking.memory import element_size, estimated_bytes, expect_fits, weight_bytes
from actconform.checking.structure import expect_sound, undefined_operators
from actconform.errors import CannotConvertError, ExternalDataError, TooLargeError, UsageError
from actconform.files import read_bytes
from actconform.onnx.evaluate.element_types import STORAGE
from actconform.onnx.external import MOST_BYTES, data_files, read_external_data
from actconform.onnx.gates import standard_opset, tensors
from actconform.onnx.opset_conversion import inlined
from actconform.onnx.strip_weights import open_dimensions, without_weights
from actconform.text import listed, number_of, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

Dims: TypeAlias = tuple[int | str | None, ...]
_FIRST_FIELD = 8  # the tag of ir_version
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class TensorType:
    """What a model declares of an input or an output."""

    element_type: int
    """A TensorProto.DataType."""
    dims: Dims | None
    """A size, the name of one, or None where it is open; None altogether where the rank is open."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy dtype, `object` for strings. Raises UsageError for types that NumPy arrays do not hold here."""
        if self.element_type == TensorProto.STRING:
            return np.dtype(object)
        if self.element_type not in STORAGE:
            raise UsageError(f"tensors of type {TensorProto.DataType.Name(self.element_type)} are not taken as inputs")
        return STORAGE[self.element_type]

    def __str__(self) -> str:
        name = str(STORAGE.get(self.element_type, TensorProto.DataType.Name(self.element_type).lower()))
        if self.dims is None:
            return f"{name} of any shape"
        return f"{name} [{', '.join('?' if dim is None else one_line(str(dim), 40) for dim in self.dims)}]"


@dataclass(frozen=True)
class Source:
    """A model as it lies in its file, sound enough to be evaluated and run."""

    path: Path
    model: onnx.ModelProto
    """All of it, external data in memory; where both have more than 2 GiB together, external data stay in their files."""
    inputs: Mapping[str, TensorType]
    """What a run needs, in the model's order: without those that have an initializer."""
    optional_inputs: Mapping[str, TensorType]
    """Inputs with an initializer, which a run may override."""
    outputs: Mapping[str, TensorType]
    sha256: str
    """Of the model's file and, after it, of the files with its external data, by their names in order."""
    weight_bytes: int
    """What a check is estimated to hold of weights at once."""
    notes: tuple[str, ...] = ()
    """What a reader of the verdict should know: operators that nobody defines, what onnx's checker finds wrong."""

    @property
    def opset(self) -> int:
        """The version of the standard's operators."""
        return standard_opset(self.model)

    @property
    def nodes(self) -> int:
        """The number of nodes of the main graph."""
        return len(self.model.graph.node)

    @property
    def has_float_outputs(self) -> bool:
        """Whether rounding can show in an output at all."""
        return any(output.element_type in FLOATS for output in self.outputs.values())

    @cached_property
    def light(self) -> onnx.ModelProto:
        """The model without its large weights, functions inlined and unnamed dimensions open: for inference and analysis."""
        light = without_weights(self.model)
        open_dimensions(light.graph)
        try:
            return inlined(light) if light.functions else light
        except (CannotConvertError, TooLargeError, RuntimeError, ValueError) as error:  # the last two by the inliner
            raise UsageError(f"{self.path}: its functions cannot be inlined: {one_line(str(error))}") from error

    def with_model(self, model: onnx.ModelProto) -> Source:
        """Return a source of another model, made of this one."""
        return _source(self.path, model, weight_bytes(model), self.sha256)

    def array(self, tensor: TensorProto) -> NDArray[Any]:
        """Return the values of a tensor of the model, mapped from its file where it lies in one."""
        if not uses_external_data(tensor):
            return numpy_helper.to_array(tensor)
        import onnx_ir

        return onnx_ir.serde.deserialize_tensor(tensor, self.path.parent.resolve()).numpy()


def read_source(path: Path, *, max_memory: int | None = None, weights: bool = True) -> Source:
    """Return the model in a file of ONNX's binary format.

    `max_memory` is in bytes, by default what the machine has available. Without `weights` the graph is read to be looked at: external
    data stay in their files, and no digest is made of them. Raises UsageError, naming the file, what is wrong and
    what to do: for a path that is no file, for other kinds of files, a damaged file, a graph that cannot be evaluated in
    order, external data outside the model's folder or damaged, an opset that is not known, and a model that needs more memory.
    """
    content = _content(path)
    try:
        model = _parsed(content)
        expect_text(model)
        folder = path.parent.resolve()
        stored = [tensor for tensor in tensors(model) if tensor.data_type or tensor.dims or tensor.name]
        outside = [tensor for tensor in stored if uses_external_data(tensor)]
        _expect_plain_places(outside, folder)
        data = data_files(model, folder)
        expect_sound(model)
        expect_whole_tensors(stored)
        size = weight_bytes(model)
        if not weights:
            _expect_long_enough(outside, data)
            return _source(path, model, size, "")
        expect_fits(estimated_bytes(size, model.graph, _least_shapes(model)), max_memory, "")
        if len(content) + sum(map(_declared_bytes, outside)) <= MOST_BYTES:
            read_external_data(model, folder)
        else:
            _expect_long_enough(outside, data)
    except (UsageError, ExternalDataError) as error:
        raise UsageError(f"{one_line(str(path))}: {one_line(str(error))}") from error
    return _source(path, model, size, _digest(content, [data[name] for name in sorted(data)]))


def source_of_model(model: onnx.ModelProto, name: str) -> Source:
    """Return the source of a model in memory, sound by itself, under a name for messages."""
    return _source(Path(name), model, weight_bytes(model), "")


def _source(path: Path, model: onnx.ModelProto, weights: int, sha256: str) -> Source:
    left_out = _leave_out_other_outputs(path, model)
    bare = onnx.GraphProto(input=model.graph.input, output=model.graph.output)
    open_dimensions(bare)
    initialized = {tensor.name for tensor in model.graph.initializer}
    initialized.update(tensor.values.name for tensor in model.graph.sparse_initializer)
    try:
        declared = {value.name: _tensor_type(value) for value in bare.input}
        outputs = {value.name: _output_type(value) for value in bare.output}
    except UsageError as error:
        raise UsageError(f"{one_line(str(path))}: {error}") from error
    return Source(
        path=path,
        model=model,
        inputs={name: tensor for name, tensor in declared.items() if name not in initialized},
        optional_inputs={name: tensor for name, tensor in declared.items() if name in initialized},
        outputs=outputs,
        sha256=sha256,
        weight_bytes=weights,
        notes=(*left_out, *_notes(model)),
    )


def _leave_out_other_outputs(path: Path, model: onnx.ModelProto) -> list[str]:
    """Take outputs off the model that are no tensors of numbers, and return a note where there are any; the nodes stay.

    Raises UsageError where none is left.
    """
    numeric = [value for value in model.graph.output if _is_numeric(value)]
    others = [one_line(value.name, 80) for value in model.graph.output if not _is_numeric(value)]
    if not others:
        return []
    if not numeric:
        raise UsageError(
            f"{one_line(str(path))}: gives no tensor of numbers that could be compared, but {listed(others, 5)}"
        )
    kept = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in numeric]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    return [f"outputs that are no tensors of numbers are not compared: {listed(others, 5)}"]


def _is_numeric(value: onnx.ValueInfoProto) -> bool:
    kind = value.type.WhichOneof("value")
    return kind in {"tensor_type", None} and value.type.tensor_type.elem_type != TensorProto.STRING


def _content(path: Path) -> bytes:
    """Return the bytes of a file that may be an ONNX model."""
    shown = one_line(str(path))
    try:
        if path.is_dir():
            raise UsageError(f"{shown}: {foreign_folder(path)}")
        size = path.stat().st_size if path.is_file() else 0
        head = read_bytes(path, MOST_BYTES, start=0, length=min(size, HEAD)) if size else b""
        if head and (kind := foreign_file(path, head)):
            raise UsageError(f"{shown}: {kind}")
        if size > MOST_BYTES:
            raise UsageError(
                f"{shown}: has {number_of(size, 'byte')}; no ONNX model has more than 2 GiB but with its weights in a file beside it"
            )
        content = read_bytes(path, MOST_BYTES)
    except FileNotFoundError as error:
        raise UsageError(f"{shown}: there is no such file{_near_file(path)}") from error
    except (OSError, ValueError) as error:
        reason = (error.strerror or error) if isinstance(error, OSError) else error
        raise UsageError(f"{shown}: cannot be read: {one_line(str(reason))}") from error
    if not content:
        raise UsageError(f"{shown}: is empty: fetch it, or save it, again")
    return content


def _near_file(path: Path) -> str:
    from actconform.errors import near

    try:
        names = [
            one_line(entry.name, 80)
            for entry in path.parent.iterdir()
            if entry.suffix in MODEL_SUFFIXES and entry.is_file()
        ]
    except OSError:
        return f", nor a folder {one_line(str(path.parent))}"
    return near(path.name, sorted(names)) if names else ""


def _parsed(content: bytes) -> onnx.ModelProto:
    unknown = "is no ONNX model, and no other kind of file that is recognized"
    try:
        model = onnx.load_from_string(content)
    except (DecodeError, ValueError, RuntimeError) as error:
        if _is_tensor(content):
            raise UsageError(
                "is a tensor, as ONNX's test data are: name the model first, and this with --inputs"
            ) from error
        if content[0] != _FIRST_FIELD:
            raise UsageError(unknown) from error
        raise UsageError(
            f"begins as an ONNX model and is damaged or truncated ({number_of(len(content), 'byte')}): fetch or export it again"
        ) from error
    if not model.HasField("graph"):
        raise UsageError("is an ONNX model without a graph: export it again" if model.opset_import else unknown)
    return model


def _is_tensor(content: bytes) -> bool:
    tensor = TensorProto()
    try:
        tensor.ParseFromString(content)
    except DecodeError:
        return False
    return bool(tensor.data_type and tensor.dims and tensor.SerializeToString() == content)


def _expect_plain_places(outside: Sequence[TensorProto], folder: Path) -> None:
    """Raise ExternalDataError where data lie at an absolute path, or where a link stands between the folder and them."""
    for tensor in outside:
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        where = f"the data of {tensor.name} lie in {location!r}"
        if PurePosixPath(location).is_absolute() or PureWindowsPath(location).is_absolute():
            raise ExternalDataError(
                f"{where}, an absolute path, and are not read; copy the file beside the model and save the model anew"
            )
        path = folder
        for part in PurePosixPath(location).parts if "\x00" not in location else ():
            path = path / part
            if path.is_symlink():
                raise ExternalDataError(
                    f"{where}, and {path} is a link, which is not followed; put the file itself there"
                )


def _expect_long_enough(outside: Sequence[TensorProto], data: Mapping[str, Path]) -> None:
    """Raise ExternalDataError where a tensor that stays in its file would end behind the file's end."""
    for tensor in outside:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        size, offset = _declared_bytes(tensor), entries.get("offset", "0")
        length = entries.get("length", str(size))
        file_size = data[tensor.name].stat().st_size
        if not (offset.isascii() and offset.isdigit() and len(offset) < 20) or int(offset) + size > file_size:
            raise ExternalDataError(
                f"the data of {tensor.name} have {number_of(size, 'byte')} from byte {offset[:40]} of {data[tensor.name]}, which has {file_size:,}"
            )
        if length != str(size):
            raise ExternalDataError(
                f"the data of {tensor.name} have {length[:40]} bytes by their length, and {size:,} by shape and type"
            )


def _declared_bytes(tensor: TensorProto) -> int:
    count: int = math.prod(tensor.dims)
    return count * element_size(tensor.data_type)


def _least_shapes(model: onnx.ModelProto) -> dict[str, Sequence[int]]:
    """Return the least shapes of the tensors that the model notes: 1 for every open dimension."""
    shapes: dict[str, Sequence[int]] = {}
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            shapes[value.name] = [max(dim.dim_value, 1) if dim.HasField("dim_value") else 1 for dim in dims]
    return shapes


def _tensor_type(value: onnx.ValueInfoProto) -> TensorType:
    if value.type.WhichOneof("value") not in {"tensor_type", None}:
        kind = str(value.type.WhichOneof("value")).removesuffix("_type")
        raise UsageError(f"input {one_line(value.name)!r} is a {kind}; models are checked whose inputs are tensors")
    return _output_type(value)


def _output_type(value: onnx.ValueInfoProto) -> TensorType:
    described = value.type.tensor_type
    if described.elem_type not in TensorProto.DataType.values():
        raise UsageError(
            f"{one_line(value.name)!r} has the element type {described.elem_type}, which onnx {onnx.__version__} does not know"
        )
    if not described.HasField("shape"):
        return TensorType(described.elem_type, None)
    dims = (dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in described.shape.dim)
    return TensorType(described.elem_type, tuple(dims))


def _notes(model: onnx.ModelProto) -> list[str]:
    notes = []
    if undefined := undefined_operators(model):
        notes.append(
            f"operators that neither the standard nor the model defines, which a runtime may know: {', '.join(undefined)}"
        )
    try:
        onnx.checker.check_model(without_weights(model))
    except Exception as error:  # noqa: BLE001  whatever the checker raises is its verdict
        notes.append(f"onnx's checker: {one_line(str(error), 400)}")
    return notes


def _digest(content: bytes, files: Sequence[Path]) -> str:
    digest = hashlib.sha256(content)
    for path in dict.fromkeys(files):
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()
