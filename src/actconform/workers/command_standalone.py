"""How a command runs a graph, for a program that stands alone: the text of this file is copied into it, with the command."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

COMMAND = ""
FOLDER = ""
TENSORS = ""


def run(model: str, inputs: dict[str, Any], level: str) -> dict[str, Any]:  # noqa: ARG001  there are none
    """Return the outputs by name, from the files that the command leaves."""
    with tempfile.TemporaryDirectory() as place:
        folders = {name: Path(place, name) for name in ("inputs", "outputs")}
        for folder in folders.values():
            folder.mkdir()
        proto = onnx.load(model)
        names = {value.name: value.name for value in (*proto.graph.input, *proto.graph.output)}
        names = {name: name if Path(name).name == name else f"tensor_{i}" for i, name in enumerate(names)}
        _rename(proto.graph, names)
        onnx.save(proto, Path(place, "model.onnx"))
        for tensor, array in inputs.items():
            _write(folders["inputs"] / f"{names[tensor]}.{TENSORS}", names[tensor], array)
        places = {"model": str(Path(place, "model.onnx")), **{name: str(folder) for name, folder in folders.items()}}
        words = [word.format(**places) for word in shlex.split(COMMAND)]
        subprocess.run(words, cwd=FOLDER, check=True, stdin=subprocess.DEVNULL)  # noqa: S603
        outputs = zip(onnx.load(model).graph.output, proto.graph.output, strict=True)
        return {
            value.name: _read(folders["outputs"] / f"{written.name}.{TENSORS}", value) for value, written in outputs
        }


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Give tensors names that files can have."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)


def _write(path: Path, name: str, array: Any) -> None:
    if TENSORS == "pb":
        path.write_bytes(numpy_helper.from_array(array, name).SerializeToString())
    else:  # bfloat16 by its bits
        np.save(path, array.view(np.uint16) if array.dtype.name == "bfloat16" else array)


def _read(path: Path, value: onnx.ValueInfoProto) -> Any:
    if TENSORS == "pb":
        return numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))
    array = np.load(path)
    if value.type.tensor_type.elem_type == onnx.TensorProto.BFLOAT16:
        import ml_dtypes

        return array.view(ml_dtypes.bfloat16)
    return array
