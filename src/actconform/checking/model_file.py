"""A model in a file that workers read: written once for all its runs, and again with tensors marked as outputs."""

from __future__ import annotations

import math
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from actconform.errors import UsageError
from actconform.files import temporary_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import BinaryIO, Self

PREFIX = "actconform-check-"
MOST_BYTES = 2**31 - 2**24  # of weights beside which protobuf can hold the nodes and marks
LEAST_BYTES = 1024  # of a tensor that goes to the file beside it, as onnx does it
PAGE = 4096  # data files are mapped into memory by pages
WEIGHTS = "weights.bin"
GRAPH_FIELD = bytes(
    [ModelProto.DESCRIPTOR.fields_by_name["graph"].number << 3 | 2]
)  # in protobuf: bytes, their length before them
COPIED = 1 << 20  # bytes at once


class ModelFile:
    """The file of a model, in a folder that is removed at the end; the model itself is neither changed nor kept.

        with ModelFile(model) as file:
            outputs = runs.outputs(file, sample)

    A model of less than 2 GiB is one file. The large weights of others lie in a second one, and `single` is false. It is written
    weight by weight, so that there is no second copy of it in memory. Raises UsageError where there is no space for the file.
    """

    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        initializers = {tensor.name for tensor in graph.initializer}
        self.inputs = tuple(value.name for value in graph.input if value.name not in initializers)
        self.outputs = tuple(value.name for value in graph.output)
        self.single = sum(map(_bytes, graph.initializer)) <= MOST_BYTES
        self._sources = initializers | {value.name for value in graph.input}
        self._node_outputs = {name for node in graph.node for name in node.output if name}
        self._beside_graph = _without(model, ModelProto(), "graph").SerializeToString()
        self._folder = temporary_folder(PREFIX)
        self.path = self._folder / "model.onnx"
        try:
            with _space_in(self._folder), tempfile.TemporaryFile(dir=self._folder) as content:
                content.write(_without(graph, GraphProto(), "initializer").SerializeToString())
                if self.single:
                    for tensor in graph.initializer:
                        content.write(GraphProto(initializer=[tensor]).SerializeToString())
                else:
                    with (self._folder / WEIGHTS).open("wb") as data:
                        for tensor in graph.initializer:
                            content.write(GraphProto(initializer=[_in_file(tensor, data)]).SerializeToString())
                self._graph_bytes = content.tell()
                content.seek(0)
                with self.path.open("wb") as file:
                    self._write(file, content)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def marked(self, names: Sequence[str], types: Mapping[str, int]) -> Iterator[tuple[Path, dict[str, str]]]:
        """Give a file of the model with the tensors `names` as further outputs, and what each is called as an output.

        What a node gives, and what is an output already, keeps its name; an input or initializer becomes an output through an
        Identity, since not all runtimes take it as one. `types` are element types; the type of a tensor that is not there is not
        stated. Raises ValueError for a name that the graph does not have, UsageError where there is no space for the file.
        """
        marks = GraphProto()
        called = {}
        for name in dict.fromkeys(names):
            called[name] = name
            if name in self.outputs:
                continue
            if name in self._sources:
                called[name] = self._fresh(name)
                marks.node.append(NodeProto(op_type="Identity", input=[name], output=[called[name]]))
            elif name not in self._node_outputs:
                raise ValueError(f"the graph has no tensor {name!r} that could be marked")
            marks.output.append(_value_info(called[name], types.get(name, 0)))
        with _space_in(self._folder):
            descriptor, text = tempfile.mkstemp(suffix=".onnx", dir=self._folder)
        path = Path(text)
        try:
            with open(descriptor, "wb") as file, self.path.open("rb") as content, _space_in(self._folder):  # noqa: PTH123
                content.seek(-self._graph_bytes, 2)
                self._write(file, content, marks.SerializeToString())
            yield path, called
        finally:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, file: BinaryIO, content: BinaryIO, marks: bytes = b"") -> None:
        """Write the model whose graph is the rest of `content`, with what `marks` has: in protobuf, repeated fields add up."""
        file.write(self._beside_graph + GRAPH_FIELD + _varint(self._graph_bytes + len(marks)))
        shutil.copyfileobj(content, file, COPIED)
        file.write(marks)

    def _fresh(self, name: str) -> str:
        fresh = f"{name}.marked"
        while fresh in self._node_outputs or fresh in self._sources:
            fresh += "'"
        return fresh


@contextmanager
def _space_in(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"the model cannot be written to {folder}: {error.strerror}; set TMPDIR to a folder with more space"
        ) from error


def _varint(number: int) -> bytes:
    """Return a number as protobuf writes it: seven bits a byte, the lowest first, all but the last byte with the eighth bit set."""
    groups = []
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])


def _value_info(name: str, element_type: int) -> ValueInfoProto:
    if not element_type:
        return ValueInfoProto(name=name)
    info: ValueInfoProto = helper.make_tensor_value_info(name, element_type, None)
    return info


def _bytes(tensor: TensorProto) -> int:
    if tensor.data_type == TensorProto.STRING:
        return int(tensor.ByteSize())
    size: int = math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return size


def _in_file(tensor: TensorProto, data: BinaryIO) -> TensorProto:
    """Return a tensor whose data were written to the file `data`, in whole pages; a small one as it is."""
    if _bytes(tensor) < LEAST_BYTES or tensor.data_type == TensorProto.STRING:
        return tensor
    data.write(bytes(-data.tell() % PAGE))
    content = tensor.raw_data or numpy_helper.to_array(tensor).tobytes()
    reference = TensorProto(
        name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, data_location=TensorProto.EXTERNAL
    )
    for key, text in (("location", WEIGHTS), ("offset", data.tell()), ("length", len(content))):
        reference.external_data.add(key=key, value=str(text))
    data.write(content)
    return reference


def _without(message: ModelProto | GraphProto, copy: ModelProto | GraphProto, field: str) -> ModelProto | GraphProto:
    """Return `copy`, an empty message, with all fields of `message` but one."""
    for descriptor, value in message.ListFields():
        if descriptor.name == field:
            continue
        if isinstance(value, int | str | bytes):
            setattr(copy, descriptor.name, value)
        else:
            getattr(copy, descriptor.name).MergeFrom(value)
    return copy
