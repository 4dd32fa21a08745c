"""`actconform grad`: an ONNX model in, the same model with its gradients out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model, uses_external_data

from actconform.config import UsageError
from actconform.onnx.artifact import tensors
from actconform.onnx.grad import GradientError, UnsupportedOperator, add_gradients

if TYPE_CHECKING:
    from collections.abc import Iterable

LARGEST = 2**31 - 1  # bytes of a protobuf message


@click.command("grad")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The file to write.")
@click.option(
    "--wrt", multiple=True, required=True, help="Inputs or initializers to differentiate by: x,w (repeatable)."
)
@click.option("--output", "outputs", multiple=True, help="Outputs to differentiate: y,z (default: all of floats).")
def command(model: Path, out: Path, wrt: tuple[str, ...], outputs: tuple[str, ...]) -> int:
    """Write MODEL with a further input ct_NAME for each output, and a further output d_NAME for each of --wrt.

    d_x is the sum over the outputs of the cotangent ct_y times the derivative of y with respect to x; for a scalar loss and a
    cotangent of 1 it is the gradient. The nodes are standard ONNX operators: any runtime computes them.
    """
    read = _read(model)
    try:
        made = add_gradients(read, _names(wrt), _names(outputs) or None)
    except (GradientError, UnsupportedOperator) as error:
        raise UsageError(f"{model}: {error}; nothing was written") from error
    _write(made, out)
    added = len(made.graph.node) - len(read.graph.node)
    new = [value.name for value in (*made.graph.input, *made.graph.output)]
    old = {value.name for value in (*read.graph.input, *read.graph.output)}
    click.echo(
        f"{out}: {added} nodes added; new inputs and outputs: {', '.join(name for name in new if name not in old)}"
    )
    return 0


def _names(given: Iterable[str]) -> list[str]:
    return [name.strip() for each in given for name in each.split(",") if name.strip()]


def _read(path: Path) -> onnx.ModelProto:
    """Return the model with all its data in memory; none is read from outside its folder."""
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except DecodeError as error:
        raise UsageError(f"{path}: is no ONNX model: {error}") from error
    folder = path.resolve().parent
    for tensor in tensors(model):
        if uses_external_data(tensor):
            location = ExternalDataInfo(tensor).location
            target = (folder / location).resolve()
            if not target.is_relative_to(folder):
                raise UsageError(
                    f"{path}: the data of {tensor.name} lies in {location!r}, outside the model's folder, and is not read; "
                    "copy it beside the model and save the model anew"
                )
            if not target.is_file():
                raise UsageError(f"{path}: the data of {tensor.name} should lie in {target}, which is no file")
    try:
        load_external_data_for_model(model, str(folder))
    except Exception as error:  # onnx raises ValueError, its checker's error, and others
        raise UsageError(f"{path}: its data cannot be read: {error}") from error
    return model


def _write(model: onnx.ModelProto, path: Path) -> None:
    """Write all of the model, or nothing."""
    if model.ByteSize() > LARGEST:
        raise UsageError(
            f"{path}: the model has more than 2 GiB and cannot be one file; call actconform.onnx.grad.add_gradients, and "
            "onnx.save with save_as_external_data=True"
        )
    part = path.with_name(f".{path.name}.part")
    try:
        try:
            part.write_bytes(model.SerializeToString())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"--out {path}: cannot be written: {error.strerror}") from error
