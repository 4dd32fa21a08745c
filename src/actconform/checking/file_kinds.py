"""What a file or folder that is no ONNX model is, by its content, and how its owner makes an ONNX model of it."""

from __future__ import annotations

import ast
import re
import warnings
import zipfile
from typing import TYPE_CHECKING

from actconform.files import read_text
from actconform.text import listed

if TYPE_CHECKING:
    from pathlib import Path

HEAD = 4096  # bytes that tell the kind of a file
_EXPORT = "export it to ONNX with {}"
_TORCH = _EXPORT.format("torch.onnx.export")
_KERAS = _EXPORT.format("model.export(..., format='onnx') of Keras 3")
_TF2ONNX = _EXPORT.format("tf2onnx")
_OPENVINO = "OpenVINO's models cannot become ONNX again; check the ONNX model that it was converted from"

# By the bytes at an offset of the file: what it is, and what to do.
_MAGIC = (
    (0, b"version https://git-lfs", "a Git LFS pointer in place of the file", "fetch the file with `git lfs pull`"),
    (0, b"\x1f\x8b", "compressed by gzip", "unpack it with gunzip"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by Zstandard", "unpack it with zstd -d"),
    (0, b"\xfd7zXZ\x00", "compressed by xz", "unpack it with unxz"),
    (0, b"BZh", "compressed by bzip2", "unpack it with bunzip2"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras saved models and weights", f"load it in Keras and {_KERAS}"),
    (4, b"TFL3", "a TensorFlow Lite model", _EXPORT.format("tf2onnx --tflite")),
    (4, b"ORTM", "a model in ONNX Runtime's own ORT format", "check the .onnx file that it was converted from"),
    (4, b"ET12", "an ExecuTorch program", f"take the PyTorch model and {_TORCH}"),
    (0, b"GGUF", "a GGUF file of weights", "it holds no graph; export the model of its framework to ONNX"),
    (0, b"\x93NUMPY", "a NumPy array", "name the model first, and this file with --inputs"),
    (0, b"\x80\x02", "a pickle, as old versions of PyTorch save", f"load it in PyTorch and {_TORCH}"),
    (0, b"\x80\x04", "a pickle", f"load it in its framework (PyTorch?) and {_TORCH}"),
    (0, b"ptrt", "a TensorRT engine", "check the ONNX model that it was built from"),
    (0, b"ftrt", "a TensorRT engine", "check the ONNX model that it was built from"),
)
# By the name of a member of a zip archive.
_MEMBERS = (
    (r"(^|/)constants\.pkl$", "a TorchScript archive", f"load it with torch.jit.load and {_TORCH}"),
    (r"(^|/)(archive_format|models/model\.json)$", "a program of torch.export", f"load it with torch.export.load and {_TORCH}"),
    (r"(^|/)data\.pkl$", "a file of torch.save", f"load it in PyTorch and {_TORCH}"),
    (r"(^|/)model\.weights\.h5$", "a Keras model", f"load it in Keras and {_KERAS}"),
    (r"(^|/)saved_model\.pb$", "a zipped SavedModel of TensorFlow", f"unpack it and {_TF2ONNX} --saved-model"),
    (r"\.mlmodel$", "a zipped Core ML package", "check the ONNX model that it was converted from"),
    (r"\.npy$", "a NumPy archive", "name the model first, and this file with --inputs"),
    (r"\.onnx$", "a zip archive with an ONNX model inside", "unpack it and name the .onnx file"),
)  # fmt: skip
# By the suffix of a file's name, what writes such a file, where a trained model is read from it.
_WRITERS = {
    ".keras": "model.save('NAME.keras') of Keras",
    ".pt2": "torch.export.save",
    ".tflite": "TensorFlow Lite's converter",
}
MODEL_SUFFIXES = (".onnx", *_WRITERS, ".h5", ".pt", ".pth")
"""Of files that may be models."""


def foreign_folder(path: Path) -> str:
    """Return what a folder is in place of a model, and what to do."""
    names = sorted(entry.name for entry in path.iterdir())
    if "saved_model.pb" in names or "saved_model.pbtxt" in names:
        return f"is a SavedModel of TensorFlow: {_TF2ONNX} --saved-model"
    if path.suffix == ".mlpackage":
        return "is a Core ML package: check the ONNX model that it was converted from"
    models = [name for name in names if name.endswith(MODEL_SUFFIXES) and (path / name).is_file()]
    if models:
        return f"is a folder: name a model in it ({listed(models, 5)})"
    return f"is a folder: {_wanted(path)}"


def foreign_file(path: Path, head: bytes) -> str | None:
    """Return what a file is that begins with `head`, and what to do; None where nothing but an ONNX model is recognized."""
    for offset, magic, kind, advice in _MAGIC:
        if head[offset:].startswith(magic):
            return f"is {kind}: {advice}"
    if head.startswith(b"PK\x03\x04"):
        return _archive(path)
    if head[8:9] == b"{" and b'"' in head[9:12] and int.from_bytes(head[:8], "little") < 1 << 30:
        return "is a safetensors file: it holds weights and no graph; load it in its framework and export the model to ONNX"
    return _text(path, head)


def archive_members(path: Path) -> list[str] | None:
    """Return the names of the files in a zip archive; None where it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None


def _archive(path: Path) -> str:
    names = archive_members(path)
    if names is None:
        return "is a damaged or truncated zip archive: fetch it, or save it, again"
    for pattern, kind, advice in _MEMBERS:
        if any(re.search(pattern, name) for name in names):
            return f"is {kind}: {advice}"
    if path.suffix == ".keras":
        return f"is a zip archive without model.weights.h5, and so no Keras model: {_wanted(path)}"
    return "is a zip archive: unpack it and name the .onnx file"


def _wanted(path: Path) -> str:
    """Return what to name in place of a file or folder, by what its name says that it is."""
    writer = _WRITERS.get(path.suffix)
    return f"name the file that {writer} wrote, or an .onnx file" if writer else "name an .onnx file"


def _factories_in(path: Path) -> str:
    """Return how to name a function of a Python file that makes a model, by its text alone: nothing of it is run."""
    module = ".".join(path.with_suffix("").parts)
    if not all(part.isidentifier() for part in module.split(".")):
        return "name a function in it that makes the model as package.module:factory, from the folder where that can be imported"
    names = _public_functions_without_arguments(path)
    likely = [name for name in names if re.match(r"(make|build|create|load|get)(_|$)|.*model", name)]
    if not names:
        return f"name a function in it that takes no arguments and returns the model: {module}:make"
    return f"name the function in it that makes the model: {' or '.join(f'{module}:{name}' for name in (likely or names)[:3])}"


def _public_functions_without_arguments(path: Path) -> list[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's own about the user's text
            body = ast.parse(read_text(path)).body
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):  # a decoding error is a ValueError
        return []
    return [node.name for node in body if isinstance(node, ast.FunctionDef) and _is_factory(node)]


def _is_factory(function: ast.FunctionDef) -> bool:
    arguments = function.args
    required = len(arguments.posonlyargs) + len(arguments.args) > len(arguments.defaults)
    return not function.name.startswith("_") and not required and None not in arguments.kw_defaults


def _text(path: Path, head: bytes) -> str | None:
    """Return what a text is; None where the bytes are none."""
    text = head.decode("utf-8-sig", errors="surrogateescape").strip()
    if any("\ud800" <= letter <= "\udfff" for letter in text[:-4]):  # but the end may cut a letter
        return None
    if any(ord(letter) < 32 and letter not in "\t\n\r\f" for letter in text):
        return None
    if path.suffix == ".py":
        return f"is a Python file: {_factories_in(path)}"
    start = text[:200].lower()
    kinds = {
        "is an HTML page, perhaps of a failed download: fetch the file itself": "<html" in start
        or start.startswith("<!doctype html"),
        f"is an OpenVINO model in XML: {_OPENVINO}": start.startswith(("<net", "<?xml")) and "<net" in text,
        f"is an XML file: {_wanted(path)}": start.startswith("<?xml"),
        (
            "is an ONNX model written as text: save it in the binary format with "
            "onnx.save(onnx.load(path, format=...), 'model.onnx')"
        ): "ir_version" in text or '"irVersion"' in text,
        f"is a JSON file: {_wanted(path)}": start.startswith(("{", "[")),
    }
    return next((kind for kind, applies in kinds.items() if applies), f"is a text file: {_wanted(path)}")
