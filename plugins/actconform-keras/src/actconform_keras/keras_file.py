"""A `.keras` or `.h5` file: looked through before Keras loads it, so that none runs code or fills the memory unasked."""

from __future__ import annotations

import json
import re
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actconform import SourceError
from actconform.text import one_line
from actconform_keras.trained_model import keras_fault
from actconform_keras.training_losses import losses_of_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    import keras

    from actconform.types.lint import TrainingLoss
    from actconform.types.trained import TrainedSource

CONFIG = "config.json"
LARGEST_CONFIG = 64 * 2**20  # bytes; the largest of keras.applications has 1 MB
# Weights hardly shrink, and Keras stores them as they are.
LARGEST_RATIO = 100
SMALLEST_BOMB = 2**28  # bytes from which the ratio is looked at
_OWN = re.compile(r"keras(\.|$)|builtins$")
# Of Keras itself, but they run code of the file's, or fetch and write files.
_CODE = {
    "Lambda": "holds a Python function as bytecode",
    "__lambda__": "holds a Python function as bytecode",
    "TorchModuleWrapper": "holds a pickled torch module",
    "TFSMLayer": "loads a SavedModel",
    "JaxLayer": "holds a function of JAX",
    "FlaxLayer": "holds a function of JAX",
}
_FUNCTIONS = re.compile(
    r"keras(\.src)?\.(activations|initializers|losses|metrics|ops|regularizers|constraints|layers)\b"
)


def load_keras_file(source: TrainedSource) -> tuple[keras.Model, tuple[TrainingLoss, ...]]:
    """Return the model of a file, and the losses that the file says it was compiled with. Raises SourceError for a damaged one, and for one that is not trusted and runs code of its own."""
    import keras

    path = Path(source.text)
    if path.is_dir():
        raise SourceError("is a folder: wanted a .keras file")
    config = _archived_config(path) if zipfile.is_zipfile(path) else _legacy_config(path)
    if not source.trusted:
        _refuse_code(config)
    elif source.folder and source.folder not in sys.path:
        sys.path.insert(0, source.folder)  # for the classes of the user's own
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=not source.trusted)
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        if isinstance(error, zipfile.BadZipFile) or (
            isinstance(error, OSError) and error.errno is None
        ):  # as h5py has it
            raise SourceError(f"is damaged: {one_line(str(error), 300)}: save it, or fetch it, again") from error
        raise SourceError(f"cannot be loaded: {keras_fault(error, source.folder)}") from error
    if not isinstance(model, keras.Model):
        raise SourceError(f"holds a {type(model).__name__}: wanted a keras.Model")
    return model, losses_of_config(config)


def _archived_config(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, path.stat().st_size)
            with archive.open(CONFIG) as file:
                text = file.read(LARGEST_CONFIG + 1)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError) as error:
        raise SourceError(f"the file is damaged: {one_line(str(error), 300)}") from error
    if len(text) > LARGEST_CONFIG:
        raise SourceError(f"{CONFIG} has more than {LARGEST_CONFIG >> 20} MiB")
    return _parsed(text)


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    members = archive.infolist()
    names = [member.filename for member in members]
    for name in names:
        if name.startswith(("/", "\\")) or ":" in name or ".." in re.split(r"[/\\]", name):
            raise SourceError(f"member {one_line(name)!r} of the archive would be written outside of it")
    if CONFIG not in names:
        raise SourceError(f"the archive holds no {CONFIG}: it is no .keras file")
    if len(set(names)) != len(names):
        raise SourceError("the archive holds a member twice")
    if any(member.flag_bits & 1 for member in members):
        raise SourceError("the archive is encrypted")
    total = sum(member.file_size for member in members)
    if total > SMALLEST_BOMB and total > LARGEST_RATIO * size:
        raise SourceError(f"the archive of {size:,} bytes would unpack to {total:,}: refused")


def _legacy_config(path: Path) -> Any:
    """Return the config of a model in an HDF5 file."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise SourceError(f"the file is damaged: {one_line(str(error), 300)}") from error
    if text is None:
        raise SourceError(
            "holds weights without a model: name a function that makes the model and loads them: package.module:factory"
        )
    return _parsed(text)


def _parsed(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{CONFIG} is damaged: {one_line(str(error), 300)}") from error


def _refuse_code(config: Any) -> None:
    """Raise SourceError for the first class or function of a config that is not Keras's own, or that runs code."""
    for entry, layer in _objects(config):
        name, module = entry.get("class_name"), entry.get("module")
        registered = entry.get("registered_name")
        reason = _CODE.get(str(name), "")
        if not reason and name == "function":
            name = entry.get("config")
            is_of_keras = module in (None, "builtins") or (isinstance(module, str) and _FUNCTIONS.match(module))
            reason = "" if is_of_keras else f"is a function of {module}"
        elif not reason and isinstance(module, str) and not _OWN.match(module):
            reason = f"is a class of {module}"
        elif not reason and isinstance(registered, str) and ">" in registered:
            package = registered.partition(">")[0]
            reason = "" if package.lower() == "keras" else f"is a class registered by {package}"
        if reason:
            where = f" of layer {one_line(layer, 200)}" if layer else ""
            raise SourceError(
                f"{one_line(str(name), 200)}{where} {one_line(reason, 200)}: to load it runs code that is not Keras's; it is opened only with --trust"
            )


def _objects(config: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield every serialized object of a config with the name of the layer around it."""
    waiting: list[tuple[Any, str]] = [(config, "")]
    while waiting:
        value, layer = waiting.pop()
        if isinstance(value, dict):
            inner = value.get("config")
            if "class_name" in value:
                if isinstance(inner, dict) and isinstance(inner.get("name"), str):
                    layer = inner["name"]
                yield value, layer
            waiting += [(part, layer) for part in reversed(value.values())]
        elif isinstance(value, list):
            waiting += [(part, layer) for part in reversed(value)]
