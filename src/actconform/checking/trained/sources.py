"""What a user names beside or in place of an ONNX file: a trained model by its factory or file, or outputs that were saved."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from actconform.checking.file_kinds import archive_members
from actconform.checking.runs import RunFailure
from actconform.checking.trained.runs import TrainedRuns
from actconform.errors import UsageError
from actconform.files import read_bytes, read_text
from actconform.settings import with_timeout
from actconform.text import one_line
from actconform.types.trained import SourceKind, TrainedSource
from actconform.workers.from_settings import configured_worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actconform.plugin.loader import Catalog
    from actconform.settings import Config

FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
HEAD = 16  # bytes that tell a file's kind
# By the name of a member of a zip archive, the first that fits.
_ARCHIVES: tuple[tuple[str, Literal["keras", "torchscript", "pt2", "pickle", "outputs"]], ...] = (
    (r"(^|/)model\.weights\.h5$", "keras"),
    (r"(^|/)(archive_format|models/model\.json|serialized_exported_program\.json)$", "pt2"),
    (r"(^|/)constants\.pkl$", "torchscript"),
    (r"(^|/)data\.pkl$", "pickle"),
    (r"\.npy$", "outputs"),
)
# By the bytes at an offset of a file.
_MAGIC = (
    (4, b"TFL3", "tflite"),
    (0, b"\x93NUMPY", "outputs"),
    (0, b"\x89HDF", "keras"),
    (0, b"\x80\x02", "pickle"),
    (0, b"\x80\x04", "pickle"),
    (0, b"\x80\x05", "pickle"),
)
# What stands in the text of a module that makes a model of a framework, by the name of its backend.
_IMPORTS = {
    "torch": re.compile(r"^\s*(import|from)\s+(torch|transformers|timm|lightning)", re.MULTILINE),
    "keras": re.compile(r"^\s*(import|from)\s+(keras|tensorflow|tf_keras)", re.MULTILINE),
    "jax": re.compile(r"^\s*(import|from)\s+(jax|flax|equinox|haiku)", re.MULTILINE),
}


class NamedSource(NamedTuple):
    """What the user named: an ONNX file, a trained model, or saved outputs."""

    text: str
    kind: Literal["onnx", "trained", "outputs"]
    trained: TrainedSource | None = None

    @property
    def path(self) -> Path:
        """The file of an ONNX model or of outputs."""
        return Path(self.text)


def named_source(text: str, *, trusted: bool = False) -> NamedSource:
    """Return what `text` names: an existing file or folder by its content, else "package.module:factory".

    A file that is none of these is taken for an ONNX model, whose reading says what is wrong. Raises UsageError for what is neither, and
    for pickled files.
    """
    path = Path(text)
    kind = _kind_of_path(path) if path.exists() or not FACTORY.fullmatch(text) else "factory"
    if kind == "pickle":
        raise UsageError(
            f"{one_line(text)}: is a pickled file of torch.save, which runs code when it is read, or holds weights without a model: name a "
            "function that makes the model and loads them: package.module:factory"
        )
    if kind in ("onnx", "outputs"):
        return NamedSource(text, "onnx" if kind == "onnx" else "outputs")
    where = text if kind == "factory" else str(path.resolve())
    return NamedSource(text, "trained", TrainedSource(cast("SourceKind", kind), where, str(Path.cwd()), trusted))


def _kind_of_path(path: Path) -> str:
    if path.is_dir():
        names = {entry.name for entry in path.iterdir()}
        if names & {"saved_model.pb", "saved_model.pbtxt"}:
            return "saved-model"
        return "outputs" if any(re.fullmatch(r"output_\d+\.pb|.+\.npy", name) for name in names) else "onnx"
    try:
        head = read_bytes(path, start=0, length=min(HEAD, path.stat().st_size)) if path.is_file() else b""
    except OSError:
        return "onnx"  # whose reading says what is wrong
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_archive(path)
    return next((kind for offset, magic, kind in _MAGIC if head[offset:].startswith(magic)), "onnx")


def _kind_of_archive(path: Path) -> str:
    members = archive_members(path) or []
    kinds = (kind for pattern, kind in _ARCHIVES if any(re.search(pattern, member) for member in members))
    return next(kinds, "onnx")


def open_trained(
    source: TrainedSource, catalog: Catalog, config: Config, stack: ExitStack, *, timeout: float | None = None
) -> TrainedRuns:
    """Return the runs of a trained model, open in the worker of the framework that takes it; `stack` ends it.

    `timeout` is as in `open_runtime`.

    Raises UsageError, with the words of the framework, where none takes it or the user must change something.
    """
    config = with_timeout(config, timeout)
    reasons = []
    for name in _frameworks(source, catalog):
        with ExitStack() as opening:
            worker = configured_worker(name, config)
            reproductions = {
                each.name: each.layer_reproduction() for each in catalog.exporters.values() if each.source == name
            }
            runs = opening.enter_context(TrainedRuns(name, source, worker, config.timeout, reproductions))
            opened = runs.open()
            if not isinstance(opened, RunFailure):
                stack.push(opening.pop_all())
                return runs
        if opened.kind not in (
            "refused",
            "unavailable",
        ):  # the user's own, or a crash or hang in which no other framework would fare better
            message = opened.message.removeprefix(f"{source.text} ").removeprefix(f"{source.text}: ")
            raise UsageError(f"{one_line(source.text)}: {message}")
        reasons.append(f"{name}: {opened.message}")
    if not reasons:
        raise UsageError(
            f"{one_line(source.text)}: no installed plugin opens this kind of model ({source.kind}): "
            'pip install "actconform[torch]", "actconform[keras]" or "actconform[jax]"'
        )
    raise UsageError(f"{one_line(source.text)}: no framework opens it: {'; '.join(reasons)}")


def _frameworks(source: TrainedSource, catalog: Catalog) -> Sequence[str]:
    """Return the backends that open this kind of model, those first that the user's module imports."""
    names = [name for name, backend in catalog.backends.items() if source.kind in backend.opens]
    text = _module_text(source) if source.kind == "factory" else ""
    return sorted(names, key=lambda name: not (name in _IMPORTS and _IMPORTS[name].search(text)))


def _module_text(source: TrainedSource) -> str:
    """Return the text of the user's module, without importing it; "" where it is not in the user's folder."""
    parts = source.text.partition(":")[0].split(".")
    place = Path(source.folder, *parts)
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        try:
            return read_text(path)
        except (OSError, UnicodeDecodeError):
            continue
    return ""
