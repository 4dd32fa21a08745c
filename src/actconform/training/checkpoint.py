"""A training as it lies in a file: its state, what it has lost so far, and what it is a training of, in the format of safetensors."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from actconform.errors import UsageError
from actconform.files import read_bytes, write_bytes
from actconform.text import one_line
from actconform.training.request import TrainSettings, difference_of_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

CHECKPOINT = "checkpoint.safetensors"
FORMAT = "actconform training 1"
MOST_BYTES = 2**35
BEST = "best/"
LOSS_HISTORY, VALIDATION_HISTORY = "history/loss", "history/validation"
_META, _KEY = "__metadata__", "actconform"  # one entry alone, since safetensors writes several in any order


class TrainIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """What a training is of: SHA-256 of the model and of the rows, and the settings."""

    model: str
    data: str
    settings: TrainSettings


class TrainProgress(NamedTuple):
    """How far a training has come."""

    step: int
    """How many steps are made."""
    state: Mapping[str, NDArray[Any]]
    losses: NDArray[np.float32]
    """Of each step, before its update."""
    validation: NDArray[np.float32]
    """The validation loss after each whole epoch; empty without validation."""
    best: Mapping[str, NDArray[Any]] = {}
    """The weights of the best epoch, where training may end early."""
    best_loss: float = float("inf")
    waited: int = 0
    """Epochs since the best one."""
    ended: bool = False
    """Whether training has ended early."""


class _Metadata(msgspec.Struct, kw_only=True):
    """What stands beside the tensors, as JSON."""

    format: str
    step: int
    epoch: int
    identity: TrainIdentity
    best_loss: float | None
    waited: int
    ended: bool
    digest: str = ""
    """SHA-256 of all else, tensors included."""


def write_checkpoint(path: Path, identity: TrainIdentity, progress: TrainProgress, epoch: int) -> None:
    """Write a checkpoint, all of it or nothing, and wait until the disk has it. Raises OSError that names the file.

    Weights, statistics and slots have their names, weights of the best epoch "best/NAME"; "history/loss" and "history/validation" are the losses.
    """
    from safetensors.numpy import save

    tensors = _tensors(progress)
    metadata = _Metadata(
        format=FORMAT,
        step=progress.step,
        epoch=epoch,
        identity=identity,
        best_loss=progress.best_loss if progress.best else None,
        waited=progress.waited,
        ended=progress.ended,
    )
    metadata.digest = _digest(metadata, tensors)
    content = save(tensors, metadata={_KEY: msgspec.json.encode(metadata).decode()})
    try:
        write_bytes(path, content, durable=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def read_checkpoint(path: Path, identity: TrainIdentity, initial: Mapping[str, NDArray[Any]]) -> TrainProgress:
    """Return the progress in a checkpoint of this very training, whose state before the first step was `initial`.

    Raises UsageError, naming the file and both sides, for no file, a damaged one, and one of another model, other data or settings.
    """
    shown = one_line(str(path))
    metadata, tensors = _read(path)
    if metadata.digest != _digest(metadata, tensors):
        raise _damaged(shown, "its numbers are not those that were written")
    for side, stored, present in (
        ("model", metadata.identity.model, identity.model),
        ("data", metadata.identity.data, identity.data),
    ):
        if stored != present:
            words = "another model" if side == "model" else "other data"
            digests = f"SHA-256 {one_line(stored, 80)[:12]}... in it, {present[:12]}... given"
            raise UsageError(f"{shown}: is of a training of {words}: {digests}")
    if difference := difference_of_settings(metadata.identity.settings, identity.settings):
        raise UsageError(f"{shown}: is of a training with other settings: {difference}")
    history = {LOSS_HISTORY, VALIDATION_HISTORY}
    state = {name: array for name, array in tensors.items() if name not in history and not name.startswith(BEST)}
    wrong = next(
        (name for name, array in initial.items() if name not in state or state[name].shape != array.shape), None
    )
    if wrong is not None or len(state) != len(initial) or not history <= tensors.keys():
        raise _damaged(shown, f"it lacks {one_line(wrong or 'its losses')}, or has others")
    return TrainProgress(
        state={name: state[name] for name in initial},
        losses=tensors[LOSS_HISTORY],
        validation=tensors[VALIDATION_HISTORY],
        best={name.removeprefix(BEST): array for name, array in tensors.items() if name.startswith(BEST)},
        step=metadata.step,
        best_loss=float("inf") if metadata.best_loss is None else metadata.best_loss,
        waited=metadata.waited,
        ended=metadata.ended,
    )


def expect_free_names(names: Sequence[str]) -> None:
    """Raise UsageError where a weight is called as a checkpoint calls what it has beside weights, by a whole name or its start "best/"."""
    reserved = {LOSS_HISTORY, VALIDATION_HISTORY, _META}
    if clash := next((name for name in names if name in reserved or name.startswith(BEST)), None):
        raise UsageError(f"the model has a weight {one_line(clash)!r}, as a checkpoint calls one of its own: rename it")


def expect_safetensors() -> None:
    """Raise UsageError where the package that writes checkpoints is not installed."""
    try:
        import safetensors.numpy  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"checkpoints are written with safetensors, which cannot be imported ({one_line(str(error))}): "
            "pip install 'actconform[train]'"
        ) from error


def _tensors(progress: TrainProgress) -> dict[str, NDArray[Any]]:
    return {
        **progress.state,
        **{BEST + name: array for name, array in progress.best.items()},
        LOSS_HISTORY: progress.losses,
        VALIDATION_HISTORY: progress.validation,
    }


def _read(path: Path) -> tuple[_Metadata, dict[str, NDArray[Any]]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    shown = one_line(str(path))
    try:
        content = read_bytes(path, MOST_BYTES)
    except FileNotFoundError as error:
        raise UsageError(
            f"--resume: there is no {shown}: begin without --resume, or name the folder with --out"
        ) from error
    except OSError as error:
        raise UsageError(f"{shown}: cannot be read: {error.strerror or error}") from error
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = msgspec.json.decode(header[_META][_KEY], type=_Metadata)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(shown, str(error)) from error
    if metadata.format != FORMAT:
        raise UsageError(f"{shown}: is of the format {one_line(metadata.format, 80)!r}, and {FORMAT!r} is read")
    return metadata, tensors


def _digest(metadata: _Metadata, tensors: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(metadata, digest="")))
    for name in sorted(tensors):
        digest.update(f"{name}\0{tensors[name].dtype}\0{tensors[name].shape}\0".encode())
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()


def _damaged(shown: str, reason: str) -> UsageError:
    return UsageError(
        f"{shown}: is no checkpoint of a training, or damaged ({one_line(reason, 200)}): begin anew, without --resume"
    )
