"""Exported graphs: made by the exporter in its framework's worker, kept with the key of all that made them, so that the next run need not wait."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from actconform.errors import ExportError, Unavailable, Unsupported
from actconform.files import read_bytes
from actconform.testdata.golden.store import digest
from actconform.types import Artifact  # noqa: TC001  msgspec reads the annotations when it decodes
from actconform.types.model import Model
from actconform.workers.protocol import ExportJob

if TYPE_CHECKING:
    from concurrent.futures import Future

    from actconform.types import Bundle, Kernel
    from actconform.workers.client import Worker
    from actconform.workers.protocol import Handshake


class _Entry(msgspec.Struct, frozen=True):
    """What a file of the cache holds: the key, as text, of which the file's name is the digest, and the graph."""

    key: str
    artifact: Artifact


def cache_folder() -> Path:
    """Return where exports are kept: $ACTCONFORM_CACHE, or actconform/exports in the user's cache folder."""
    named = os.environ.get("ACTCONFORM_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(base) / "actconform" / "exports"


class Exports:
    """Asks one framework's worker for exports, or the cache.

    The key of an entry is the subject, its dtype, constants and exporter, the settings of the worker's process, and what the
    worker says of itself: its facts, the code of the plugins there, and all of its packages. Entries are written in one
    step, so that runs side by side and runs that are killed leave whole entries or none; an entry that is damaged or holds
    another key is made again. A cache that cannot be written is done without. One thread asks the worker.
    """

    def __init__(self, worker: Worker, folder: Path) -> None:
        self._worker = worker
        self._folder = folder
        self._hello: Handshake | None = None
        self._thread = ThreadPoolExecutor(1, "exports")
        self._begun: dict[tuple[str, str, str, bool], Future[Artifact]] = {}

    def begin(
        self, subject: Kernel | Model, dtype: str, exporter: str, timeout: float, constants: Bundle | None = None
    ) -> None:
        """Begin what `artifact` is going to be asked for, while its caller does something else."""
        key = (subject.name, dtype, exporter, constants is not None)
        if key not in self._begun:
            self._begun[key] = self._thread.submit(self._artifact, subject, dtype, exporter, timeout, constants)

    def close(self) -> None:
        """Begin nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def artifact(
        self, subject: Kernel | Model, dtype: str, exporter: str, timeout: float, constants: Bundle | None = None
    ) -> Artifact:
        """Return the exported graph, of a model with `constants` folded in where they are not None.

        The constants of a model without parameters are empty, and ask for another graph than None does.

        Raises Unsupported in the exporter's words where it raised, Unavailable where its framework is, ExportError for
        other failures, WorkerError where the worker died or hung.
        """
        self.begin(subject, dtype, exporter, timeout, constants)
        return self._begun.pop((subject.name, dtype, exporter, constants is not None)).result()

    def _artifact(
        self, subject: Kernel | Model, dtype: str, exporter: str, timeout: float, constants: Bundle | None
    ) -> Artifact:
        key = self._key(subject, dtype, exporter, constants)
        path = self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.msgpack"
        with contextlib.suppress(OSError, msgspec.DecodeError):
            entry = _decode(read_bytes(path))
            if entry.key == key:
                return entry.artifact
        model = subject if isinstance(subject, Model) else None
        outcome = self._worker.export(ExportJob(exporter, subject.name, dtype, constants, model), timeout)
        if outcome.failure is not None:
            kinds = {"unsupported": Unsupported, "unavailable": Unavailable}
            raise kinds.get(outcome.failure.kind, ExportError)(outcome.failure.message)
        assert outcome.artifact is not None
        with contextlib.suppress(OSError):
            self._keep(path, _Entry(key, outcome.artifact))
        return outcome.artifact

    def _key(self, subject: Kernel | Model, dtype: str, exporter: str, constants: Bundle | None) -> str:
        if self._hello is None:
            self._hello = self._worker.start()
        if self._hello.unavailable:
            raise Unavailable(self._hello.unavailable)
        handshake = self._hello
        folded = None if constants is None else {name: digest(array) for name, array in constants.items()}
        content = [exporter, dtype, msgspec.to_builtins(subject), folded, dict(self._worker.env)]
        content += [handshake.facts, handshake.plugins, handshake.code, handshake.python, handshake.platform]
        return msgspec.json.encode(content, order="sorted").decode()

    @staticmethod
    def _keep(path: Path, entry: _Entry) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = msgspec.msgpack.encode(entry)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".new", delete=False) as fresh:
            try:
                fresh.write(hashlib.sha256(content).digest() + content)
                fresh.flush()
                Path(fresh.name).replace(path)
            except OSError:
                Path(fresh.name).unlink(missing_ok=True)
                raise


def _decode(blob: bytes) -> _Entry:
    """Return what a file of the cache holds; raise DecodeError where a bit of it is not what was written."""
    checksum, content = blob[:32], blob[32:]
    if hashlib.sha256(content).digest() != checksum:
        raise msgspec.DecodeError("damaged cache entry")
    return msgspec.msgpack.decode(content, type=_Entry)
