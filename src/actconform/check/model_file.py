"""A model in a file that workers read: written once for all its runs, and again with tensors marked as outputs."""

from __future__ import annotations

import math
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

MOST_BYTES = 2**31 - 1 - 2**24  # of what protobuf can hold, less what nodes and marks may take
LEAST_BYTES = 1024  # of a tensor that goes to the file beside it, as onnx does it
PAGE = 4096  # data files are mapped into memory by pages
WEIGHTS = "weights.bin"


class ModelFile:
    """The file of a model, in a folder that is removed at the end; the model itself is neither changed nor kept.

        with ModelFile(model) as file:
            answer = runs.outputs(file, sample)

    A model of less than 2 GiB is one file. The large weights of others lie in a second one, and `single` is false.
    """

    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        initializers = {tensor.name for tensor in graph.initializer}
        self.inputs = tuple(value.name for value in graph.input if value.name not in initializers)
        self.outputs = tuple(value.name for value in graph.output)
        self._sources = initializers | {value.name for value in graph.input}
        self._node_outputs = {name for node in graph.node for name in node.output if name}
        self._folder = Path(tempfile.mkdtemp(prefix="actconform-check-"))
        self.path = self._folder / "model.onnx"
        self.single = sum(map(_bytes, graph.initializer)) <= MOST_BYTES
        try:
            if self.single:
                self.path.write_bytes(model.SerializeToString())
            else:
                self.path.write_bytes(_without_weights(model, self._folder / WEIGHTS).SerializeToString())
        except BaseException:
            self.close()
            raise

    @contextmanager
    def marked(self, names: Sequence[str], types: Mapping[str, int]) -> Iterator[tuple[Path, dict[str, str]]]:
        """Give a file of the model with the tensors `names` as further outputs, and what each is called as an output.

        What a node gives, and what is an output already, keeps its name; an input or initializer becomes an output through an
        Identity, since not all runtimes take it as one. `types` are element types; the type of a tensor that is not there is not
        stated. Raises ValueError for a name that the graph does not have.
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
        descriptor, path = tempfile.mkstemp(suffix=".onnx", dir=self._folder)
        try:
            with open(descriptor, "wb") as file, self.path.open("rb") as written:  # noqa: PTH123
                shutil.copyfileobj(written, file, 1 << 20)
                # Two serialized messages, one after the other, are one: their graphs' nodes and outputs are put together.
                file.write(ModelProto(graph=marks).SerializeToString())
            yield Path(path), called
        finally:
            Path(path).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fresh(self, name: str) -> str:
        fresh = f"{name}.marked"
        while fresh in self._node_outputs or fresh in self._sources:
            fresh += "'"
        return fresh


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


def _without_weights(model: ModelProto, path: Path) -> ModelProto:
    """Return a copy of the model whose large initializers lie in the file `path`, written here."""
    small = ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _copy_field(small, field.name, value)
    for field, value in model.graph.ListFields():
        if field.name != "initializer":
            _copy_field(small.graph, field.name, value)
    with path.open("wb") as file:
        for tensor in model.graph.initializer:
            copy = small.graph.initializer.add()
            if _bytes(tensor) < LEAST_BYTES or tensor.data_type == TensorProto.STRING:
                copy.CopyFrom(tensor)
                continue
            file.write(bytes(-file.tell() % PAGE))
            content = tensor.raw_data or numpy_helper.to_array(tensor).tobytes()
            copy.name, copy.data_type, copy.data_location = tensor.name, tensor.data_type, TensorProto.EXTERNAL
            copy.dims.extend(tensor.dims)
            for key, text in (("location", path.name), ("offset", file.tell()), ("length", len(content))):
                copy.external_data.add(key=key, value=str(text))
            file.write(content)
    return small


def _copy_field(target: ModelProto | GraphProto, name: str, value: object) -> None:
    if isinstance(value, int | str | bytes):
        setattr(target, name, value)
    else:
        getattr(target, name).MergeFrom(value)
