"""Models, inputs and saved outputs in memory, as the files and names that a check takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from actconform.accuracy.arrays.conversion import array_of
from actconform.checking.runs import RunFailure
from actconform.checking.trained.live import live_runs
from actconform.errors import UsageError
from actconform.onnx.constants import tensor_of
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from actconform.checking.trained.runs import TrainedRuns
    from actconform.plugin.loader import Catalog


class GivenFiles:
    """Files in a folder of their own, and the models of this process by the names that they have in a check."""

    def __init__(self, folder: Path, catalog: Catalog, timeout: float) -> None:
        self.live: dict[str, TrainedRuns] = {}
        """Models of this process by name."""
        self._folder = folder
        self._catalog = catalog
        self._timeout = timeout

    def in_words(self, message: str) -> str:
        """Return a message without the folder, which no user has seen."""
        return message.replace(f"{self._folder}/", "")

    def model(self, model: Any, name: str, inputs: Any = None) -> str:
        """Return what names a model: a path or "module:factory" as it is, an onnx.ModelProto as a file, another as one of this process.

        `inputs` are example inputs for the last. Raises UsageError for what is no model.
        """
        if isinstance(model, str | Path):
            return str(model)
        if isinstance(model, onnx.ModelProto):
            path = self._folder / f"{name}.onnx"
            try:
                path.write_bytes(model.SerializeToString())
            except ValueError as error:  # more than 2 GiB
                raise UsageError(
                    f"the model cannot be serialized: {one_line(str(error))}: save it with external data and give the path"
                ) from error
            return str(path)
        example = None if isinstance(inputs, str | Path) else inputs
        if isinstance(example, list) and example and all(isinstance(entry, Mapping) for entry in example):
            example = example[0]
        runs = live_runs(model, example, self._catalog, self._timeout)
        text = runs.source.text
        while text in self.live:
            text += "'"
        self.live[text] = runs
        return text

    def inputs(self, inputs: Any, text: str) -> Path | None:
        """Return where inputs lie: None where they are drawn, a path as it is, arrays in a file.

        A dict is a sample by the names of the inputs, a list of dicts several samples, a tuple or a list of arrays one in the order of the
        inputs, an array that of a model of one input. Of a model of this process, which `text` names, inputs are taken as it names them.
        """
        if inputs is None or isinstance(inputs, str | Path):
            return None if inputs is None else Path(inputs)
        several = isinstance(inputs, list) and bool(inputs) and all(isinstance(entry, Mapping) for entry in inputs)
        if text in self.live and not several:
            opened = self.live[text].open()
            if isinstance(opened, RunFailure):
                raise UsageError(f"{one_line(text)}: {opened.message}")
            return self._arrays("inputs", opened.example)
        if isinstance(inputs, Mapping):
            return self._arrays("inputs", inputs)
        if several:
            folder = self._folder / "inputs"
            folder.mkdir()
            for k, sample in enumerate(inputs):
                self._arrays(f"inputs/{k}", sample)
            return folder
        if isinstance(inputs, list | tuple) and not all(isinstance(entry, int | float) for entry in inputs):
            return self._in_order(inputs)
        path = self._folder / "inputs.npy"
        np.save(path, _savable(array_of(inputs, "inputs=")))
        return path

    def data(self, data: Any) -> Any:
        """Return a data set as a check takes it: a dict of arrays as a file, all else as it is."""
        return str(self._arrays("data", data)) if isinstance(data, Mapping) else data

    def against(self, against: Any) -> list[str]:
        """Return what names the models and saved outputs beside the model; a dict of arrays is saved outputs."""
        if isinstance(against, str | Path | onnx.ModelProto | Mapping) or not isinstance(against, list | tuple):
            against = [against]
        texts = []
        for k, entry in enumerate(against):
            if isinstance(entry, Mapping):
                texts.append(str(self._arrays(f"outputs_{k}", entry)))
            else:
                texts.append(self.model(entry, f"against_{k}"))
        return texts

    def _arrays(self, name: str, arrays: Mapping[str, Any]) -> Path:
        path = self._folder / f"{name}.npz"
        named = {str(key): _savable(array_of(value, str(key))) for key, value in arrays.items()}
        np.savez(path, allow_pickle=False, **named)
        return path

    def _in_order(self, arrays: Sequence[Any]) -> Path:
        folder = self._folder / "inputs"
        folder.mkdir()
        for k, value in enumerate(arrays):
            array = array_of(value, f"input {k}")
            (folder / f"input_{k}.pb").write_bytes(tensor_of(array, "").SerializeToString())
        return folder


def _savable(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array that a file holds without pickling: strings as such."""
    return array.astype(str) if array.dtype == object else array
