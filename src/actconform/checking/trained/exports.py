"""The graphs that exporters make of a trained model, and the inputs with which they do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
from onnx import helper

from actconform.checking.draw import draw_samples
from actconform.checking.inputs import read_samples
from actconform.checking.runs import RunFailure
from actconform.checking.source import read_source, source_of_model
from actconform.errors import UsageError, near
from actconform.files import write_bytes
from actconform.onnx.evaluate.element_types import STORAGE
from actconform.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from actconform.checking.inputs import InputSample
    from actconform.checking.source import Source
    from actconform.checking.trained.runs import TrainedRuns
    from actconform.types.trained import OpenedModel

    Arrays = Mapping[str, NDArray[Any]]

MODEL = "model.onnx"


class Export(NamedTuple):
    """The graph that an exporter made of a trained model, or why there is none."""

    exporter: str
    source: Source | None
    failure: str = ""
    warnings: tuple[str, ...] = ()


def chosen_exporters(wanted: Sequence[str], opened: OpenedModel) -> tuple[str, ...]:
    """Return the exporters that the user named, or all that take the model. Raises UsageError where there is none of that name."""
    for name in wanted:
        if name not in opened.exporters:
            raise UsageError(
                f"--exporter {name}: no exporter of that name takes {opened.about}{near(name, list(opened.exporters))}"
            )
    return tuple(wanted) or opened.exporters


def export_all(
    runs: TrainedRuns,
    exporters: Sequence[str],
    inputs: Arrays,
    folder: Path,
    step: Callable[[str], None],
    *,
    training: bool = False,
    max_memory: int | None = None,
) -> list[Export]:
    """Return what each exporter makes of the model; graphs are written to `folder`/EXPORTER/model.onnx.

    One that fails costs its own graph alone. Raises OSError where a graph cannot be written.
    """
    exports = []
    for name in exporters:
        step(name)
        artifact = runs.export(name, inputs, training=training)
        if isinstance(artifact, RunFailure):
            exports.append(Export(name, None, artifact.message))
            continue
        path = folder / name / MODEL
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, artifact.model)
        try:
            exports.append(Export(name, read_source(path, max_memory=max_memory), "", artifact.warnings))
        except UsageError as error:
            exports.append(Export(name, None, str(error), artifact.warnings))
    return exports


def example_inputs(
    runs: TrainedRuns, opened: OpenedModel, path: Path | None, *, seed: int, max_memory: int | None
) -> tuple[Arrays, str]:
    """Return inputs of the model, and where they come from: the user's file, those that the factory gave, or drawn ones.

    Example inputs whose floats are all alike, such as zeros, are drawn anew in their shapes: they would hide what the layers do.
    Raises UsageError where there are none and the model does not say what it takes.
    """
    if path is not None:
        sample = read_samples(path, signature_source(runs, opened), max_memory=max_memory).samples[0]
        return sample.arrays, path.name
    if opened.example:
        generator = np.random.default_rng(seed)
        arrays = {name: _lively(array, generator) for name, array in opened.example.items()}
        drawn = [name for name, array in arrays.items() if array is not opened.example[name]]
        words = f"example of {runs.source.text}" + (f", {', '.join(drawn)} drawn by seed {seed}" if drawn else "")
        return arrays, words
    source = signature_source(runs, opened)

    def refusal(arrays: Arrays) -> str | None:
        result = runs.run(arrays)
        return result.message if isinstance(result, RunFailure) else None

    drawn_samples: Sequence[InputSample] = draw_samples(
        source, seed=seed, count=1, ranges={}, accepts=refusal, max_memory=max_memory
    )
    return drawn_samples[0].arrays, f"drawn by seed {seed}"


def _lively(array: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
    if array.dtype.kind in "biuOSU" or array.size < 2 or (array != array.flat[0]).any():
        return array
    return generator.standard_normal(array.shape).astype(array.dtype)


def signature_source(runs: TrainedRuns, opened: OpenedModel) -> Source:
    """Return a source whose graph has the model's inputs and nothing else, to read or draw inputs by.

    Raises UsageError where the model does not say what it takes, or takes what ONNX does not have.
    """
    if not opened.inputs or not all(spec.dtype for spec in opened.inputs):
        raise UsageError(
            f"{one_line(runs.source.text)}: the model does not say what it takes: let the factory give (model, inputs), with inputs as a "
            "tuple or a dict"
        )
    types = {dtype.name: element_type for element_type, dtype in STORAGE.items()}
    values = []
    for spec in opened.inputs:
        if spec.dtype not in types:
            raise UsageError(f"input {one_line(spec.name)} is of {spec.dtype}, which ONNX does not have")
        dims = (
            None
            if spec.dims is None
            else [f"{spec.name}_{i}" if dim is None else dim for i, dim in enumerate(spec.dims)]
        )
        values.append(helper.make_tensor_value_info(spec.name, types[spec.dtype], dims))
    graph = onnx.GraphProto(name="signature", input=values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    return source_of_model(model, runs.source.text)
