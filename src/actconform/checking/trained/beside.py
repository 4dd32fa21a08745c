"""The models beside a graph: opened from what the user names, their tensors paired with the graph's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from actconform.checking.flatten import flatten
from actconform.checking.runs import RunFailure
from actconform.checking.source import read_source
from actconform.checking.trained.column import TrainedColumn
from actconform.checking.trained.graph_runs import GraphRuns
from actconform.checking.trained.names import (
    EXPORTED_FROM,
    arrays_in_graph_layout,
    arrays_in_trained_layout,
    differing_shapes,
    nearest_by_values,
    paired,
)
from actconform.checking.trained.sources import named_source, open_trained
from actconform.errors import Unsupported, UsageError
from actconform.text import one_line
from actconform.types.trained import RunMode, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import ExitStack
    from pathlib import Path

    from numpy.typing import NDArray

    from actconform.checking.source import Source, TensorType
    from actconform.checking.trained.model_runs import ModelRuns
    from actconform.plugin.loader import Catalog
    from actconform.settings import Config
    from actconform.types.trained import OpenedModel

    Arrays = Mapping[str, NDArray[Any]]


class Beside(NamedTuple):
    """What stands beside a graph: an open model, and what the user called it."""

    runs: ModelRuns
    text: str
    opened: OpenedModel
    is_graph: bool = False


def open_beside(
    texts: Sequence[str],
    catalog: Catalog,
    config: Config,
    stack: ExitStack,
    *,
    trusted: bool,
    timeout: float | None,
    max_memory: int | None,
) -> tuple[list[Beside], list[Path]]:
    """Return the models that the user names, open, and the paths of saved outputs; `stack` ends their processes.
    Raises UsageError where one cannot be opened.
    """
    models, outputs = [], []
    for text in texts:
        named = named_source(text, trusted=trusted)
        if named.kind == "outputs":
            outputs.append(named.path)
        elif named.trained is not None:
            runs: ModelRuns = open_trained(named.trained, catalog, config, stack, timeout=timeout)
            models.append(Beside(runs, text, _opened(runs, text)))
        else:
            runs = stack.enter_context(GraphRuns(read_source(named.path, max_memory=max_memory)))
            models.append(Beside(runs, text, _opened(runs, text), is_graph=True))
    return models, outputs


def live_beside(runs: ModelRuns, text: str) -> Beside:
    """Return a model of this process, as `text` names it. Raises UsageError where it cannot be opened."""
    return Beside(runs, text, _opened(runs, text))


def _opened(runs: ModelRuns, text: str) -> OpenedModel:
    opened = runs.open()
    if isinstance(opened, RunFailure):
        raise UsageError(f"{one_line(text)}: {opened.message}")
    return opened


def column_of(model: Beside, source: Source, example: Arrays, mode: RunMode, exporter: str = "") -> TrainedColumn:
    """Return a model as a column beside a graph; `example` are inputs of the graph, for what the model's outputs are.

    Raises UsageError where inputs or outputs cannot be paired, or the model cannot run in `mode`.
    """
    _expect_mode(model, mode)
    declared = model.opened.inputs or _specs(source.inputs)
    inputs, notes = paired(_specs(source.inputs), declared, "input")
    result = model.runs.run(arrays_in_trained_layout(inputs, example))
    if isinstance(result, RunFailure) and result.kind in ("source", "refused"):
        differ = differing_shapes(_specs(source.inputs), declared, inputs)
        because = (
            f"their shapes differ: {'; '.join(differ)}; {EXPORTED_FROM} ({result.message})"
            if differ
            else result.message
        )
        raise UsageError(f"{one_line(model.text)}: does not take the graph's inputs: {because}")
    if isinstance(result, RunFailure):  # it costs this column alone
        return TrainedColumn(model.runs, model.text, inputs, (), mode, is_graph=model.is_graph, failure=result)
    arrays = result.run.outputs if result.run else {}
    specs = [TensorSpec(name, array.dtype.name, array.shape) for name, array in arrays.items()]
    outputs, more = paired(
        _specs(source.outputs), specs, "output", complete=False, by_values=lambda: _nearest(source, example, arrays)
    )
    return TrainedColumn(
        model.runs,
        model.text,
        inputs,
        outputs,
        mode,
        is_graph=model.is_graph,
        exporter=exporter,
        notes=[*notes, *more, *model.opened.notes],
    )


def _nearest(source: Source, example: Arrays, arrays: Arrays) -> dict[str, str]:
    """Return which output of the trained model each of the graph is, by their values at the example; {} where that does not tell."""
    if len(source.outputs) == 1 and len(arrays) == 1:
        return {}  # the order tells
    try:
        return nearest_by_values(flatten(source.model, example).truth, arrays)
    except (Unsupported, ValueError):
        return {}


def _expect_mode(model: Beside, mode: RunMode) -> None:
    opened = model.opened
    if mode.training and not opened.trainable:
        raise UsageError(f"--train-mode: {one_line(model.text)} has no training mode")
    if mode.precision not in opened.precisions:
        raise UsageError(
            f"--dtype: {one_line(model.text)} cannot run in {mode.precision}; it can in {', '.join(opened.precisions)}"
        )


def refusal_of(column: TrainedColumn) -> Callable[[Arrays], str | None]:
    """Return what says why the trained model refuses inputs of the graph, None where it takes them."""

    def refusal(arrays: Arrays) -> str | None:
        if column.failure is not None:
            return None
        result = column.runs.run(arrays_in_trained_layout(column.inputs, arrays), column.mode)
        return result.message if isinstance(result, RunFailure) else None

    return refusal


def example_for(source: Source, opened: OpenedModel, arrays: Arrays) -> Arrays:
    """Return inputs of the trained model as inputs of the graph."""
    pairs, _ = paired(_specs(source.inputs), opened.inputs or _array_specs(arrays), "input")
    return arrays_in_graph_layout(pairs, arrays)


def misfits(source: Source, inputs: Arrays) -> str:
    """Return why arrays are no inputs of the graph, "" where they fit."""
    for name, declared in source.inputs.items():
        array = inputs.get(name)
        if array is None:
            return f"the graph also takes {one_line(name)}"
        sizes = declared.dims is None or (
            len(declared.dims) == array.ndim
            and all(
                not isinstance(dim, int) or dim == size for dim, size in zip(declared.dims, array.shape, strict=True)
            )
        )
        if array.dtype != declared.dtype or not sizes:
            return f"{one_line(name)} is {array.dtype.name} {list(array.shape)}, and the graph takes {declared}"
    return ""


def _array_specs(arrays: Arrays) -> list[TensorSpec]:
    return [TensorSpec(name, array.dtype.name, array.shape) for name, array in arrays.items()]


def _specs(declared: Mapping[str, TensorType]) -> list[TensorSpec]:
    return [TensorSpec(name, tensor.dtype.name, tensor.dims) for name, tensor in declared.items()]
