"""`actconform.train_model`: the training of the command line, called from Python, of files or of a model and arrays in memory."""

from __future__ import annotations

import shutil
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np
import onnx

from actconform.errors import UsageError, near
from actconform.files import temporary_folder
from actconform.plugin.loader import load_plugins
from actconform.report.terminal.console import open_console
from actconform.report.terminal.train_progress import TrainScreen
from actconform.settings import read_config
from actconform.text import one_line
from actconform.training.own_model import train_own_model
from actconform.training.request import TrainRequest
from actconform.workers.from_settings import configured

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from actconform.training.own_model import TrainListener, TrainOutcome

PREFIX = "actconform-train-"


class TrainOptions(TypedDict, total=False):
    """Options of `actconform.train_model`, those of the command; all may be left out."""

    optimizer: str
    """"adam" by default."""
    target: str
    output: str
    learning_rate: float
    momentum: float
    nesterov: bool
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    decay: float
    decay_steps: int
    batch: int
    epochs: int
    steps: int
    parameters: str | Sequence[str]
    validation: float
    stop_patience: int
    stop_min_delta: float
    runtime: str
    """"ort-cpu" by default."""
    seed: int
    resume: bool
    timeout: float
    """Seconds that a step may take."""
    max_memory: float
    """GiB."""
    config: str | Path | None


def train_model(
    model: str | Path | onnx.ModelProto,
    data: str | Path | Mapping[str, NDArray[Any]],
    *,
    loss: str,
    out: str | Path,
    progress: bool = False,
    **options: Unpack[TrainOptions],
) -> TrainOutcome:
    """Train an exported model in an ONNX runtime, as `actconform train` does, and write model.onnx, losses.csv and checkpoint.safetensors.

    `model` is a path, or an onnx.ModelProto, which is left as it is; `data` a path, or arrays by name: the model's inputs and the target, rows
    along their first axis. `out` is the folder to write. `progress` shows a bar on standard error. `ending` of what is returned says
    how it ended, "finished" or "early" where all went well, `losses` are those of every step, float32; Ctrl-C, a runtime that failed, and
    a loss that became NaN are endings too. Raises UsageError for what the user must change, TypeError for an option that there is
    none of, OSError where a file cannot be written.
    """
    for name in options:
        if name not in TrainOptions.__annotations__:
            raise TypeError(f"train_model() has no option {name!r}{near(name, list(TrainOptions.__annotations__))}")
    choices: dict[str, Any] = {**options}
    config, patterns = choices.pop("config", None), choices.pop("parameters", ())
    settings = read_config(None if config is None else Path(config))
    catalog = configured(load_plugins(), settings)
    with ExitStack() as stack:
        folder = temporary_folder(PREFIX)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        request = TrainRequest(
            model=_file_of_model(model, folder),
            data=_file_of_rows(data, folder),
            loss=loss,
            out=Path(out),
            parameters=(patterns,) if isinstance(patterns, str) else tuple(patterns),
            **choices,
        )
        epochs = 0 if request.steps is not None else request.epochs or 1
        screen = TrainScreen(open_console(to_stderr=True), epochs)
        listener: TrainListener = stack.enter_context(screen) if progress else _Quiet()
        try:
            return train_own_model(request, catalog, settings, listener)
        except UsageError as error:
            raise UsageError(str(error).replace(f"{folder}/", "")) from error


class _Quiet:
    def epoch(self, number: int, losses: NDArray[np.float32], validation: float | None, seconds_left: float) -> None:
        """Say nothing."""

    def steps(self, done: int, total: int) -> None:
        """Say nothing."""


def _file_of_model(model: str | Path | onnx.ModelProto, folder: Path) -> Path:
    if not isinstance(model, onnx.ModelProto):
        return Path(model)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def _file_of_rows(data: str | Path | Mapping[str, NDArray[Any]], folder: Path) -> Path:
    if isinstance(data, str | Path):
        return Path(data)
    place = folder / "data.npz"
    with zipfile.ZipFile(place, "w") as archive:
        for name, array in data.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                try:
                    np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
                except ValueError as error:
                    raise UsageError(
                        f"{one_line(str(name))!r} is no array of numbers: {one_line(str(error))}"
                    ) from error
    return place
