"""How a command runs a graph, for a program that stands alone: the text of this file is copied into it, with the command."""

from __future__ import annotations

import io
import shlex
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

COMMAND = ""
PREPARE = ""
SERVE = ""
FOLDER = ""
TENSORS = ""


def run(model: str, inputs: dict[str, Any], level: str) -> dict[str, Any]:  # noqa: ARG001  there are none
    """Return the outputs by name, from the files that the command leaves, or the messages that it answers."""
    with tempfile.TemporaryDirectory() as place:
        proto = onnx.load(model)
        names = {value.name: value.name for value in (*proto.graph.input, *proto.graph.output)}
        if not SERVE:
            names = {name: name if Path(name).name == name else f"tensor_{i}" for i, name in enumerate(names)}
        _rename(proto.graph, names)
        onnx.save(proto, Path(place, "model.onnx"))
        places = {"model": str(Path(place, "model.onnx")), "artifact": str(Path(place, "artifact"))}
        if PREPARE:
            _command(PREPARE, places)
        if SERVE:
            return _served(places["artifact" if PREPARE else "model"], inputs, proto)
        folders = {name: Path(place, name, *(["0"] if PREPARE else [])) for name in ("inputs", "outputs")}
        for folder in folders.values():
            folder.mkdir(parents=True)
        for tensor, array in inputs.items():
            content = _bytes(names[tensor], array)
            (folders["inputs"] / f"{names[tensor]}.{TENSORS}").write_bytes(content)
        _command(COMMAND, {**places, **{name: str(Path(place, name)) for name in folders}})
        outputs = zip(onnx.load(model).graph.output, proto.graph.output, strict=True)
        return {
            value.name: _array((folders["outputs"] / f"{written.name}.{TENSORS}").read_bytes(), value)
            for value, written in outputs
        }


def _command(command: str, places: dict[str, str]) -> None:
    words = [word.format(**places) for word in shlex.split(command)]
    subprocess.run(words, cwd=FOLDER, check=True, stdin=subprocess.DEVNULL)  # noqa: S603


def _served(path: str, inputs: dict[str, Any], proto: onnx.ModelProto) -> dict[str, Any]:
    """Say hello, load the graph, make one call, say goodbye; the third answer has the outputs."""
    call = {name: _bytes(name, array) for name, array in inputs.items()}
    requests = [(1, {"protocol": b"1"}), (2, {"path": path.encode()}), (3, call), (5, {})]
    stream = b"".join(
        struct.pack("<4sIII", b"ACS1", kind, 0, len(blobs))
        + b"".join(
            struct.pack("<IQ", len(name.encode()), len(blob)) + name.encode() + blob for name, blob in blobs.items()
        )
        for kind, blobs in requests
    )
    done = subprocess.run(shlex.split(SERVE), cwd=FOLDER, check=True, input=stream, stdout=subprocess.PIPE)  # noqa: S603
    answers = io.BytesIO(done.stdout)
    blobs: dict[str, bytes] = {}
    for _ in requests[:3]:
        _, kind, _, count = struct.unpack("<4sIII", answers.read(16))
        blobs = {}
        for _ in range(count):
            name_size, size = struct.unpack("<IQ", answers.read(12))
            name = answers.read(name_size).decode()
            blobs[name] = answers.read(size)
        if kind != 16:
            raise RuntimeError(blobs.get("message", b"it gives no reason").decode())
    return {value.name: _array(blobs[value.name], value) for value in proto.graph.output}


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Give tensors names that files can have."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)


def _bytes(name: str, array: Any) -> bytes:
    if TENSORS == "pb":
        return bytes(numpy_helper.from_array(array, name).SerializeToString())
    stream = io.BytesIO()  # bfloat16 by its bits
    np.save(stream, array.view(np.uint16) if array.dtype.name == "bfloat16" else array)
    return stream.getvalue()


def _array(content: bytes, value: onnx.ValueInfoProto) -> Any:
    if TENSORS == "pb":
        return numpy_helper.to_array(onnx.TensorProto.FromString(content))
    array = np.load(io.BytesIO(content))
    if value.type.tensor_type.elem_type == onnx.TensorProto.BFLOAT16:
        import ml_dtypes

        return array.view(ml_dtypes.bfloat16)
    return array
