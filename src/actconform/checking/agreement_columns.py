"""The columns of a check over a data set: each runtime and further trained models beside the model as it was trained, or the graph in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actconform.checking.agreement import (
    AnsweringColumn,
    agreements,
    runtime_column,
    sample_by_sample,
    truth_column,
)
from actconform.checking.dataset import data_set
from actconform.checking.low_precision import lowered_sample
from actconform.checking.model_file import ModelFile
from actconform.checking.runs import RunFailure
from actconform.checking.trained.names import arrays_in_graph_layout, arrays_in_trained_layout
from actconform.checking.user_metric import user_metric

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto

    from actconform.checking.agreement import ColumnAgreement
    from actconform.checking.checked_sample import Progress
    from actconform.checking.low_precision import LowPrecision
    from actconform.checking.runs import RuntimeRuns
    from actconform.checking.session import CheckRequest
    from actconform.checking.source import Source
    from actconform.checking.trained.column import TrainedColumn

    Arrays = Mapping[str, NDArray[Any]]


class DataAgreement:
    """A data set and a metric for one graph, open: what is wrong with them is told before anything takes long.

    `source` is the graph as it is, whose inputs the data set has. Raises UsageError for a data set or metric that cannot be used.
    """

    def __init__(self, request: CheckRequest, source: Source) -> None:
        self._request = request
        self._source = source
        self._data = data_set(request.data, source, batch=request.batch, max_memory=request.memory)
        self._metric = user_metric(request.metric) if request.metric is not None else None

    def of_columns(
        self,
        model: ModelProto,
        runtimes: Sequence[RuntimeRuns],
        columns: Sequence[TrainedColumn],
        progress: Progress,
    ) -> list[ColumnAgreement]:
        """Return how far each column agrees with the first trained model, else with the graph as it is in float64.

        `model` is what runtimes get: the graph, in the precision that is asked for. Raises UsageError, naming the sample, for what is wrong in
        the data set, and for what the metric raises.
        """
        dtype = self._request.graph_dtype
        progress.stage(f"agreement over {self._data.name}", self._data.count or 0)
        done = 0

        def step(count: int) -> None:
            nonlocal done
            progress.step(count - done)
            done = count

        with ModelFile(model) as file:
            answering = [sample_by_sample(column.runs.name, _trained_answer(column)) for column in columns]
            answering = answering or [truth_column(self._source)]
            for runs in runtimes:
                column = runtime_column(runs, file)
                answering.append(_lowered(column, dtype) if dtype else column)
            return agreements(
                answering[0], answering[1:], self._data, metric=self._metric, keep=self._request.worst, progress=step
            )


def _lowered(column: AnsweringColumn, dtype: LowPrecision) -> AnsweringColumn:
    """Return a column that gets its inputs rounded to a format."""
    return AnsweringColumn(
        column.name, lambda samples: column.answers([lowered_sample(sample, dtype) for sample in samples])
    )


def _trained_answer(column: TrainedColumn) -> Callable[[Arrays], Arrays | RunFailure]:
    def answer(inputs: Arrays) -> Arrays | RunFailure:
        result = column.runs.run(arrays_in_trained_layout(column.inputs, inputs), column.mode)
        if isinstance(result, RunFailure):
            return result
        return arrays_in_graph_layout(column.outputs, result.run.outputs if result.run else {})

    return answer
