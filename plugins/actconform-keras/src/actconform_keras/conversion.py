"""The conversions to ONNX that kernels, models and trained models share: tf2onnx, `model.export`, and what they say where they fail."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from actconform import Unsupported
from actconform.plugin.import_failure import imported
from actconform_keras.keras_module import INSTALL, PLUGIN

if TYPE_CHECKING:
    from types import ModuleType

    import keras

# Keras on torch would try two exporters in turn; on TensorFlow it has one.
MODEL_EXPORT = "model.export on tensorflow: tf2onnx"

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def model_export(model: keras.Model) -> bytes:
    """Return the graph that `model.export(format="onnx")` writes of a model that was called before."""
    with TemporaryDirectory(prefix="actconform-") as folder:
        path = Path(folder) / "model.onnx"
        model.export(path, format="onnx", verbose=False)
        return path.read_bytes()


def tf2onnx_module() -> ModuleType:
    """Return tf2onnx; raise `Unavailable` where it is not installed."""
    return imported("tf2onnx", INSTALL, plugin=PLUGIN)


def refusal(error: Exception) -> Exception:
    """Return `Unsupported` in the error's words, without the frames that TensorFlow and Keras write around them."""
    if isinstance(error, MemoryError):
        return error
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines() if line.strip()] or [""]
    kind = f"{type(error).__name__}: "
    if lines[0].startswith("in user code"):  # a stack follows, and after it the error itself
        return Unsupported(next((line for line in reversed(lines) if line.startswith(kind)), kind + lines[-1]))
    wrapped = lines[0].startswith("Exception encountered when calling") and len(lines) > 1
    return Unsupported(kind + lines[1 if wrapped else 0])
