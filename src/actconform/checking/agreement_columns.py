"""The columns of a check over a data set: each runtime and further trained models beside the model as it was trained, or the graph in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actconform.checking.agreement import agreements, runtime_column, sample_by_sample, truth_column
from actconform.checking.dataset import data_set
from actconform.checking.model_file import ModelFile
from actconform.checking.runs import RunFailure
from actconform.checking.trained.names import in_graph_layout, in_trained_layout
from actconform.checking.user_metric import user_metric

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from actconform.checking.agreement import ColumnAgreement
    from actconform.checking.checked_sample import Progress
    from actconform.checking.runs import RuntimeRuns
    from actconform.checking.session import CheckRequest
    from actconform.checking.source import Source
    from actconform.checking.trained.column import TrainedColumn

    Arrays = Mapping[str, NDArray[Any]]


def agreements_of(
    request: CheckRequest,
    source: Source,
    runtimes: Sequence[RuntimeRuns],
    columns: Sequence[TrainedColumn],
    progress: Progress,
) -> list[ColumnAgreement]:
    """Return how far each column agrees with the first trained model over `request.data`, else with the graph in float64.

    Raises UsageError for a data set or metric that cannot be used.
    """
    data = data_set(request.data or "", source, batch=request.batch, max_memory=request.memory)
    metric = user_metric(request.metric) if request.metric else None
    progress.stage(f"agreement over {data.name}", data.count or 0)
    done = 0

    def step(count: int) -> None:
        nonlocal done
        progress.step(count - done)
        done = count

    with ModelFile(source.model) as file:
        answering = [sample_by_sample(column.runs.name, _trained_answer(column)) for column in columns]
        answering = answering or [truth_column(source)]
        answering += [runtime_column(runs, file) for runs in runtimes]
        return agreements(answering[0], answering[1:], data, metric=metric, keep=request.worst, progress=step)


def _trained_answer(column: TrainedColumn) -> Callable[[Arrays], Arrays | RunFailure]:
    def answer(inputs: Arrays) -> Arrays | RunFailure:
        result = column.runs.run(in_trained_layout(column.inputs, inputs), column.mode)
        if isinstance(result, RunFailure):
            return result
        return in_graph_layout(column.outputs, result.run.outputs if result.run else {})

    return answer
