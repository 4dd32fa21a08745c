"""`actconform grad`: an ONNX model in, the same model with its gradients out."""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import onnx
from google.protobuf.message import DecodeError

from actconform.errors import (
    ExternalDataError,
    GradientError,
    NameTakenError,
    PluginError,
    UnsupportedOperator,
    UsageError,
)
from actconform.files import read_bytes
from actconform.onnx.external import data_files, read_external_data
from actconform.onnx.grad.notes import lost_in_export
from actconform.onnx.grad.reverse_mode import add_gradients
from actconform.plugin.loader import load_plugins
from actconform.say import say
from actconform.text import number_of, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

LARGEST = 2**31 - 1  # bytes of a protobuf message
DIMENSION = re.compile("-?[0-9]{1,18}")  # fits 64 bits; add_gradients checks that it is positive
BINARY = "protobuf"  # onnx's name of the one format that is read and written here


@click.command("grad")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, help="The file to write: a new one, or one to overwrite.")
@click.option(
    "--wrt",
    multiple=True,
    help="Inputs or initializers to differentiate by: x,w (repeatable; default: all float inputs).",
)
@click.option("--shape", "shapes", multiple=True, help="Fix the dimensions of an input: x=1,3,160,160 (repeatable).")
@click.option("--output", "outputs", multiple=True, help="Outputs to differentiate: y,z (default: all of floats).")
@click.option("--cotangent", default="ct_", show_default=True, help="What the names of the new inputs begin with.")
@click.option("--gradient", default="d_", show_default=True, help="What the names of the new outputs begin with.")
def command(
    model: Path,
    out: str,
    wrt: tuple[str, ...],
    shapes: tuple[str, ...],
    outputs: tuple[str, ...],
    cotangent: str,
    gradient: str,
) -> int:
    """Write MODEL with a further input ct_NAME for each output, and a further output d_NAME for each of --wrt.

    d_x is the sum over the outputs of the cotangent ct_y times the derivative of y with respect to x; for a scalar loss and a
    cotangent of 1 it is the gradient. The nodes are standard ONNX operators: any runtime computes them. Operators of other
    domains need a rule, which installed plugins may give. What the export lost of the model is
    noted on standard error: tied and merged weights, folded normalization, detach.
    """
    try:
        wanted = "inputs or initializers of the model, or leave it out for all float inputs"
        sources = _names("--wrt", wrt, wanted) if wrt else None
        fixed = _shapes(shapes)
        of = _names("--output", outputs, "outputs of the model, or leave it out for all") if outputs else None
        target = _target(out, model)
        original = _read(model, target)
        differentiated = _differentiated(
            model, original, wrt=sources, outputs=of, shapes=fixed, cotangent=cotangent, gradient=gradient
        )
        _write(differentiated, target, out)
    except UsageError as error:
        raise UsageError(one_line(f"{error}; nothing was written")) from error
    added = len(differentiated.graph.node) - len(original.graph.node)
    new = [value.name for value in (*differentiated.graph.input, *differentiated.graph.output)]
    old = {value.name for value in (*original.graph.input, *original.graph.output)}
    names = ", ".join(name for name in new if name not in old)
    notes = lost_in_export(original, sources or [], gradient)
    for note in notes:
        say(one_line(f"note: {note}"), err=True)
    say(one_line(f"{out}: {number_of(added, 'node')} added; new inputs and outputs: {names}"))
    for note in notes:
        say("  " + one_line(f"note: {note}"))
    return 0


def _names(option: str, values: Iterable[str], wanted: str) -> list[str]:
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    if not names:
        raise UsageError(f"{option} is empty: name {wanted}")
    return names


def _shapes(values: Iterable[str]) -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = {}
    for value in values:
        name, equals, dims = value.rpartition("=")
        sizes = [dim.strip() for dim in dims.split(",")] if dims.strip() else []
        if not equals or not name or not all(DIMENSION.fullmatch(size) for size in sizes):
            raise UsageError(f"--shape {value}: a name and its dimensions are expected, as in x=1,3,160,160")
        if name in shapes:
            raise UsageError(f"--shape {value}: {name} has a shape already")
        shapes[name] = [int(size) for size in sizes]
    return shapes


def _target(out: str, model: Path) -> Path:
    """Return the file to write, symlinks followed: it does not exist yet, or is a regular file other than `model`."""
    if not out:
        raise UsageError("--out is empty: name the file to write")
    if _text_format(out):
        raise UsageError(f"--out {out}: models are written in ONNX's binary format: name a file that ends in .onnx")
    target = Path(os.path.realpath(out))
    try:
        mode = os.stat(out).st_mode  # noqa: PTH116  Path drops a slash at the end
    except FileNotFoundError:
        if out.endswith(os.sep):
            raise UsageError(f"--out {out}: is the name of a folder: name a file") from None
        return target
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        raise UsageError(f"--out {out}: is a folder: name a file in it")
    if not stat.S_ISREG(mode):
        raise UsageError(f"--out {out}: is no regular file (a pipe, a device or the like): name another")
    if _same(target, model):
        raise UsageError(f"--out {out}: is the model that is read: name another file")
    return target


def _same(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:
        return False


def _text_format(path: str | Path) -> bool:
    return onnx.serialization.registry.get_format_from_file_extension(Path(path).suffix) not in {None, BINARY}


def _read(path: Path, target: Path) -> onnx.ModelProto:
    """Return the model with all its data in memory; none is read from outside its folder, or from `target`."""
    try:
        model = onnx.load_from_string(read_bytes(path, LARGEST))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except DecodeError as error:
        advice = (
            ": models are read in ONNX's binary format; save it as .onnx with onnx.save" if _text_format(path) else ""
        )
        raise UsageError(f"{path}: is no ONNX model: {error}{advice}") from error
    if not model.ListFields():
        raise UsageError(f"{path}: is empty")
    try:
        for name, data in data_files(model, path.resolve().parent).items():
            if _same(data, target):
                raise UsageError(f"--out {target}: holds the data of {name} of {path}: name another file")
        read_external_data(model, path.resolve().parent)
    except ExternalDataError as error:
        raise UsageError(f"{path}: {error}") from error
    return model


def _differentiated(path: Path, model: onnx.ModelProto, **options: Any) -> onnx.ModelProto:
    """Return the model with gradients, with the rules of installed plugins; a broken plugin contributes none."""
    try:
        broken = [failure.message for failure in load_plugins().broken]
    except PluginError as error:
        broken = [str(error)]
    for message in broken:
        say(f"warning: {one_line(message)}", err=True)
    try:
        return add_gradients(model, **options)
    except NameTakenError as error:
        advice = "choose other prefixes with --cotangent and --gradient"
        raise UsageError(f"{path}: the name {error.name!r} is taken: {advice}") from error
    except GradientError as error:
        raise UsageError(f"{path}: {error}") from error
    except UnsupportedOperator as error:
        raise UsageError(f"{path}: {error}") from error


def _write(model: onnx.ModelProto, target: Path, out: str) -> None:
    """Write all of the model, or nothing."""
    if model.ByteSize() > LARGEST:
        raise UsageError(
            f"--out {out}: the model has more than 2 GiB and cannot be one file; call actconform.onnx.grad.add_gradients, and "
            "onnx.save with save_as_external_data=True"
        )
    part = target.with_name(f".actconform-{secrets.token_hex(4)}.part")
    try:
        part.open("xb").close()  # a new file, never an existing one
        try:
            part.write_bytes(model.SerializeToString())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written: {error.strerror}") from error
