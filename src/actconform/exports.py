"""Exported graphs: made by the exporter in its framework's worker, kept by content, so that the next run need not wait."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from actconform.golden.store import digest
from actconform.interfaces import Unavailable, Unsupported
from actconform.types import Artifact
from actconform.workers.protocol import ExportJob

if TYPE_CHECKING:
    from actconform.model import Model
    from actconform.types import Bundle, Kernel
    from actconform.workers.pool import Worker
    from actconform.workers.protocol import Hello


class ExportError(Exception):
    """The exporter's worker failed at this case; the message says how."""


def cache_folder() -> Path:
    """Return where exports are kept: $ACTCONFORM_CACHE, or actconform/exports in the user's cache folder."""
    named = os.environ.get("ACTCONFORM_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(base) / "actconform" / "exports"


class Exports:
    """Asks one framework's worker for exports, or the cache, which is keyed by subject, dtype, exporter and all versions.

    Entries are written in one step, so that runs side by side and runs that are killed leave whole entries or none; a
    damaged entry is made again. A cache that cannot be written is done without.
    """

    def __init__(self, worker: Worker, folder: Path) -> None:
        self._worker = worker
        self._folder = folder
        self._hello: Hello | None = None

    def artifact(
        self, subject: Kernel | Model, dtype: str, exporter: str, timeout: float, constants: Bundle | None = None
    ) -> Artifact:
        """Return the exported graph, of a model with `constants` folded in where they are given.

        Raises Unsupported in the exporter's words where it raised, Unavailable where its framework is, ExportError for
        other failures, WorkerError where the worker died or hung.
        """
        path = self._folder / f"{self._key(subject, dtype, exporter, constants)}.msgpack"
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return _whole(path.read_bytes())
        outcome = self._worker.export(ExportJob(exporter, subject.name, dtype, constants), timeout)
        if outcome.failure is not None:
            kinds = {"unsupported": Unsupported, "unavailable": Unavailable}
            raise kinds.get(outcome.failure.kind, ExportError)(outcome.failure.message)
        assert outcome.artifact is not None
        with contextlib.suppress(OSError):
            self._keep(path, outcome.artifact)
        return outcome.artifact

    def _key(self, subject: Kernel | Model, dtype: str, exporter: str, constants: Bundle | None) -> str:
        if self._hello is None:
            self._hello = self._worker.start()
        if self._hello.unavailable:
            raise Unavailable(self._hello.unavailable)
        here = self._hello
        folded = {name: digest(array) for name, array in (constants or {}).items()}
        content = [exporter, dtype, msgspec.to_builtins(subject), folded]
        content += [here.facts, here.plugins, here.python, here.platform]
        return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()

    @staticmethod
    def _keep(path: Path, artifact: Artifact) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = msgspec.msgpack.encode(artifact)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".new", delete=False) as fresh:
            try:
                fresh.write(hashlib.sha256(content).digest() + content)
                fresh.flush()
                Path(fresh.name).replace(path)
            except OSError:
                Path(fresh.name).unlink(missing_ok=True)
                raise


def _whole(entry: bytes) -> Artifact:
    """Return the artifact of a cache entry; raise DecodeError where a bit of it is not what was written."""
    digest, content = entry[:32], entry[32:]
    if hashlib.sha256(content).digest() != digest:
        raise msgspec.DecodeError("damaged cache entry")
    return msgspec.msgpack.decode(content, type=Artifact)
